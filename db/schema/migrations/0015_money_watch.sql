-- Keys that no node takes, and the invariants that were blind in one direction.

-- When the nodes' refusals ended the tries for good: such a key never comes back.
ALTER TABLE vpn_keys ADD COLUMN given_up_at timestamptz;
UPDATE vpn_keys k SET given_up_at = atlas_now()
WHERE activation_status = 'failed'
   OR (wanted = 'absent' AND (EXISTS (SELECT FROM reissues r WHERE r.key_id = k.id AND r.result = 'failed')
                              OR (activated_at IS NULL AND EXISTS (SELECT FROM cases c WHERE c.key_id = k.id
                                                                   AND c.kind = 'activation_failed'))));

-- The share of a referrer by the number of distinct paying friends, the buyer included; db.referrals has the same tiers.
CREATE FUNCTION referral_percent(friends integer) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN friends >= 50 THEN 45 WHEN friends >= 25 THEN 25 ELSE 10 END;

-- As before, without putting words together about every journal that is in order.
CREATE OR REPLACE VIEW money_i02_journals_are_balanced AS
WITH side AS (
    SELECT journal_id, currency, count(*) AS legs, sum(amount) AS amount FROM postings GROUP BY journal_id, currency
), whole AS (
    SELECT journal_id, sum(legs) AS legs, bool_or(amount <> 0) AS is_uneven FROM side GROUP BY journal_id
)
SELECT 'journal:' || j.id AS subject,
       format('%s postings, sums %s', coalesce(w.legs, 0), (SELECT string_agg(currency || ' ' || amount, ', ') FROM side
                                                            WHERE journal_id = j.id)) AS problem
FROM journals j LEFT JOIN whole w ON w.journal_id = j.id
WHERE w.legs IS NULL OR w.legs < 2 OR w.is_uneven;

-- ---- what was paid and what it led to, seen from both sides --------------------------------------------------------

CREATE OR REPLACE VIEW money_i06_paid_orders_have_their_effect AS
WITH booked AS (
    SELECT order_id, count(*) FILTER (WHERE kind = 'purchase') AS purchases,
           count(*) FILTER (WHERE kind = 'balance_purchase') AS from_balance, count(*) FILTER (WHERE kind = 'topup') AS credits
    FROM journals WHERE order_id IS NOT NULL AND kind IN ('purchase', 'balance_purchase', 'topup') GROUP BY order_id
), granted AS (
    SELECT order_id, count(*) AS n FROM entitlement_events WHERE order_id IS NOT NULL GROUP BY order_id
)
SELECT 'order:' || o.id AS subject,
       format('%s order, %s, paid from %s: %s purchase and %s balance purchase journals, %s credit journals, %s entitlement events',
              o.kind, o.state, coalesce(o.paid_from, 'nothing'), coalesce(b.purchases, 0), coalesce(b.from_balance, 0),
              coalesce(b.credits, 0), coalesce(g.n, 0)) AS problem
FROM orders o
LEFT JOIN booked b ON b.order_id = o.id
LEFT JOIN granted g ON g.order_id = o.id
WHERE coalesce(b.purchases, 0) <> (o.state = 'paid' AND o.kind = 'subscription' AND o.paid_from = 'provider')::integer
   OR coalesce(b.from_balance, 0) <> (o.state = 'paid' AND o.kind = 'subscription' AND o.paid_from = 'balance')::integer
   OR coalesce(b.credits, 0) <> (o.state = 'paid' AND o.kind = 'topup')::integer
   OR coalesce(g.n, 0) <> (o.state = 'paid' AND o.kind = 'subscription')::integer
UNION ALL
SELECT 'journal:' || id, format('a %s journal of no order', kind)
FROM journals WHERE order_id IS NULL AND kind IN ('purchase', 'balance_purchase', 'topup')
UNION ALL
SELECT 'event:' || id, format('access was extended by a %s that no order stands for', source)
FROM entitlement_events WHERE order_id IS NULL AND kind = 'grant' AND source IN ('payment', 'balance')
UNION ALL
-- The order, its journal and what was granted say the same.
SELECT 'event:' || e.id,
       format('order %s: %s %s d for %s from %s; granted %s %s by %s, booked %s by a %s journal', o.id, o.tariff, o.days,
              o.price_amount, o.paid_from, e.tariff, e.period, e.source, p.amount, coalesce(j.kind, 'missing'))
