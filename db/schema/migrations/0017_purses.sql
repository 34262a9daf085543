-- exclusive: released code posts to the one account of a customer, which purses replace here.

-- ---- who may work on this schema --------------------------------------------------------------------------------------

-- A file that begins with the word `exclusive` waits for the end of every instance, and stops programs that do not know it.
ALTER TABLE schema_migrations ADD COLUMN exclusive boolean NOT NULL DEFAULT false;

-- The schema that the writer of a row knows. It is checked and taken away again, so that each write has to say its own.
ALTER TABLE epochs ADD COLUMN schema_version integer;

CREATE FUNCTION refuse_older_program() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    oldest integer;
BEGIN
    SELECT max(version) INTO oldest FROM schema_migrations WHERE exclusive;
    IF NEW.held_until > atlas_now() AND coalesce(NEW.schema_version, 0) < oldest THEN
        RAISE EXCEPTION 'this program knows the schema up to % and may not work here: the database is at % and older programs would book wrongly; start the program that migrated it',
            coalesce(lpad(NEW.schema_version::text, 4, '0'), 'a version that it does not name'), lpad(oldest::text, 4, '0')
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    NEW.schema_version := NULL;
    RETURN NEW;
END
$$;
CREATE TRIGGER older_programs_are_refused BEFORE INSERT OR UPDATE ON epochs
    FOR EACH ROW EXECUTE FUNCTION refuse_older_program();

-- How far each move of existing rows has come (db/schema/moving_over.py). In a new database there is nothing to move.
CREATE TABLE moving_over (
    step    text PRIMARY KEY CHECK (step <> ''),
    last_id bigint NOT NULL DEFAULT 0,
    done_at timestamptz
);
INSERT INTO moving_over (step, done_at)
SELECT 'purses', CASE WHEN NOT EXISTS (SELECT FROM customers) THEN atlas_now() END;

-- ---- accounts ---------------------------------------------------------------------------------------------------------

-- paid: outside money that has bought nothing yet. credit: given back or given. earned: rewards. debt: what a claw-back or a
-- chargeback could not take. `customer`, the one account before them, is empty once its customer was moved.
ALTER TABLE accounts DROP CONSTRAINT accounts_kind_check;
ALTER TABLE accounts DROP CONSTRAINT only_customers_have_owners;
ALTER TABLE accounts DROP CONSTRAINT only_customers_have_balances;
ALTER TABLE accounts ADD CONSTRAINT accounts_kind_check CHECK (
    kind IN ('customer', 'paid', 'credit', 'earned', 'debt', 'world', 'revenue', 'referral_expense', 'compensation_expense',
             'withdrawal_reserve', 'suspense', 'adjustment'));
ALTER TABLE accounts ADD CONSTRAINT only_customers_have_owners
    CHECK ((kind IN ('customer', 'paid', 'credit', 'earned', 'debt')) = (customer_id IS NOT NULL));
ALTER TABLE accounts ADD CONSTRAINT only_customers_have_balances
    CHECK ((customer_id IS NOT NULL) = (balance IS NOT NULL));
ALTER TABLE accounts DROP CONSTRAINT balance_not_below_floor;
ALTER TABLE accounts ADD CONSTRAINT balance_not_below_floor CHECK (kind <> 'customer' OR balance >= balance_floor);
ALTER TABLE accounts ADD CONSTRAINT purse_not_below_zero CHECK (kind NOT IN ('paid', 'credit', 'earned') OR balance >= 0);
ALTER TABLE accounts ADD CONSTRAINT debt_not_above_zero CHECK (kind <> 'debt' OR balance <= 0);
ALTER TABLE accounts ADD CONSTRAINT purses_have_no_floor CHECK (kind = 'customer' OR balance_floor = 0);

CREATE TRIGGER a_floor_is_final BEFORE UPDATE OF balance_floor ON accounts
    FOR EACH ROW WHEN (NEW.balance_floor < OLD.balance_floor)
    EXECUTE FUNCTION refuse_change('no floor is ever lowered; what is owed is a posting on debt');

