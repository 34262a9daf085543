-- Operations on money: refunds, withdrawals, adjustments, compensation, settled cases, reserved promo codes.

ALTER TABLE journals DROP CONSTRAINT journals_kind_check;
ALTER TABLE journals ADD CONSTRAINT journals_kind_check CHECK (
    kind IN ('purchase', 'balance_purchase', 'auto_renewal', 'topup', 'payment_credit', 'suspense', 'case_credit',
             'referral_reward', 'referral_clawback', 'refund', 'withdrawal_reserve', 'withdrawal_paid',
             'withdrawal_release', 'compensation', 'admin_adjust'));

-- ---- refunds: what left for outside, and what it took along --------------------------------------------------------

ALTER TABLE refunds
    ADD COLUMN actor               text NOT NULL CHECK (actor <> ''),
    ADD COLUMN written_off         bigint NOT NULL DEFAULT 0,  -- what the balance did not cover: our loss
    ADD COLUMN event_id            bigint UNIQUE REFERENCES entitlement_events (id),  -- the access it took back
    ADD COLUMN clawback_journal_id bigint UNIQUE REFERENCES journals (id),            -- the reward it took back
    ADD CONSTRAINT written_off_within_amount CHECK (written_off BETWEEN 0 AND amount);

-- Time that a refund takes back is written down, so that the end can be rebuilt from the events alone.
ALTER TABLE entitlement_events DROP CONSTRAINT a_grant_adds_time;
ALTER TABLE entitlement_events ADD CONSTRAINT a_grant_adds_time CHECK (
    (kind <> 'grant' OR period IS NOT NULL) AND (kind IN ('grant', 'refund') OR period IS NULL));

-- ---- withdrawals: one way out of the reserve -----------------------------------------------------------------------

ALTER TABLE withdrawals
    ADD COLUMN settled_by text,
    ADD COLUMN reference  text,  -- what the payment out is called where it was made
    ADD COLUMN reason     text,  -- why it was rejected
    ADD CONSTRAINT a_settled_withdrawal_says_how CHECK (
        (state = 'reserved') = (settled_by IS NULL) AND (state = 'paid') = (reference IS NOT NULL)
        AND (state = 'rejected') = (reason IS NOT NULL));
CREATE TRIGGER withdrawals_settle_once BEFORE UPDATE ON withdrawals FOR EACH ROW
    WHEN (OLD.state <> 'reserved'
          OR (OLD.id, OLD.customer_id, OLD.idempotency_key, OLD.amount, OLD.currency, OLD.requisites, OLD.reserve_journal_id)
             IS DISTINCT FROM
             (NEW.id, NEW.customer_id, NEW.idempotency_key, NEW.amount, NEW.currency, NEW.requisites, NEW.reserve_journal_id))
    EXECUTE FUNCTION refuse_change('a withdrawal leaves the reserve once, by payment or by release');
CREATE TRIGGER withdrawals_are_kept BEFORE DELETE ON withdrawals
    FOR EACH ROW EXECUTE FUNCTION refuse_change('withdrawals are kept');
CREATE TRIGGER withdrawals_stay BEFORE TRUNCATE ON withdrawals
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('withdrawals are kept');

-- ---- cases: visible until a human has settled them, and kept -------------------------------------------------------

ALTER TABLE cases ADD COLUMN closed_by text;
CREATE TRIGGER closed_cases_are_final BEFORE UPDATE ON cases FOR EACH ROW
    WHEN (OLD.state = 'closed' AND OLD IS DISTINCT FROM NEW)
    EXECUTE FUNCTION refuse_change('a closed case is final; open another one');
CREATE TRIGGER cases_are_kept BEFORE DELETE ON cases
    FOR EACH ROW EXECUTE FUNCTION refuse_change('cases are kept');
CREATE TRIGGER cases_stay BEFORE TRUNCATE ON cases
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('cases are kept');

-- ---- promo codes and plans -----------------------------------------------------------------------------------------

-- Reservations: orders that are still payable and name a code.
CREATE INDEX orders_promo_reserved ON orders (promo_code_id, customer_id) WHERE state = 'pending' AND promo_code_id IS NOT NULL;

