-- The money invariants. Each view lists violations as (subject, problem) and must be empty: at every commit, or, where
-- its comment says `at rest`, once the workers have caught up after a fault.

CREATE VIEW money_rule1_every_charge_ends_once AS
SELECT 'money_in:' || m.id AS subject,
       format('%s entitlements, %s credits, %s cases; exactly one of them is due', e.n, j.n, c.n) AS problem
FROM money_in m
CROSS JOIN LATERAL (SELECT count(*) AS n FROM entitlement_events WHERE money_in_id = m.id) AS e
CROSS JOIN LATERAL (SELECT count(*) AS n FROM journals WHERE money_in_id = m.id AND kind IN ('topup', 'payment_credit')) AS j
CROSS JOIN LATERAL (SELECT count(*) AS n FROM cases WHERE money_in_id = m.id) AS c
WHERE e.n + j.n + c.n <> 1;

CREATE VIEW money_i01_postings_sum_to_zero AS
SELECT 'currency:' || currency AS subject, format('all postings sum to %s', sum(amount)) AS problem
FROM postings GROUP BY currency HAVING sum(amount) <> 0;

CREATE VIEW money_i02_journals_are_balanced AS
SELECT 'journal:' || id AS subject, format('%s postings, sums %s', sum(legs), string_agg(currency || ' ' || amount, ', ')) AS problem
FROM (SELECT j.id, p.currency, count(p.id) AS legs, coalesce(sum(p.amount), 0) AS amount
      FROM journals j LEFT JOIN postings p ON p.journal_id = j.id GROUP BY j.id, p.currency) AS side
GROUP BY id HAVING sum(legs) < 2 OR bool_or(amount <> 0);

CREATE VIEW money_i03_balances_equal_postings AS
SELECT 'account:' || a.id AS subject, format('balance %s, postings sum to %s', a.balance, p.amount) AS problem
FROM accounts a
CROSS JOIN LATERAL (SELECT coalesce(sum(amount), 0) AS amount FROM postings WHERE account_id = a.id) AS p
WHERE a.kind = 'customer' AND a.balance <> p.amount;

CREATE VIEW money_i04_no_balance_below_floor AS
SELECT 'account:' || id AS subject, format('balance %s is below the floor %s', balance, balance_floor) AS problem
FROM accounts WHERE balance < balance_floor;

CREATE VIEW money_i05_one_money_in_per_charge AS
SELECT 'provider:' || provider AS subject, format('%s rows for one charge, first %s', count(*), min(id)) AS problem
FROM money_in GROUP BY provider, charge_id HAVING count(*) > 1;

CREATE VIEW money_i06_paid_orders_have_their_effect AS
SELECT 'order:' || o.id AS subject,
       format('%s order, %s, paid from %s: %s purchase journals, %s credit journals, %s entitlement events',
              o.kind, o.state, coalesce(o.paid_from, 'nothing'), bought.n, credited.n, e.n) AS problem
FROM orders o
CROSS JOIN LATERAL (SELECT count(*) AS n FROM journals WHERE order_id = o.id
    AND kind = CASE o.paid_from WHEN 'balance' THEN 'balance_purchase' ELSE 'purchase' END) AS bought
CROSS JOIN LATERAL (SELECT count(*) AS n FROM journals WHERE order_id = o.id AND kind = 'topup') AS credited
CROSS JOIN LATERAL (SELECT count(*) AS n FROM entitlement_events WHERE order_id = o.id) AS e
WHERE (bought.n, credited.n, e.n) IS DISTINCT FROM
      (CASE WHEN o.state <> 'paid' THEN (0::bigint, 0::bigint, 0::bigint)
            WHEN o.kind = 'subscription' THEN (1::bigint, 0::bigint, 1::bigint)
            ELSE (0::bigint, 1::bigint, 0::bigint) END);

CREATE VIEW money_i07_rewards_follow_purchases AS
SELECT 'reward:' || r.id AS subject,
       format('reward of %s for money_in %s, buyer %s, referrer %s', r.amount, r.money_in_id, r.buyer_id, r.referrer_id) AS problem
FROM referral_rewards r
JOIN money_in m ON m.id = r.money_in_id
JOIN customers buyer ON buyer.id = r.buyer_id
WHERE m.customer_id IS DISTINCT FROM r.buyer_id
   OR buyer.referrer_id IS DISTINCT FROM r.referrer_id
   OR r.buyer_id = r.referrer_id
   OR r.amount <> m.booked_amount * r.percent / 100
   OR NOT EXISTS (SELECT FROM journals j JOIN postings p ON p.journal_id = j.id JOIN accounts a ON a.id = p.account_id
                  WHERE j.id = r.journal_id AND j.kind = 'referral_reward' AND j.money_in_id = r.money_in_id
                    AND a.customer_id = r.referrer_id AND p.amount = r.amount)
UNION ALL
SELECT 'journal:' || j.id, 'a reward journal without its reward'
FROM journals j WHERE j.kind = 'referral_reward' AND NOT EXISTS (SELECT FROM referral_rewards r WHERE r.journal_id = j.id)
UNION ALL
SELECT 'money_in:' || money_in_id, format('%s rewards', count(*)) FROM referral_rewards
GROUP BY buyer_id, money_in_id HAVING count(*) > 1;

CREATE VIEW money_i08_refunds_within_captured AS
SELECT 'money_in:' || m.id AS subject, format('captured %s, refunded %s', m.booked_amount, sum(r.amount)) AS problem
FROM refunds r JOIN money_in m ON m.id = r.money_in_id
GROUP BY m.id HAVING sum(r.amount) > m.booked_amount OR bool_or(r.currency <> m.booked_currency);