ALTER TABLE journals DROP CONSTRAINT journals_kind_check;
ALTER TABLE journals ADD CONSTRAINT journals_kind_check CHECK (
    kind IN ('purchase', 'balance_purchase', 'auto_renewal', 'topup', 'payment_credit', 'suspense', 'case_credit',
             'referral_reward', 'referral_clawback', 'refund', 'withdrawal_reserve', 'withdrawal_paid',
             'withdrawal_release', 'compensation', 'admin_adjust', 'purse_split'));

CREATE OR REPLACE FUNCTION apply_postings_to_balances() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    old_account bigint;
BEGIN
    UPDATE accounts SET balance = accounts.balance + moved.amount
    FROM (SELECT account_id, sum(amount)::bigint AS amount FROM inserted GROUP BY account_id) AS moved
    WHERE accounts.id = moved.account_id AND accounts.customer_id IS NOT NULL;
    SELECT a.id INTO old_account
    FROM inserted i JOIN accounts a ON a.id = i.account_id JOIN journals j ON j.id = i.journal_id
    WHERE a.kind = 'customer' AND j.kind <> 'purse_split' LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'account % was replaced by the purses paid, credit and earned; the program that posts to it is older than this database: start the newer one',
            old_account USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END
$$;

-- A credit that can be spent retries a renewal; what pays a debt cannot.
DROP TRIGGER a_credit_retries_the_renewal ON accounts;
CREATE TRIGGER a_credit_retries_the_renewal AFTER UPDATE OF balance ON accounts
    FOR EACH ROW WHEN (NEW.balance > OLD.balance AND NEW.kind IN ('paid', 'credit', 'earned'))
    EXECUTE FUNCTION retry_renewal_after_credit();

-- What each customer who was there before brought along.
CREATE TABLE purse_openings (
    customer_id   bigint PRIMARY KEY REFERENCES customers (id),
    paid          bigint NOT NULL CHECK (paid >= 0),
    credit        bigint NOT NULL CHECK (credit >= 0),
    earned        bigint NOT NULL CHECK (earned >= 0),
    debt          bigint NOT NULL CHECK (debt <= 0),
    rewarded_paid bigint NOT NULL CHECK (rewarded_paid BETWEEN 0 AND paid),  -- of paid: rewarded when it came in
    spent_paid    bigint NOT NULL CHECK (spent_paid >= 0),  -- outside money that had bought access from the balance, less losses
    last_journal  bigint NOT NULL,  -- the last one that was derived from
    journal_id    bigint UNIQUE REFERENCES journals (id),   -- the purse_split; none where nothing was there
    moved_at      timestamptz NOT NULL DEFAULT atlas_now()
);
CREATE TRIGGER purse_openings_are_final BEFORE UPDATE OR DELETE ON purse_openings
    FOR EACH ROW EXECUTE FUNCTION refuse_change('what a customer brought along is a fact');
CREATE TRIGGER purse_openings_stay BEFORE TRUNCATE ON purse_openings
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('what a customer brought along is a fact');

-- ---- referral ---------------------------------------------------------------------------------------------------------

-- How long a reward is held back, and since when that has been the rule. Written from the setting referral.hold_days.
CREATE TABLE referral_rules (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hold_days  integer NOT NULL CHECK (hold_days BETWEEN 0 AND 3650),
    valid_from timestamptz NOT NULL DEFAULT atlas_now()
);
INSERT INTO referral_rules (hold_days) VALUES (14);
CREATE TRIGGER referral_rules_are_final BEFORE UPDATE OR DELETE ON referral_rules
    FOR EACH ROW EXECUTE FUNCTION refuse_change('a rule that was valid is a fact; add another one');
CREATE TRIGGER referral_rules_stay BEFORE TRUNCATE ON referral_rules
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('a rule that was valid is a fact; add another one');
CREATE FUNCTION referral_hold() RETURNS interval LANGUAGE sql STABLE
    RETURN (SELECT make_interval(days => hold_days) FROM referral_rules ORDER BY id DESC LIMIT 1);

-- A reward belongs to a purchase: of a provider (money_in_id too), or from the balance. Rewards of top-ups are from before.
ALTER TABLE referral_rewards
    ALTER COLUMN money_in_id DROP NOT NULL,
    ADD COLUMN spending_journal_id bigint UNIQUE REFERENCES journals (id),
    ADD COLUMN base                bigint CHECK (base > 0),  -- what is rewarded: outside money, never rewarded before
    ADD COLUMN matures_at          timestamptz,              -- from when it can be withdrawn; NULL: it was given without a hold
    ADD CONSTRAINT a_reward_has_money CHECK (money_in_id IS NOT NULL OR spending_journal_id IS NOT NULL),
    ADD CONSTRAINT a_reward_follows_a_purchase CHECK (num_nulls(spending_journal_id, base, matures_at) IN (0, 3));