-- What runs now and what was bought last differ after an upgrade has run out: a renewal buys the plan bought last.
ALTER TABLE subscriptions ADD COLUMN plan_tariff text REFERENCES tariffs (code);
UPDATE subscriptions s
SET plan_tariff = coalesce((SELECT e.tariff FROM entitlement_events e
                            WHERE e.subscription_id = s.id AND e.kind = 'grant' AND e.source IN ('payment', 'balance', 'auto_renewal')
                            ORDER BY e.position DESC LIMIT 1), s.tariff)
WHERE period_days IS NOT NULL;
ALTER TABLE subscriptions DROP CONSTRAINT a_price_basis_is_whole;
ALTER TABLE subscriptions ADD CONSTRAINT a_price_basis_is_whole
    CHECK (num_nulls(plan_tariff, period_days, price_amount, price_currency) IN (0, 4));
CREATE INDEX tariff_terms_ends ON tariff_terms (ends_at);

-- ---- the invariants, with what is new ------------------------------------------------------------------------------

CREATE OR REPLACE VIEW money_rule1_every_charge_ends_once AS
SELECT 'money_in:' || m.id AS subject,
       format('%s entitlements, %s credits, %s cases; exactly one of them is due', e.n, j.n, c.n) AS problem
FROM money_in m
CROSS JOIN LATERAL (SELECT count(*) AS n FROM entitlement_events WHERE money_in_id = m.id) AS e
CROSS JOIN LATERAL (SELECT count(*) AS n FROM journals WHERE money_in_id = m.id AND kind IN ('topup', 'payment_credit')) AS j
CROSS JOIN LATERAL (SELECT count(*) AS n FROM cases WHERE money_in_id = m.id) AS c
WHERE e.n + j.n + c.n <> 1
UNION ALL
-- A case that holds money is settled by moving all of it, never more.
SELECT 'case:' || c.id, format('%s, %s of its money in suspense', c.state, held.amount)
FROM cases c
CROSS JOIN LATERAL (
    SELECT coalesce(sum(p.amount), 0) AS amount
    FROM journals j JOIN postings p ON p.journal_id = j.id JOIN accounts a ON a.id = p.account_id
    WHERE j.money_in_id = c.money_in_id AND a.kind = 'suspense') AS held
WHERE c.money_in_id IS NOT NULL AND (held.amount < 0 OR (c.state = 'closed' AND held.amount <> 0));

CREATE OR REPLACE VIEW money_i06_paid_orders_have_their_effect AS
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
            ELSE (0::bigint, 1::bigint, 0::bigint) END)
UNION ALL
SELECT 'order:' || o.id, 'paid with a promo code that was not counted, or counted without being paid'
FROM orders o LEFT JOIN promo_uses u ON u.order_id = o.id
WHERE (o.state = 'paid' AND o.promo_code_id IS NOT NULL) <> (u.order_id IS NOT NULL)
   OR u.promo_code_id <> o.promo_code_id OR u.customer_id <> o.customer_id
UNION ALL
SELECT 'promo_code:' || c.id, format('counts %s uses, %s are written down', c.uses, used.n)
FROM promo_codes c CROSS JOIN LATERAL (SELECT count(*) AS n FROM promo_uses WHERE promo_code_id = c.id) AS used
WHERE c.uses <> used.n;

CREATE OR REPLACE VIEW money_i07_rewards_follow_purchases AS
SELECT 'reward:' || r.id AS subject,
       format('reward of %s for money_in %s, buyer %s, referrer %s', r.amount, r.money_in_id, r.buyer_id, r.referrer_id) AS problem
FROM referral_rewards r
JOIN money_in m ON m.id = r.money_in_id
JOIN customers buyer ON buyer.id = r.buyer_id
WHERE coalesce(m.customer_id, (SELECT j.customer_id FROM journals j WHERE j.money_in_id = m.id AND j.kind = 'case_credit'))
      IS DISTINCT FROM r.buyer_id
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
GROUP BY buyer_id, money_in_id HAVING count(*) > 1
UNION ALL
SELECT 'reward:' || r.id, format('reward of %s, %s of it taken back', r.amount, back.amount)
FROM referral_rewards r
CROSS JOIN LATERAL (
    SELECT coalesce(sum(p.amount), 0) AS amount
    FROM journals j JOIN postings p ON p.journal_id = j.id JOIN accounts a ON a.id = p.account_id
    WHERE j.kind = 'referral_clawback' AND j.money_in_id = r.money_in_id AND a.kind = 'referral_expense') AS back
