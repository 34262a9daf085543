-- What customers bring from another system: balances by purse, access with the key that they have, and used trials.

ALTER TABLE accounts DROP CONSTRAINT accounts_kind_check;
ALTER TABLE accounts ADD CONSTRAINT accounts_kind_check CHECK (
    kind IN ('customer', 'paid', 'credit', 'earned', 'debt', 'world', 'revenue', 'referral_expense', 'compensation_expense',
             'withdrawal_reserve', 'suspense', 'adjustment', 'opening'));
INSERT INTO accounts (kind, currency) VALUES ('opening', 'RUB');

ALTER TABLE journals DROP CONSTRAINT journals_kind_check;
ALTER TABLE journals ADD CONSTRAINT journals_kind_check CHECK (
    kind IN ('purchase', 'balance_purchase', 'auto_renewal', 'topup', 'payment_credit', 'suspense', 'case_credit',
             'referral_reward', 'referral_clawback', 'refund', 'withdrawal_reserve', 'withdrawal_paid',
             'withdrawal_release', 'compensation', 'admin_adjust', 'purse_split', 'opening'));

-- Once a customer, before anything else is booked for them.
CREATE TABLE openings (
    customer_id     bigint PRIMARY KEY REFERENCES customers (id),
    idempotency_key text NOT NULL UNIQUE CHECK (idempotency_key <> ''),
    currency        text NOT NULL REFERENCES assets (code),
    paid            bigint NOT NULL CHECK (paid >= 0),
    credit          bigint NOT NULL CHECK (credit >= 0),
    earned          bigint NOT NULL CHECK (earned >= 0),  -- can be withdrawn at once: no hold is known of it
    debt            bigint NOT NULL CHECK (debt <= 0),
    rewarded_paid   bigint NOT NULL CHECK (rewarded_paid BETWEEN 0 AND paid),  -- of paid: rewarded there when it came in
    spent_paid      bigint NOT NULL CHECK (spent_paid >= 0),  -- outside money that bought access there and did not go back
    paid_since      timestamptz,                              -- when it did so first
    journal_id      bigint UNIQUE REFERENCES journals (id),   -- NULL: every purse was empty
    actor           text NOT NULL CHECK (actor <> ''),
    opened_at       timestamptz NOT NULL DEFAULT atlas_now(),
    CONSTRAINT a_paying_friend_has_paid CHECK ((spent_paid > 0) = (paid_since IS NOT NULL)),
    CONSTRAINT an_opening_of_nothing_has_no_journal
        CHECK ((journal_id IS NULL) = (paid = 0 AND credit = 0 AND earned = 0 AND debt = 0)),
    CONSTRAINT an_opening_says_something CHECK (journal_id IS NOT NULL OR spent_paid > 0)
);
CREATE TRIGGER openings_are_final BEFORE UPDATE OR DELETE ON openings
    FOR EACH ROW EXECUTE FUNCTION refuse_change('what a customer brought along is a fact; correct it in the ledger');
CREATE TRIGGER openings_stay BEFORE TRUNCATE ON openings
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('what a customer brought along is a fact; correct it in the ledger');

-- The access that a customer had there: until when, of which plan, with which key (a digest: the key itself is a secret).
CREATE TABLE opening_grants (
    event_id        bigint PRIMARY KEY REFERENCES entitlement_events (id),
    customer_id     bigint NOT NULL UNIQUE REFERENCES customers (id),
    idempotency_key text NOT NULL UNIQUE CHECK (idempotency_key <> ''),
    tariff          text NOT NULL REFERENCES tariffs (code),
    source          text NOT NULL CHECK (source IN ('payment', 'balance', 'trial', 'admin', 'auto_renewal')),
    ends_at         timestamptz NOT NULL,
    uuid_digest     text NOT NULL CHECK (uuid_digest ~ '^[0-9a-f]{64}$'),
    plan_days       smallint CHECK (plan_days > 0),      -- what a renewal buys again; NULL: nothing is known
    price_amount    bigint CHECK (price_amount >= 0),    -- what it cost there, in kopecks
    auto_renew      boolean NOT NULL,
    actor           text NOT NULL CHECK (actor <> ''),
    opened_at       timestamptz NOT NULL DEFAULT atlas_now(),
    CONSTRAINT access_that_was_brought_is_not_over CHECK (ends_at > opened_at),
    CONSTRAINT a_plan_has_a_price CHECK (num_nulls(plan_days, price_amount) IN (0, 2)),
    CONSTRAINT only_a_plan_is_renewed CHECK (NOT auto_renew OR plan_days IS NOT NULL)
);
CREATE TRIGGER opening_grants_are_final BEFORE UPDATE OR DELETE ON opening_grants
    FOR EACH ROW EXECUTE FUNCTION refuse_change('what a customer brought along is a fact');
