-- Refunds that we ask a provider to make, and how far its statement has been read.

CREATE TABLE provider_refunds (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    money_in_id         bigint NOT NULL REFERENCES money_in (id),
    idempotency_key     text NOT NULL UNIQUE CHECK (idempotency_key <> ''),         -- ours: the same again is the same refund
    request_key         text NOT NULL UNIQUE DEFAULT gen_random_uuid()::text,       -- the provider's, for the same reason
    amount              bigint NOT NULL CHECK (amount > 0),                         -- what the provider sends back
    asset               text NOT NULL REFERENCES assets (code) CHECK (asset <> 'UNVALUED'),
    booked_amount       bigint NOT NULL CHECK (booked_amount > 0),                  -- what the ledger gives back
    booked_currency     text NOT NULL DEFAULT 'RUB' REFERENCES assets (code),
    takes_access        boolean NOT NULL,
    writes_off          boolean NOT NULL,
    actor               text NOT NULL CHECK (actor <> ''),
    reference           text CHECK (reference <> ''),                               -- the provider's name of it
    state               text NOT NULL DEFAULT 'asking' CHECK (state IN ('asking', 'pending', 'done', 'refused')),
    refund_id           bigint UNIQUE REFERENCES refunds (id),                      -- NULL of one that is done: a case says why
    next_attempt_at     timestamptz NOT NULL,
    attempts            integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    last_error          text,
    claimed_by          text,
    claimed_incarnation bigint,
    claim_epoch         bigint NOT NULL DEFAULT 0,
    claim_until         timestamptz,
    created_at          timestamptz NOT NULL DEFAULT atlas_now(),
    settled_at          timestamptz,
    CONSTRAINT a_settled_refund_says_when CHECK ((state IN ('done', 'refused')) = (settled_at IS NOT NULL)),
    CONSTRAINT only_what_was_done_is_booked CHECK (refund_id IS NULL OR state = 'done'),
    CHECK (num_nulls(claimed_by, claimed_incarnation, claim_until) IN (0, 3))
);
CREATE INDEX provider_refunds_due ON provider_refunds (next_attempt_at, id) WHERE state IN ('asking', 'pending');
CREATE INDEX provider_refunds_money_in ON provider_refunds (money_in_id);
CREATE TRIGGER provider_refunds_are_kept BEFORE DELETE ON provider_refunds
    FOR EACH ROW EXECUTE FUNCTION refuse_change('what a provider was asked for is kept');
CREATE TRIGGER provider_refunds_stay BEFORE TRUNCATE ON provider_refunds
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('what a provider was asked for is kept');

-- A provider's own list of what happened, oldest first: how many of its entries have been read.
CREATE TABLE provider_statements (
    provider text PRIMARY KEY CHECK (provider ~ '^[a-z][a-z0-9_]{0,31}$'),
    position bigint NOT NULL DEFAULT 0 CHECK (position >= 0),
    read_at  timestamptz NOT NULL DEFAULT atlas_now()
);
