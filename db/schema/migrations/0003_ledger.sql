-- Double entry. A journal is a fact with at least two postings that sum to zero per currency; nothing in it ever changes.
--
-- The sign, fixed here for the whole system: a positive posting on a customer's account is money we owe the customer;
-- money that comes in from outside is a negative posting on `world`, money that leaves is a positive one.

CREATE TABLE accounts (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind          text NOT NULL CHECK (kind IN ('customer', 'world', 'revenue', 'referral_expense', 'compensation_expense',
                                                'withdrawal_reserve', 'suspense', 'adjustment')),
    customer_id   bigint REFERENCES customers (id),
    currency      text NOT NULL REFERENCES assets (code),
    balance       bigint,
    balance_floor bigint NOT NULL DEFAULT 0,
    UNIQUE NULLS NOT DISTINCT (customer_id, kind, currency),
    UNIQUE (id, currency),
    CONSTRAINT only_customers_have_owners CHECK ((kind = 'customer') = (customer_id IS NOT NULL)),
    -- A system account is the sum of its postings: a materialised balance would be a row that every payment waits for.
    CONSTRAINT only_customers_have_balances CHECK ((kind = 'customer') = (balance IS NOT NULL)),
    CONSTRAINT balance_not_below_floor CHECK (balance >= balance_floor)
);
INSERT INTO accounts (kind, currency)
SELECT kind, 'RUB' FROM unnest(ARRAY['world', 'revenue', 'referral_expense', 'compensation_expense',
                                     'withdrawal_reserve', 'suspense', 'adjustment']) AS kind;

CREATE TABLE journals (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind            text NOT NULL CHECK (kind IN ('purchase', 'balance_purchase', 'auto_renewal', 'topup', 'payment_credit',
                                                  'suspense', 'referral_reward', 'refund', 'withdrawal_reserve',
                                                  'withdrawal_paid', 'withdrawal_release', 'compensation', 'admin_adjust')),
    idempotency_key text NOT NULL UNIQUE CHECK (idempotency_key <> ''),
    customer_id     bigint REFERENCES customers (id),
    order_id        bigint,  -- these two get their foreign keys where their tables are made
    money_in_id     bigint,
    note            text NOT NULL DEFAULT '',
    created_at      timestamptz NOT NULL DEFAULT atlas_now()
);

CREATE TABLE postings (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    journal_id bigint NOT NULL REFERENCES journals (id),
    account_id bigint NOT NULL,
    currency   text NOT NULL,
    amount     bigint NOT NULL CHECK (amount <> 0),
    FOREIGN KEY (account_id, currency) REFERENCES accounts (id, currency)
);
CREATE INDEX postings_journal ON postings (journal_id);
CREATE INDEX postings_account ON postings (account_id);

CREATE TRIGGER journals_are_final BEFORE UPDATE OR DELETE ON journals
    FOR EACH ROW EXECUTE FUNCTION refuse_change('the journal is append-only; write a correcting journal');
CREATE TRIGGER journals_stay BEFORE TRUNCATE ON journals
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('the journal is append-only; write a correcting journal');
CREATE TRIGGER postings_are_final BEFORE UPDATE OR DELETE ON postings
    FOR EACH ROW EXECUTE FUNCTION refuse_change('the journal is append-only; write a correcting journal');
CREATE TRIGGER postings_stay BEFORE TRUNCATE ON postings
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('the journal is append-only; write a correcting journal');

-- The only writer of customer balances. Callers hold the customers' rows in sorted order, so the order here is free.
CREATE FUNCTION apply_postings_to_balances() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE accounts SET balance = accounts.balance + moved.amount
    FROM (SELECT account_id, sum(amount)::bigint AS amount FROM inserted GROUP BY account_id) AS moved
    WHERE accounts.id = moved.account_id AND accounts.kind = 'customer';
    RETURN NULL;
END
$$;
CREATE TRIGGER postings_move_balances AFTER INSERT ON postings
    REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION apply_postings_to_balances();

-- At commit: at least two legs, zero per currency. On postings too, so that no later transaction can add a leg.
CREATE FUNCTION check_journal_is_balanced() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    journal bigint;
    legs    bigint;
    uneven  text;
BEGIN
    IF TG_TABLE_NAME = 'journals' THEN journal := NEW.id; ELSE journal := NEW.journal_id; END IF;
    SELECT coalesce(sum(side.legs), 0), string_agg(side.currency || ' ' || side.amount, ', ') FILTER (WHERE side.amount <> 0)
    INTO legs, uneven
    FROM (SELECT currency, count(*) AS legs, sum(amount) AS amount FROM postings WHERE journal_id = journal
          GROUP BY currency) AS side;
    IF legs < 2 THEN
        RAISE EXCEPTION 'journal % has % postings, at least 2 are needed', journal, legs USING ERRCODE = 'check_violation';
    END IF;
    IF uneven IS NOT NULL THEN
        RAISE EXCEPTION 'journal % does not sum to zero: %', journal, uneven USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER journal_is_balanced AFTER INSERT ON journals
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_journal_is_balanced();
CREATE CONSTRAINT TRIGGER posting_keeps_balance AFTER INSERT ON postings
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_journal_is_balanced();