WHERE back.amount > r.amount
UNION ALL
SELECT 'journal:' || j.id, 'a reward was taken back without a refund'
FROM journals j
WHERE j.kind = 'referral_clawback'
  AND NOT EXISTS (SELECT FROM refunds f WHERE f.clawback_journal_id = j.id AND f.money_in_id = j.money_in_id);

CREATE OR REPLACE VIEW money_i08_refunds_within_captured AS
SELECT 'money_in:' || m.id AS subject, format('captured %s, refunded %s', m.booked_amount, sum(r.amount)) AS problem
FROM refunds r JOIN money_in m ON m.id = r.money_in_id
GROUP BY m.id HAVING sum(r.amount) > m.booked_amount OR bool_or(r.currency <> m.booked_currency)
UNION ALL
SELECT 'refund:' || r.id, format('refund of %s without a journal that moves it outside', r.amount)
FROM refunds r
WHERE NOT EXISTS (SELECT FROM journals j JOIN postings p ON p.journal_id = j.id JOIN accounts a ON a.id = p.account_id
                  WHERE j.id = r.journal_id AND j.kind = 'refund' AND j.money_in_id = r.money_in_id
                    AND a.kind = 'world' AND p.amount = r.amount)
UNION ALL
SELECT 'journal:' || j.id, 'a refund journal without its refund'
FROM journals j WHERE j.kind = 'refund' AND NOT EXISTS (SELECT FROM refunds r WHERE r.journal_id = j.id);

CREATE OR REPLACE VIEW money_i09_ends_follow_events AS
SELECT 'subscription:' || s.id AS subject, format('ends %s, the last event says %s', s.expires_at, last.new_end) AS problem
FROM subscriptions s
LEFT JOIN LATERAL (SELECT new_end FROM entitlement_events WHERE subscription_id = s.id ORDER BY position DESC LIMIT 1) AS last ON true
WHERE last.new_end IS DISTINCT FROM s.expires_at
UNION ALL
SELECT 'event:' || e.id, format('%s at position %s follows %s, moved %s by %s to %s', e.kind, e.position, e.before,
                                e.previous_end, coalesce(e.period::text, 'all that was left'), e.new_end)
FROM (SELECT *, lag(new_end) OVER chain AS before_end, coalesce(lag(position) OVER chain, 0) AS before
      FROM entitlement_events WINDOW chain AS (PARTITION BY subscription_id ORDER BY position)) AS e
WHERE e.position <> e.before + 1
   OR e.previous_end IS DISTINCT FROM e.before_end
   OR (e.kind = 'grant' AND e.new_end <> greatest(e.previous_end, e.created_at) + e.period)
   OR (e.kind = 'refund' AND e.period IS NOT NULL AND e.new_end <> e.previous_end - e.period)
   OR (e.kind IN ('revoke', 'compensation') AND e.new_end <> least(e.previous_end, e.created_at))
UNION ALL
SELECT 'subscription:' || s.id, format('ends %s, its tariffs end %s', s.expires_at, max(t.ends_at))
FROM subscriptions s LEFT JOIN tariff_terms t ON t.subscription_id = s.id
GROUP BY s.id HAVING max(t.ends_at) IS DISTINCT FROM s.expires_at;

