-- Payout destinations are sealed with a key that this database does not hold, and large withdrawals need a second operator.

-- The keys that have sealed something here, by fingerprint: a machine with another key file is noticed before it seals.
CREATE TABLE seal_keys (
    fingerprint   text PRIMARY KEY CHECK (fingerprint ~ '^[0-9a-f]{16}$'),
    first_used_at timestamptz NOT NULL DEFAULT atlas_now()
);

-- `requisites` keeps a destination in clear only where it was written before this; a chore of housekeeping seals these.
ALTER TABLE withdrawals
    ADD COLUMN destination_sealed bytea,
    ADD COLUMN sealed_with        text REFERENCES seal_keys (fingerprint),
    ADD COLUMN destination_end    text,  -- its last characters, by which its owner knows it
    ADD CONSTRAINT a_destination_is_sealed_whole CHECK (
        num_nulls(destination_sealed, sealed_with, destination_end) IN (0, 3)
        AND (destination_sealed IS NULL OR NOT requisites ? 'destination'));
ALTER TABLE withdrawals ALTER COLUMN requisites SET DEFAULT '{}';
CREATE INDEX withdrawals_in_clear ON withdrawals (id) WHERE destination_sealed IS NULL;
CREATE TRIGGER withdrawals_are_sealed BEFORE INSERT ON withdrawals FOR EACH ROW
    WHEN (NEW.destination_sealed IS NULL OR NEW.requisites ? 'destination')
    EXECUTE FUNCTION refuse_change('a payout destination is stored sealed');

-- As before, but that a destination in clear may become a sealed one, whatever the withdrawal's state, and nothing else with it.
DROP TRIGGER withdrawals_settle_once ON withdrawals;
CREATE TRIGGER withdrawals_settle_once BEFORE UPDATE ON withdrawals FOR EACH ROW
    WHEN (NOT (OLD.destination_sealed IS NULL AND NEW.destination_sealed IS NOT NULL
               AND (OLD.id, OLD.customer_id, OLD.idempotency_key, OLD.amount, OLD.currency, OLD.requisites - 'destination',
                    OLD.reserve_journal_id, OLD.created_at, OLD.state, OLD.settle_journal_id, OLD.settled_at, OLD.settled_by,
                    OLD.reference, OLD.reason)
                   IS NOT DISTINCT FROM
                   (NEW.id, NEW.customer_id, NEW.idempotency_key, NEW.amount, NEW.currency, NEW.requisites,
                    NEW.reserve_journal_id, NEW.created_at, NEW.state, NEW.settle_journal_id, NEW.settled_at, NEW.settled_by,
                    NEW.reference, NEW.reason))
          AND (OLD.state <> 'reserved'
               OR (OLD.id, OLD.customer_id, OLD.idempotency_key, OLD.amount, OLD.currency, OLD.requisites,
                   OLD.reserve_journal_id, OLD.destination_sealed, OLD.sealed_with, OLD.destination_end)
                  IS DISTINCT FROM
                  (NEW.id, NEW.customer_id, NEW.idempotency_key, NEW.amount, NEW.currency, NEW.requisites,
                   NEW.reserve_journal_id, NEW.destination_sealed, NEW.sealed_with, NEW.destination_end)))
    EXECUTE FUNCTION refuse_change('a withdrawal leaves the reserve once, by payment or by release');

-- Above a settable sum somebody else than who pays confirms first. One row an operator; kept.
CREATE TABLE withdrawal_confirmations (
    withdrawal_id bigint NOT NULL REFERENCES withdrawals (id),
    operator      text NOT NULL CHECK (operator <> ''),
    confirmed_at  timestamptz NOT NULL DEFAULT atlas_now(),
    PRIMARY KEY (withdrawal_id, operator)
);
CREATE TRIGGER withdrawal_confirmations_are_final BEFORE UPDATE OR DELETE ON withdrawal_confirmations
    FOR EACH ROW EXECUTE FUNCTION refuse_change('a confirmation is a fact');
CREATE TRIGGER withdrawal_confirmations_stay BEFORE TRUNCATE ON withdrawal_confirmations
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('a confirmation is a fact');