-- Those that are there stay as they are; whatever is written from now on says its purchase.
ALTER TABLE referral_rewards
    ADD CONSTRAINT a_new_reward_names_its_purchase CHECK (spending_journal_id IS NOT NULL) NOT VALID;
CREATE INDEX referral_rewards_unmatured ON referral_rewards (referrer_id, matures_at) WHERE matures_at IS NOT NULL;

-- What was taken back of each reward.
CREATE TABLE reward_takebacks (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    reward_id  bigint NOT NULL REFERENCES referral_rewards (id),
    journal_id bigint NOT NULL REFERENCES journals (id),
    base       bigint NOT NULL CHECK (base > 0),  -- the outside money that went back
    amount     bigint NOT NULL CHECK (amount > 0),
    created_at timestamptz NOT NULL DEFAULT atlas_now(),
    CONSTRAINT one_takeback_per_journal UNIQUE (reward_id, journal_id)
);
CREATE INDEX reward_takebacks_journal ON reward_takebacks (journal_id);
INSERT INTO reward_takebacks (reward_id, journal_id, base, amount, created_at)
SELECT r.id, j.id, f.amount, p.amount, j.created_at
FROM journals j
JOIN refunds f ON f.clawback_journal_id = j.id
JOIN referral_rewards r ON r.money_in_id = j.money_in_id
JOIN postings p ON p.journal_id = j.id JOIN accounts a ON a.id = p.account_id
WHERE j.kind = 'referral_clawback' AND a.kind = 'referral_expense';
CREATE TRIGGER reward_takebacks_are_final BEFORE UPDATE OR DELETE ON reward_takebacks
    FOR EACH ROW EXECUTE FUNCTION refuse_change('what was taken back is a fact');
CREATE TRIGGER reward_takebacks_stay BEFORE TRUNCATE ON reward_takebacks
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('what was taken back is a fact');

-- Refunds of one customer's charges.
CREATE INDEX journals_refunds ON journals (customer_id) WHERE kind = 'refund';

-- ---- withdrawals ------------------------------------------------------------------------------------------------------

-- A withdrawal takes earned money. One that waited when its customer was moved may hold other money, which a rejection gives back.
ALTER TABLE withdrawals
    ADD COLUMN from_paid   bigint NOT NULL DEFAULT 0 CHECK (from_paid >= 0),
    ADD COLUMN from_credit bigint NOT NULL DEFAULT 0 CHECK (from_credit >= 0),
    ADD CONSTRAINT parts_within_amount CHECK (from_paid + from_credit <= amount);

-- ---- orders -----------------------------------------------------------------------------------------------------------

-- A code that the customer entered and that would not have lowered the price: it is neither held nor used.
ALTER TABLE orders
    ADD COLUMN unused_promo_id bigint REFERENCES promo_codes (id),
    ADD CONSTRAINT a_code_is_used_or_not CHECK (promo_code_id IS NULL OR unused_promo_id IS NULL);

DROP TRIGGER quote_is_final ON orders;
CREATE TRIGGER quote_is_final BEFORE UPDATE ON orders FOR EACH ROW
    WHEN ((OLD.id, OLD.customer_id, OLD.kind, OLD.tariff, OLD.days, OLD.price_amount, OLD.price_currency,
           OLD.quoted_amount, OLD.quoted_asset, OLD.quoted_rate, OLD.idempotency_key, OLD.promo_code_id, OLD.unused_promo_id)
          IS DISTINCT FROM
          (NEW.id, NEW.customer_id, NEW.kind, NEW.tariff, NEW.days, NEW.price_amount, NEW.price_currency,
           NEW.quoted_amount, NEW.quoted_asset, NEW.quoted_rate, NEW.idempotency_key, NEW.promo_code_id, NEW.unused_promo_id)
          OR (OLD.state = 'paid' AND NEW.state <> 'paid'))
    EXECUTE FUNCTION refuse_change('what was quoted and what was paid is final; open another order');