FROM entitlement_events e
JOIN orders o ON o.id = e.order_id
LEFT JOIN journals j ON j.id = e.journal_id
LEFT JOIN postings p ON p.journal_id = e.journal_id AND p.account_id IN (SELECT id FROM accounts WHERE kind = 'revenue')
WHERE e.kind <> 'grant' OR e.tariff IS DISTINCT FROM o.tariff OR e.period IS DISTINCT FROM make_interval(days => o.days)
   OR e.source <> CASE o.paid_from WHEN 'balance' THEN 'balance' ELSE 'payment' END
   OR (e.money_in_id IS NOT NULL) <> (o.paid_from = 'provider')
   OR j.order_id IS DISTINCT FROM o.id OR j.customer_id IS DISTINCT FROM o.customer_id
   OR j.money_in_id IS DISTINCT FROM e.money_in_id OR p.amount IS DISTINCT FROM o.price_amount
UNION ALL
SELECT 'journal:' || j.id, format('credits %s to customer %s for order %s of %s by customer %s',
                                  p.amount, a.customer_id, o.id, o.price_amount, o.customer_id)
FROM journals j JOIN orders o ON o.id = j.order_id
JOIN postings p ON p.journal_id = j.id JOIN accounts a ON a.id = p.account_id
WHERE j.kind = 'topup' AND a.kind = 'customer' AND (p.amount <> o.price_amount OR a.customer_id <> o.customer_id)
UNION ALL
SELECT 'order:' || o.id, 'paid with a promo code that was not counted, or counted without being paid'
FROM orders o LEFT JOIN promo_uses u ON u.order_id = o.id
WHERE (o.state = 'paid' AND o.promo_code_id IS NOT NULL) <> (u.order_id IS NOT NULL)
   OR u.promo_code_id <> o.promo_code_id OR u.customer_id <> o.customer_id
UNION ALL
SELECT 'promo_code:' || c.id, format('counts %s uses, %s are written down', c.uses, coalesce(used.n, 0))
FROM promo_codes c LEFT JOIN (SELECT promo_code_id, count(*) AS n FROM promo_uses GROUP BY promo_code_id) AS used
    ON used.promo_code_id = c.id
WHERE c.uses <> coalesce(used.n, 0);

CREATE OR REPLACE VIEW money_i07_rewards_follow_purchases AS
WITH payer AS (
    -- Whose rouble it is: the customer who paid, or who got it from a case.
    SELECT m.id AS money_in_id, m.booked_amount, coalesce(m.customer_id, j.customer_id) AS customer_id
    FROM money_in m LEFT JOIN journals j ON j.money_in_id = m.id AND j.kind = 'case_credit'
), paid AS (
    SELECT j.id, j.money_in_id, a.customer_id, sum(p.amount) AS amount
    FROM journals j JOIN postings p ON p.journal_id = j.id JOIN accounts a ON a.id = p.account_id
    WHERE j.kind = 'referral_reward' AND a.kind = 'customer' GROUP BY j.id, a.customer_id
), friends AS (
    SELECT referrer_id, count(*) AS n FROM customers WHERE referrer_id IS NOT NULL GROUP BY referrer_id
), back AS (
    SELECT j.money_in_id, sum(p.amount) AS amount
    FROM journals j JOIN postings p ON p.journal_id = j.id JOIN accounts a ON a.id = p.account_id
    WHERE j.kind = 'referral_clawback' AND a.kind = 'referral_expense' GROUP BY j.money_in_id
)
SELECT 'reward:' || r.id AS subject,
       format('reward of %s (%s %% for %s friends) for money_in %s, buyer %s, referrer %s', r.amount, r.percent, r.friends,
              r.money_in_id, r.buyer_id, r.referrer_id) AS problem
FROM referral_rewards r
JOIN payer ON payer.money_in_id = r.money_in_id
JOIN customers buyer ON buyer.id = r.buyer_id
LEFT JOIN friends ON friends.referrer_id = r.referrer_id
LEFT JOIN paid ON paid.id = r.journal_id
WHERE payer.customer_id IS DISTINCT FROM r.buyer_id
   OR buyer.referrer_id IS DISTINCT FROM r.referrer_id
   OR r.buyer_id = r.referrer_id
   OR r.percent <> referral_percent(r.friends)
   OR r.friends > coalesce(friends.n, 0)
   OR r.amount <> payer.booked_amount * r.percent / 100
   OR (paid.money_in_id, paid.customer_id, paid.amount) IS DISTINCT FROM (r.money_in_id, r.referrer_id, r.amount::numeric)
UNION ALL
-- Ten kopecks are the least of which the least share is one; a charge that waits in a case is nobody's yet.
SELECT 'money_in:' || payer.money_in_id, format('customer %s brought in %s, and the referrer %s got no reward',
                                                payer.customer_id, payer.booked_amount, c.referrer_id)