CREATE VIEW money_i09_ends_follow_events AS
SELECT 'subscription:' || s.id AS subject, format('ends %s, the last event says %s', s.expires_at, last.new_end) AS problem
FROM subscriptions s
LEFT JOIN LATERAL (SELECT new_end FROM entitlement_events WHERE subscription_id = s.id ORDER BY position DESC LIMIT 1) AS last ON true
WHERE last.new_end IS DISTINCT FROM s.expires_at
UNION ALL
SELECT 'event:' || e.id, format('position %s follows %s, moved %s + %s to %s', e.position, e.before, e.previous_end, e.period, e.new_end)
FROM (SELECT *, lag(new_end) OVER chain AS before_end, coalesce(lag(position) OVER chain, 0) AS before
      FROM entitlement_events WINDOW chain AS (PARTITION BY subscription_id ORDER BY position)) AS e
WHERE e.position <> e.before + 1
   OR e.previous_end IS DISTINCT FROM e.before_end
   OR (e.kind = 'grant' AND e.new_end <> greatest(e.previous_end, e.created_at) + e.period)
UNION ALL
SELECT 'subscription:' || s.id, format('ends %s, its tariffs end %s', s.expires_at, max(t.ends_at))
FROM subscriptions s LEFT JOIN tariff_terms t ON t.subscription_id = s.id
GROUP BY s.id HAVING max(t.ends_at) IS DISTINCT FROM s.expires_at;

CREATE VIEW money_i10_nodes_have_the_active AS
SELECT 'key:' || k.id AS subject,
       format('wanted %s until %s, %s; %s has it %s until %s', k.wanted, s.expires_at, k.activation_status,
              coalesce(n.name, 'no node'), coalesce(p.applied, 'unknown'), p.applied_expires_at) AS problem
FROM vpn_keys k
JOIN subscriptions s ON s.id = k.subscription_id
LEFT JOIN key_placements p ON p.key_id = k.id
LEFT JOIN vpn_nodes n ON n.id = p.node_id
WHERE CASE WHEN k.wanted = 'present' AND s.state = 'active' AND s.expires_at > atlas_now()
           THEN k.activation_status <> 'failed'
                AND (p.applied, p.applied_expires_at) IS DISTINCT FROM ('present', s.expires_at)
           ELSE p.applied = 'present' AND (p.applied_expires_at IS NULL OR p.applied_expires_at > atlas_now()) END;

CREATE VIEW money_i11_messages_follow_facts AS
WITH facts AS (
    SELECT 'purchase' AS kind, 'order:' || order_id AS subject FROM entitlement_events
    WHERE order_id IS NOT NULL AND created_at > atlas_now() - interval '7 days'
    UNION ALL
    SELECT 'balance_credited', 'money_in:' || money_in_id FROM journals
    WHERE kind IN ('topup', 'payment_credit') AND money_in_id IS NOT NULL AND created_at > atlas_now() - interval '7 days'
    UNION ALL
    SELECT 'referral_reward', 'reward:' || id FROM referral_rewards WHERE created_at > atlas_now() - interval '7 days'
    UNION ALL
    SELECT 'case_opened', 'case:' || id FROM cases WHERE opened_at > atlas_now() - interval '7 days'
), messages AS (
    SELECT kind, subject FROM outbox
    WHERE kind IN ('purchase', 'balance_credited', 'referral_reward', 'case_opened') AND created_at > atlas_now() - interval '7 days'
)
SELECT coalesce(f.subject, m.subject) AS subject,
       CASE WHEN m.kind IS NULL THEN format('no %s message for the fact', f.kind) ELSE format('a %s message without its fact', m.kind) END AS problem
FROM facts f FULL JOIN messages m ON m.kind = f.kind AND m.subject = f.subject
WHERE f.kind IS NULL OR m.kind IS NULL;

CREATE VIEW money_i12_nothing_past_its_deadline AS
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
FROM outbox WHERE state = 'pending' AND created_at < atlas_now() - interval '1 hour';

CREATE VIEW money_i13_world_equals_outside AS
SELECT 'currency:' || currency AS subject,
       format('captured %s, refunded %s, paid out %s, world postings %s', captured, refunded, withdrawn, world) AS problem
FROM assets
CROSS JOIN LATERAL (SELECT code AS currency) AS c
CROSS JOIN LATERAL (SELECT coalesce(sum(booked_amount), 0) AS captured FROM money_in WHERE booked_currency = code) AS m
CROSS JOIN LATERAL (SELECT coalesce(sum(amount), 0) AS refunded FROM refunds WHERE refunds.currency = code) AS r
CROSS JOIN LATERAL (SELECT coalesce(sum(amount), 0) AS withdrawn FROM withdrawals WHERE withdrawals.currency = code AND state = 'paid') AS w
CROSS JOIN LATERAL (SELECT coalesce(sum(p.amount), 0) AS world FROM postings p JOIN accounts a ON a.id = p.account_id
                    WHERE a.kind = 'world' AND a.currency = code) AS o
WHERE captured - refunded - withdrawn <> -world;

COMMENT ON VIEW money_i10_nodes_have_the_active IS 'at rest';
COMMENT ON VIEW money_i11_messages_follow_facts IS 'at rest';
COMMENT ON VIEW money_i12_nothing_past_its_deadline IS 'at rest';