CREATE OR REPLACE VIEW money_i11_messages_follow_facts AS
WITH facts AS (
    SELECT 'purchase' AS kind, 'order:' || order_id AS subject FROM entitlement_events
    WHERE order_id IS NOT NULL AND created_at > atlas_now() - interval '7 days'
    UNION ALL
    SELECT 'balance_credited', 'money_in:' || money_in_id FROM journals
    WHERE kind IN ('topup', 'payment_credit', 'case_credit') AND money_in_id IS NOT NULL
      AND created_at > atlas_now() - interval '7 days'
    UNION ALL
    SELECT 'referral_reward', 'reward:' || id FROM referral_rewards WHERE created_at > atlas_now() - interval '7 days'
    UNION ALL
    SELECT 'case_opened', 'case:' || id FROM cases WHERE opened_at > atlas_now() - interval '7 days'
    UNION ALL
    SELECT 'refund_paid', 'refund:' || r.id FROM refunds r JOIN journals j ON j.id = r.journal_id
    WHERE j.customer_id IS NOT NULL AND r.created_at > atlas_now() - interval '7 days'
    UNION ALL
    SELECT 'withdrawal_requested', 'withdrawal:' || id FROM withdrawals WHERE created_at > atlas_now() - interval '7 days'
    UNION ALL
    SELECT CASE state WHEN 'paid' THEN 'withdrawal_approved' ELSE 'withdrawal_rejected' END, 'withdrawal:' || id
    FROM withdrawals WHERE state <> 'reserved' AND settled_at > atlas_now() - interval '7 days'
    UNION ALL
    SELECT 'balance_adjusted', 'journal:' || id FROM journals
    WHERE kind = 'admin_adjust' AND idempotency_key LIKE 'adjust:%' AND created_at > atlas_now() - interval '7 days'
    UNION ALL
    SELECT 'compensation_credited', 'journal:' || id FROM journals
    WHERE kind = 'compensation' AND created_at > atlas_now() - interval '7 days'
), messages AS (
    SELECT kind, subject FROM outbox
    WHERE kind IN ('purchase', 'balance_credited', 'referral_reward', 'case_opened', 'refund_paid', 'withdrawal_requested',
                   'withdrawal_approved', 'withdrawal_rejected', 'balance_adjusted', 'compensation_credited')
      AND created_at > atlas_now() - interval '7 days'
)
SELECT coalesce(f.subject, m.subject) AS subject,
       CASE WHEN m.kind IS NULL THEN format('no %s message for the fact', f.kind) ELSE format('a %s message without its fact', m.kind) END AS problem
FROM facts f FULL JOIN messages m ON m.kind = f.kind AND m.subject = f.subject
WHERE f.kind IS NULL OR m.kind IS NULL;

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
WHERE s.state = 'active' AND s.expires_at > atlas_now() AND t.ends_at < atlas_now() - interval '1 hour';

CREATE OR REPLACE VIEW money_i13_world_equals_outside AS
SELECT 'currency:' || currency AS subject,
       format('captured %s, refunded %s, paid out %s, world postings %s', captured, refunded, withdrawn, world) AS problem
FROM assets
CROSS JOIN LATERAL (SELECT code AS currency) AS c
CROSS JOIN LATERAL (SELECT coalesce(sum(booked_amount), 0) AS captured FROM money_in WHERE booked_currency = code) AS m
CROSS JOIN LATERAL (SELECT coalesce(sum(amount), 0) AS refunded FROM refunds WHERE refunds.currency = code) AS r
CROSS JOIN LATERAL (SELECT coalesce(sum(amount), 0) AS withdrawn FROM withdrawals WHERE withdrawals.currency = code AND state = 'paid') AS w
CROSS JOIN LATERAL (SELECT coalesce(sum(p.amount), 0) AS world FROM postings p JOIN accounts a ON a.id = p.account_id
                    WHERE a.kind = 'world' AND a.currency = code) AS o
WHERE captured - refunded - withdrawn <> -world
UNION ALL
SELECT 'reserve:' || code, format('withdrawals that wait %s, in the reserve %s', waiting.amount, held.amount)
FROM assets
CROSS JOIN LATERAL (SELECT coalesce(sum(amount), 0) AS amount FROM withdrawals WHERE withdrawals.currency = code AND state = 'reserved') AS waiting
CROSS JOIN LATERAL (SELECT coalesce(sum(p.amount), 0) AS amount FROM postings p JOIN accounts a ON a.id = p.account_id
                    WHERE a.kind = 'withdrawal_reserve' AND a.currency = code) AS held
WHERE waiting.amount <> held.amount
UNION ALL
SELECT 'withdrawal:' || w.id, format('%s of %s, settled by a %s journal of %s', w.state, w.amount, j.kind, moved.amount)
FROM withdrawals w
JOIN journals j ON j.id = w.settle_journal_id
CROSS JOIN LATERAL (SELECT -coalesce(sum(p.amount), 0) AS amount FROM postings p JOIN accounts a ON a.id = p.account_id
                    WHERE p.journal_id = j.id AND a.kind = 'withdrawal_reserve') AS moved
WHERE moved.amount <> w.amount OR j.kind <> CASE w.state WHEN 'paid' THEN 'withdrawal_paid' ELSE 'withdrawal_release' END;