FROM payer JOIN customers c ON c.id = payer.customer_id
WHERE c.referrer_id IS NOT NULL AND payer.booked_amount >= 10
  AND NOT EXISTS (SELECT FROM referral_rewards r WHERE r.money_in_id = payer.money_in_id)
UNION ALL
SELECT 'journal:' || j.id, 'a reward journal without its reward'
FROM journals j WHERE j.kind = 'referral_reward' AND NOT EXISTS (SELECT FROM referral_rewards r WHERE r.journal_id = j.id)
UNION ALL
SELECT 'money_in:' || money_in_id, format('%s rewards', count(*)) FROM referral_rewards
GROUP BY money_in_id HAVING count(*) > 1
UNION ALL
SELECT 'reward:' || r.id, format('reward of %s, %s of it taken back', r.amount, back.amount)
FROM referral_rewards r JOIN back ON back.money_in_id = r.money_in_id
WHERE back.amount > r.amount
UNION ALL
SELECT 'journal:' || j.id, 'a reward was taken back without a refund'
FROM journals j
WHERE j.kind = 'referral_clawback'
  AND NOT EXISTS (SELECT FROM refunds f WHERE f.clawback_journal_id = j.id AND f.money_in_id = j.money_in_id);

-- ---- nodes: who is entitled is served, who is not is not, strangers included ---------------------------------------

CREATE OR REPLACE VIEW money_i10_nodes_have_the_active AS
WITH placed AS (
    SELECT p.*, n.name FROM key_placements p JOIN vpn_nodes n ON n.id = p.node_id WHERE n.retired_at IS NULL
)
SELECT 'key:' || k.id AS subject,
       format('wanted %s until %s, %s; %s has it %s until %s', k.wanted, s.expires_at, k.activation_status,
              coalesce(p.name, 'no node'), coalesce(p.applied, 'unknown'), p.applied_expires_at) AS problem
FROM vpn_keys k
JOIN subscriptions s ON s.id = k.subscription_id
LEFT JOIN placed p ON p.key_id = k.id
WHERE CASE WHEN k.wanted = 'present' AND s.state = 'active' AND s.expires_at > atlas_now()
           THEN k.activation_status <> 'failed'
                AND (p.applied, p.applied_expires_at) IS DISTINCT FROM ('present', s.expires_at)
           ELSE p.applied = 'present' AND (p.applied_expires_at IS NULL OR p.applied_expires_at > atlas_now()) END
UNION ALL
SELECT 'key:' || k.id, format('it has no place on node %s, which accepts keys', n.name)
FROM vpn_keys k JOIN subscriptions s ON s.id = k.subscription_id
JOIN vpn_nodes n ON n.accepts_keys AND n.retired_at IS NULL
LEFT JOIN key_placements p ON p.key_id = k.id AND p.node_id = n.id
WHERE k.wanted = 'present' AND k.activation_status <> 'failed' AND s.state = 'active' AND s.expires_at > atlas_now()
  AND p.key_id IS NULL
UNION ALL
SELECT 'subscription:' || s.id, format('runs until %s, and no key is wanted for it', s.expires_at)
FROM subscriptions s
WHERE s.state = 'active' AND s.expires_at > atlas_now()
  AND NOT EXISTS (SELECT FROM vpn_keys k WHERE k.subscription_id = s.id AND k.wanted = 'present')
UNION ALL
-- Nothing was credited for it, so the access runs on without a key: a human has to know.
SELECT 'key:' || k.id, 'no node took it, its subscription runs, and no open case says so'
FROM vpn_keys k JOIN subscriptions s ON s.id = k.subscription_id
WHERE k.activation_status = 'failed' AND s.state = 'active' AND s.expires_at > atlas_now()
  AND NOT EXISTS (SELECT FROM cases c WHERE c.key_id = k.id AND c.state = 'open')
UNION ALL
SELECT 'stranger:' || n.name || ':' || s.key_id, format('%s has it since %s at least, and nobody wants it there', n.name, s.first_seen_at)
FROM key_sightings s JOIN vpn_nodes n ON n.id = s.node_id
WHERE n.retired_at IS NULL AND s.first_seen_at < atlas_now() - interval '1 hour';

-- ---- messages: each fact told once, each message with its fact -----------------------------------------------------