CREATE TRIGGER opening_grants_stay BEFORE TRUNCATE ON opening_grants
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('what a customer brought along is a fact');

-- A trial that was used up elsewhere granted nothing here.
ALTER TABLE trials ALTER COLUMN event_id DROP NOT NULL;

-- Reminders follow the event with which the access began.
CREATE OR REPLACE FUNCTION schedule_reminders(subject bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    found subscriptions%ROWTYPE;
    last  entitlement_events%ROWTYPE;
    rules text;
    began timestamptz;
BEGIN
    SELECT * INTO found FROM subscriptions WHERE id = subject;
    -- The trial keeps its beginning when an operator prolongs it; anything else begins with its last event.
    SELECT * INTO last FROM entitlement_events
    WHERE subscription_id = subject AND kind IN ('grant', 'opening') AND (found.source <> 'trial' OR source = 'trial')
    ORDER BY position DESC LIMIT 1;
    rules := CASE WHEN found.source = 'trial' THEN 'trial'
                  WHEN found.source = 'admin' AND last.period <= interval '1 day' THEN 'grant_day'
                  WHEN found.source = 'admin' AND last.period <= interval '7 days' THEN 'grant_week'
                  ELSE 'paid' END;
    -- A trial that was brought along began as long ago as its end says.
    began := CASE WHEN last.kind = 'opening' AND rules = 'trial' THEN last.new_end - interval '72 hours' ELSE last.created_at END;
    INSERT INTO reminder_schedule AS r (subscription_id, plan, began_at, ends_at, due_at)
    SELECT subject, rules, began, found.expires_at, min(times.at)
    FROM reminder_times(rules, began, found.expires_at) AS times
    WHERE times.at > atlas_now() AND found.expires_at > atlas_now() AND found.state <> 'revoked'
    ON CONFLICT (subscription_id) DO UPDATE
        SET plan = excluded.plan, began_at = excluded.began_at, ends_at = excluded.ends_at, due_at = excluded.due_at;
END
$$;

-- ---- the invariants, with openings --------------------------------------------------------------------------------------

CREATE OR REPLACE VIEW money_i07_rewards_follow_purchases AS
WITH leg AS (
    SELECT p.journal_id, j.kind AS journal_kind, a.kind, a.customer_id, sum(p.amount) AS amount
    FROM journals j JOIN postings p ON p.journal_id = j.id JOIN accounts a ON a.id = p.account_id
    WHERE j.kind IN ('balance_purchase', 'auto_renewal', 'topup', 'payment_credit', 'case_credit', 'referral_reward',
                     'referral_clawback')
    GROUP BY p.journal_id, j.kind, a.kind, a.customer_id
), friends AS (
    SELECT referrer_id, count(*) AS n FROM customers WHERE referrer_id IS NOT NULL GROUP BY referrer_id
), given AS (
    SELECT journal_id, customer_id, sum(amount) AS amount, bool_or(kind = 'customer') AS is_old
    FROM leg WHERE journal_kind = 'referral_reward' AND customer_id IS NOT NULL GROUP BY journal_id, customer_id
), spent AS (
    SELECT j.id, j.customer_id, j.money_in_id, -leg.amount AS outside,
           sum(-leg.amount) OVER (PARTITION BY j.customer_id ORDER BY j.id) AS sum_of_outside
    FROM leg JOIN journals j ON j.id = leg.journal_id
    WHERE leg.journal_kind IN ('balance_purchase', 'auto_renewal') AND leg.kind = 'paid'
), rewarded_before AS (
    SELECT customer_id, sum(rewarded_paid) AS rewarded_paid, max(last_journal) AS last_journal
    FROM (SELECT customer_id, rewarded_paid, last_journal FROM purse_openings
          UNION ALL SELECT customer_id, rewarded_paid, 0 FROM openings) AS each
    WHERE rewarded_paid > 0 GROUP BY customer_id
), brought AS (
    -- What was rewarded when it came in, less what of it went back since.
    SELECT spent.id, greatest(0, o.rewarded_paid - coalesce(sum(f.amount), 0)) AS rewarded
    FROM spent JOIN rewarded_before o ON o.customer_id = spent.customer_id
    LEFT JOIN (refunds f JOIN journals back ON back.id = f.journal_id
               JOIN referral_rewards was ON was.money_in_id = f.money_in_id AND was.spending_journal_id IS NULL
               JOIN journals came ON came.money_in_id = f.money_in_id AND came.kind IN ('topup', 'payment_credit', 'case_credit'))
        ON back.customer_id = spent.customer_id AND f.journal_id > o.last_journal AND f.journal_id < spent.id
    GROUP BY spent.id, o.rewarded_paid
), bought AS (
    SELECT j.id, j.customer_id, j.money_in_id, m.booked_amount::numeric AS base
    FROM journals j JOIN money_in m ON m.id = j.money_in_id WHERE j.kind = 'purchase'
    UNION ALL
    SELECT spent.id, spent.customer_id, spent.money_in_id,
           greatest(0, sum_of_outside - coalesce(brought.rewarded, 0))
           - greatest(0, sum_of_outside - outside - coalesce(brought.rewarded, 0))
    FROM spent LEFT JOIN brought ON brought.id = spent.id
), credited AS (
    SELECT m.id AS money_in_id, m.booked_amount, leg.customer_id
    FROM leg JOIN journals j ON j.id = leg.journal_id JOIN money_in m ON m.id = j.money_in_id
    WHERE leg.journal_kind IN ('topup', 'payment_credit', 'case_credit') AND leg.kind = 'customer'
), back AS (
    SELECT reward_id, sum(amount) AS amount FROM reward_takebacks GROUP BY reward_id
)
SELECT 'reward:' || r.id AS subject,
       format('reward of %s (%s %% of %s for %s friends) for journal %s, which brought %s to be rewarded; buyer %s, referrer %s',
              r.amount, r.percent, r.base, r.friends, r.spending_journal_id, bought.base, r.buyer_id, r.referrer_id) AS problem
FROM referral_rewards r
JOIN customers buyer ON buyer.id = r.buyer_id
LEFT JOIN bought ON bought.id = r.spending_journal_id
LEFT JOIN friends ON friends.referrer_id = r.referrer_id
LEFT JOIN given ON given.journal_id = r.journal_id
WHERE r.spending_journal_id IS NOT NULL
  AND (bought.customer_id IS DISTINCT FROM r.buyer_id OR bought.money_in_id IS DISTINCT FROM r.money_in_id
       OR bought.base IS DISTINCT FROM r.base::numeric
       OR buyer.referrer_id IS DISTINCT FROM r.referrer_id OR r.buyer_id = r.referrer_id
       OR r.percent <> referral_percent(r.friends) OR r.friends > coalesce(friends.n, 0)
       OR r.amount <> r.base * r.percent / 100
       OR (given.customer_id, given.amount) IS DISTINCT FROM (r.referrer_id, r.amount::numeric))
UNION ALL
SELECT 'reward:' || r.id,
       format('reward of %s (%s %% for %s friends) for money_in %s, buyer %s, referrer %s, given %s', r.amount, r.percent, r.friends,
              r.money_in_id, r.buyer_id, r.referrer_id, CASE WHEN given.is_old THEN 'then' ELSE 'since rewards follow purchases' END)
FROM referral_rewards r
JOIN money_in m ON m.id = r.money_in_id
JOIN customers buyer ON buyer.id = r.buyer_id
LEFT JOIN friends ON friends.referrer_id = r.referrer_id
LEFT JOIN given ON given.journal_id = r.journal_id
WHERE r.spending_journal_id IS NULL
  AND (coalesce(m.customer_id, (SELECT j.customer_id FROM journals j WHERE j.money_in_id = m.id AND j.kind = 'case_credit'))
           IS DISTINCT FROM r.buyer_id
       OR buyer.referrer_id IS DISTINCT FROM r.referrer_id OR r.buyer_id = r.referrer_id
       OR r.percent <> referral_percent(r.friends) OR r.friends > coalesce(friends.n, 0)
       OR r.amount <> m.booked_amount * r.percent / 100
       OR given.is_old IS NOT TRUE
       OR (given.customer_id, given.amount) IS DISTINCT FROM (r.referrer_id, r.amount::numeric))
UNION ALL
-- Ten kopecks are the least of which the least share is one.
SELECT 'journal:' || bought.id, format('customer %s bought for %s from outside, and the referrer %s got no reward',
                                       bought.customer_id, bought.base, c.referrer_id)
FROM bought JOIN customers c ON c.id = bought.customer_id
WHERE c.referrer_id IS NOT NULL AND bought.base >= 10
  AND NOT EXISTS (SELECT FROM referral_rewards r WHERE r.spending_journal_id = bought.id)
  AND NOT EXISTS (SELECT FROM referral_rewards r WHERE r.spending_journal_id IS NULL AND r.money_in_id = bought.money_in_id)
UNION ALL
SELECT 'money_in:' || credited.money_in_id, format('customer %s brought in %s, and the referrer %s got no reward',
                                                   credited.customer_id, credited.booked_amount, c.referrer_id)
FROM credited JOIN customers c ON c.id = credited.customer_id
WHERE c.referrer_id IS NOT NULL AND credited.booked_amount >= 10
  AND NOT EXISTS (SELECT FROM referral_rewards r WHERE r.money_in_id = credited.money_in_id)
UNION ALL
SELECT 'journal:' || j.id, 'a reward journal without its reward'
FROM journals j WHERE j.kind = 'referral_reward' AND NOT EXISTS (SELECT FROM referral_rewards r WHERE r.journal_id = j.id)
UNION ALL
SELECT 'money_in:' || money_in_id, format('%s rewards', count(*)) FROM referral_rewards WHERE money_in_id IS NOT NULL
GROUP BY money_in_id HAVING count(*) > 1
UNION ALL
SELECT 'reward:' || r.id, format('reward of %s, %s of it taken back', r.amount, back.amount)
FROM referral_rewards r JOIN back ON back.reward_id = r.id
WHERE back.amount > r.amount
UNION ALL
SELECT 'journal:' || leg.journal_id, format('took back %s, written down are %s', leg.amount, coalesce(t.amount, 0))
FROM leg LEFT JOIN (SELECT journal_id, sum(amount) AS amount FROM reward_takebacks GROUP BY journal_id) AS t
    ON t.journal_id = leg.journal_id
WHERE leg.journal_kind = 'referral_clawback' AND leg.kind = 'referral_expense' AND leg.amount IS DISTINCT FROM t.amount
UNION ALL
SELECT 'journal:' || j.id, 'a reward was taken back without a refund'
FROM journals j
WHERE j.kind = 'referral_clawback'
  AND NOT EXISTS (SELECT FROM refunds f WHERE f.clawback_journal_id = j.id AND f.money_in_id = j.money_in_id);

CREATE OR REPLACE VIEW money_i14_purses_follow_rules AS
WITH allowed (journal, purse, direction) AS (
    VALUES ('topup', 'paid', 1), ('payment_credit', 'paid', 1), ('case_credit', 'paid', 1), ('case_credit', 'credit', 1),
           ('compensation', 'credit', 1), ('admin_adjust', 'credit', 1), ('admin_adjust', 'credit', -1),
           ('admin_adjust', 'earned', -1), ('referral_reward', 'debt', 1), ('referral_reward', 'earned', 1),
           ('referral_clawback', 'earned', -1), ('referral_clawback', 'debt', -1), ('withdrawal_reserve', 'earned', -1),
           ('withdrawal_release', 'earned', 1), ('withdrawal_release', 'paid', 1), ('withdrawal_release', 'credit', 1),
           ('refund', 'paid', -1), ('refund', 'credit', -1), ('refund', 'debt', -1),
           ('balance_purchase', 'paid', -1), ('balance_purchase', 'credit', -1),
           ('balance_purchase', 'earned', -1), ('auto_renewal', 'paid', -1), ('auto_renewal', 'credit', -1),
           ('auto_renewal', 'earned', -1), ('purse_split', 'paid', 1), ('purse_split', 'credit', 1),
           ('purse_split', 'earned', 1), ('purse_split', 'debt', -1), ('opening', 'paid', 1), ('opening', 'credit', 1),
           ('opening', 'earned', 1), ('opening', 'debt', -1)
), purse AS (
    SELECT p.journal_id, j.kind AS journal, j.customer_id AS journal_customer, a.kind AS purse, a.customer_id, p.amount
    FROM postings p JOIN accounts a ON a.id = p.account_id JOIN journals j ON j.id = p.journal_id
    WHERE a.kind IN ('paid', 'credit', 'earned', 'debt')
), part AS (
    SELECT journal_id, journal, sum(amount) FILTER (WHERE purse = 'paid') AS paid,
           sum(amount) FILTER (WHERE purse = 'credit') AS credit, sum(amount) FILTER (WHERE purse = 'earned') AS earned,
           sum(amount) FILTER (WHERE purse = 'debt') AS debt
    FROM purse WHERE journal IN ('case_credit', 'withdrawal_release', 'purse_split', 'opening') GROUP BY journal_id, journal
)
SELECT 'journal:' || purse.journal_id AS subject,
       format('a %s moves %s by %s', purse.journal, purse.purse, purse.amount) AS problem
FROM purse LEFT JOIN allowed USING (journal, purse)
GROUP BY purse.journal_id, purse.journal, purse.purse, purse.amount
HAVING bool_and(allowed.direction IS NULL OR sign(purse.amount) <> allowed.direction)
UNION ALL
SELECT 'journal:' || journal_id, format('a %s of customer %s moves %s of customer %s', journal, journal_customer, purse, customer_id)
FROM purse WHERE journal_customer <> customer_id
UNION ALL
-- What a provider captured is outside money; a value that an operator put on it is a credit.
SELECT 'journal:' || part.journal_id, format('a case was credited %s to paid and %s to credit from %s', coalesce(part.paid, 0),
                                             coalesce(part.credit, 0), a.kind)
FROM part JOIN postings p ON p.journal_id = part.journal_id JOIN accounts a ON a.id = p.account_id
WHERE part.journal = 'case_credit' AND a.customer_id IS NULL
  AND (part.paid IS NOT NULL) <> (a.kind = 'suspense')
UNION ALL
SELECT 'withdrawal:' || w.id, format('gave back %s to paid and %s to credit, it took %s and %s', coalesce(part.paid, 0),
                                     coalesce(part.credit, 0), w.from_paid, w.from_credit)
FROM withdrawals w JOIN part ON part.journal_id = w.settle_journal_id
WHERE (coalesce(part.paid, 0), coalesce(part.credit, 0)) <> (w.from_paid::numeric, w.from_credit::numeric)
UNION ALL
SELECT 'customer:' || o.customer_id, format('brought %s, %s, %s and %s; the journal says %s, %s, %s and %s', o.paid, o.credit, o.earned,
                                            o.debt, part.paid, part.credit, part.earned, part.debt)
FROM purse_openings o LEFT JOIN part ON part.journal_id = o.journal_id
WHERE (o.paid, o.credit, o.earned, o.debt) IS DISTINCT FROM
      (coalesce(part.paid, 0)::bigint, coalesce(part.credit, 0)::bigint, coalesce(part.earned, 0)::bigint, coalesce(part.debt, 0)::bigint)
UNION ALL
SELECT 'journal:' || j.id, 'purses were filled that no customer brought along'
FROM journals j WHERE j.kind = 'purse_split' AND NOT EXISTS (SELECT FROM purse_openings o WHERE o.journal_id = j.id)
UNION ALL
SELECT 'account:' || a.id, format('still holds %s, although purses have replaced it', a.balance)
FROM accounts a
WHERE a.kind = 'customer' AND a.balance <> 0
  AND EXISTS (SELECT FROM moving_over WHERE step = 'purses' AND done_at IS NOT NULL)
UNION ALL
-- What came from another system stands against `opening`, and never against the outside world.
SELECT 'customer:' || o.customer_id, format('opened with %s, %s, %s and %s; the journal says %s, %s, %s and %s', o.paid, o.credit,
                                            o.earned, o.debt, part.paid, part.credit, part.earned, part.debt)
FROM openings o LEFT JOIN part ON part.journal_id = o.journal_id
WHERE (o.paid, o.credit, o.earned, o.debt) IS DISTINCT FROM
      (coalesce(part.paid, 0)::bigint, coalesce(part.credit, 0)::bigint, coalesce(part.earned, 0)::bigint, coalesce(part.debt, 0)::bigint)
UNION ALL
SELECT 'journal:' || j.id, 'purses were opened that no customer brought from another system'
FROM journals j WHERE j.kind = 'opening' AND NOT EXISTS (SELECT FROM openings o WHERE o.journal_id = j.id)
UNION ALL
SELECT 'journal:' || j.id, format('a %s moves %s by %s', j.kind, a.kind, p.amount)
FROM accounts a JOIN postings p ON p.account_id = a.id JOIN journals j ON j.id = p.journal_id
WHERE a.customer_id IS NULL AND (j.kind = 'opening') <> (a.kind = 'opening');