-- `customer` is 0 for the operator. A fact and its message are written by one transaction, so a week of each is the same week.
CREATE OR REPLACE VIEW money_i11_messages_follow_facts AS
WITH since AS MATERIALIZED (
    SELECT atlas_now() - interval '7 days' AS at
), facts AS (
    SELECT 'purchase' AS kind, 'order:' || e.order_id AS subject, o.customer_id AS customer
    FROM entitlement_events e JOIN orders o ON o.id = e.order_id WHERE e.created_at > (SELECT at FROM since)
    UNION ALL
    SELECT 'access_granted', 'event:' || e.id, s.customer_id
    FROM entitlement_events e JOIN subscriptions s ON s.id = e.subscription_id
    WHERE e.kind = 'grant' AND e.source IN ('trial', 'admin') AND e.created_at > (SELECT at FROM since)
    UNION ALL
    SELECT 'renewal_succeeded', 'subscription:' || r.subscription_id || ':' || floor(extract(epoch FROM r.period_start))::bigint,
           s.customer_id
    FROM renewals r JOIN subscriptions s ON s.id = r.subscription_id WHERE r.created_at > (SELECT at FROM since)
    UNION ALL
    SELECT 'balance_credited', 'money_in:' || money_in_id, customer_id FROM journals
    WHERE kind IN ('topup', 'payment_credit', 'case_credit') AND money_in_id IS NOT NULL AND created_at > (SELECT at FROM since)
    UNION ALL
    SELECT 'balance_adjusted', 'journal:' || id, customer_id FROM journals
    WHERE kind = 'admin_adjust' AND idempotency_key LIKE 'adjust:%' AND created_at > (SELECT at FROM since)
    UNION ALL
    SELECT 'compensation_credited', 'journal:' || id, customer_id FROM journals
    WHERE kind = 'compensation' AND created_at > (SELECT at FROM since)
    UNION ALL
    SELECT 'referral_reward', 'reward:' || id, referrer_id FROM referral_rewards WHERE created_at > (SELECT at FROM since)
    UNION ALL
    SELECT 'refund_paid', 'refund:' || r.id, j.customer_id FROM refunds r JOIN journals j ON j.id = r.journal_id
    WHERE j.customer_id IS NOT NULL AND r.created_at > (SELECT at FROM since)
    UNION ALL
    SELECT 'withdrawal_requested', 'withdrawal:' || id, told.customer
    FROM withdrawals CROSS JOIN LATERAL (VALUES (customer_id), (0)) AS told (customer) WHERE created_at > (SELECT at FROM since)
    UNION ALL
    SELECT CASE state WHEN 'paid' THEN 'withdrawal_approved' ELSE 'withdrawal_rejected' END, 'withdrawal:' || id, customer_id
    FROM withdrawals WHERE state <> 'reserved' AND settled_at > (SELECT at FROM since)
    UNION ALL
    SELECT 'case_opened', 'case:' || id, 0 FROM cases WHERE opened_at > (SELECT at FROM since)
    UNION ALL
    -- A key that replaced another is told as that.
    SELECT 'key_active', 'key:' || k.id, s.customer_id
    FROM vpn_keys k JOIN subscriptions s ON s.id = k.subscription_id LEFT JOIN reissues r ON r.key_id = k.id
    WHERE r.id IS NULL AND k.activated_at > (SELECT at FROM since)
    UNION ALL
    -- Of several that end together the last one is the key that replaced.
    (SELECT DISTINCT ON (r.subscription_id, r.finished_at) 'key_reissued', 'key:' || r.key_id, s.customer_id
     FROM reissues r JOIN subscriptions s ON s.id = r.subscription_id
     WHERE r.result = 'replaced' AND r.finished_at > (SELECT at FROM since)
     ORDER BY r.subscription_id, r.finished_at, r.key_id DESC)
), messages AS (
    SELECT kind, subject, coalesce(customer_id, 0) AS customer, created_at FROM outbox WHERE created_at > (SELECT at FROM since)
), about_ends AS (
    SELECT kind, subject, customer, left(parts[2], 18)::bigint AS subscription_id,
           to_timestamp(left(parts[3], 11)::bigint - 1) AS least, to_timestamp(left(parts[3], 11)::bigint + 1) AS most  -- told in whole seconds
    FROM (SELECT kind, subject, customer,
                 CASE WHEN subject ~ '^subscription:[0-9]+:[0-9]+$' THEN string_to_array(subject, ':') END AS parts
          FROM messages WHERE kind IN ('access_expired', 'renewal_lacks_funds') OR kind LIKE 'reminder\_%'
          OFFSET 0) AS told  -- apart, so that each subject is taken apart once
)
SELECT coalesce(f.subject, m.subject) AS subject,
       CASE WHEN m.kind IS NULL THEN format('no %s message for the fact', f.kind) ELSE format('a %s message without its fact', m.kind) END AS problem
FROM facts f
FULL JOIN (SELECT * FROM messages
           WHERE kind IN ('purchase', 'access_granted', 'renewal_succeeded', 'balance_credited', 'balance_adjusted',
                          'compensation_credited', 'referral_reward', 'refund_paid', 'withdrawal_requested',
                          'withdrawal_approved', 'withdrawal_rejected', 'case_opened', 'key_active', 'key_reissued')) AS m
    ON m.kind = f.kind AND m.subject = f.subject AND m.customer = f.customer
WHERE f.kind IS NULL OR m.kind IS NULL
UNION ALL
-- What is told of an end is told of one that an event set, or, in a trial, of its beginning.
SELECT m.subject, format('a %s message about no end of the customer''s', m.kind)
FROM about_ends m
WHERE NOT EXISTS (SELECT FROM entitlement_events e JOIN subscriptions s ON s.id = e.subscription_id
                  WHERE e.subscription_id = m.subscription_id AND s.customer_id = m.customer
                    AND (e.new_end BETWEEN m.least AND m.most OR e.created_at BETWEEN m.least AND m.most))
UNION ALL
SELECT 'subscription:' || s.id, format('ended %s, and no access_expired message says so', s.expires_at)
FROM subscriptions s
WHERE s.state = 'expired' AND s.expires_at > (SELECT at FROM since)
  AND NOT EXISTS (SELECT FROM about_ends m WHERE m.kind = 'access_expired' AND m.subscription_id = s.id
                  AND s.expires_at BETWEEN m.least AND m.most)
UNION ALL
SELECT 'subscription:' || r.subscription_id, format('lacks the money to be renewed %s, and no message says so', r.period_start)
FROM renewal_schedule r
WHERE r.tries > 0 AND r.period_start > (SELECT at FROM since) + interval '1 day'  -- it is told up to 6 hours before
  AND NOT EXISTS (SELECT FROM about_ends m WHERE m.kind = 'renewal_lacks_funds' AND m.subscription_id = r.subscription_id
                  AND r.period_start BETWEEN m.least AND m.most);
COMMENT ON VIEW money_i11_messages_follow_facts IS 'at rest';

-- ---- nothing waits for ever -----------------------------------------------------------------------------------------

CREATE OR REPLACE VIEW money_i12_nothing_past_its_deadline AS
SELECT 'key:' || id AS subject, format('%s since %s', activation_status, pending_since) AS problem
FROM vpn_keys WHERE activation_status IN ('pending', 'removing') AND pending_since < atlas_now() - interval '30 minutes'
UNION ALL
SELECT 'subscription:' || id, format('still active, ended %s', expires_at)
FROM subscriptions WHERE state = 'active' AND expires_at < atlas_now() - interval '10 minutes'
UNION ALL
SELECT 'order:' || id, format('still pending, ended %s', expires_at)
FROM orders WHERE state = 'pending' AND expires_at < atlas_now() - interval '1 hour'
UNION ALL
SELECT 'message:' || id, format('undelivered since %s', created_at)
FROM outbox WHERE state = 'pending' AND created_at < atlas_now() - interval '1 hour'
UNION ALL
SELECT 'subscription:' || s.id, format('still called %s, which ran out %s', s.tariff, t.ends_at)
FROM subscriptions s JOIN tariff_terms t ON t.subscription_id = s.id AND t.tariff = s.tariff
WHERE s.state = 'active' AND s.expires_at > atlas_now() AND t.ends_at < atlas_now() - interval '1 hour'
UNION ALL
SELECT 'reissue:' || r.id, format('asked for %s, its key is %s and has replaced nothing', r.requested_at, k.activation_status)
FROM reissues r JOIN vpn_keys k ON k.id = r.key_id
WHERE r.finished_at IS NULL AND k.wanted = 'present'
  AND greatest(r.requested_at, k.pending_since) < atlas_now() - interval '30 minutes'
UNION ALL
-- Three days it is watched; an hour is the longest between two looks.
SELECT 'invoice:' || id, format('still %s, made %s', state, created_at)
FROM invoices WHERE state IN ('creating', 'open') AND created_at < atlas_now() - interval '76 hours'
UNION ALL
SELECT 'invoice:' || id, format('its provider should have been asked %s, claimed by %s', next_attempt_at, coalesce(claimed_by, 'nobody'))
FROM invoices WHERE state = 'open' AND watched AND next_attempt_at < atlas_now() - interval '1 hour';
COMMENT ON VIEW money_i12_nothing_past_its_deadline IS 'at rest';
COMMENT ON VIEW money_i10_nodes_have_the_active IS 'at rest';
