-- What leaves the process, what was done, and what waits for a human.

CREATE TABLE outbox (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id         bigint REFERENCES customers (id),  -- NULL: for the operator
    kind                text NOT NULL CHECK (kind <> ''),
    subject             text NOT NULL CHECK (subject <> ''),  -- what it is about, e.g. money_in:42
    payload             jsonb NOT NULL DEFAULT '{}',
    state               text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'sent', 'undeliverable')),
    next_attempt_at     timestamptz NOT NULL DEFAULT atlas_now(),
    attempts            integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    last_error          text,
    claimed_by          text,
    claimed_incarnation bigint,
    claim_epoch         bigint NOT NULL DEFAULT 0,
    claim_until         timestamptz,
    created_at          timestamptz NOT NULL DEFAULT atlas_now(),
    settled_at          timestamptz,
    CONSTRAINT one_message_per_fact UNIQUE NULLS NOT DISTINCT (customer_id, kind, subject),
    CONSTRAINT settled_says_when CHECK ((state = 'pending') = (settled_at IS NULL)),
    CHECK (num_nulls(claimed_by, claimed_incarnation, claim_until) IN (0, 3))
);
CREATE INDEX outbox_due ON outbox (next_attempt_at, id) WHERE state = 'pending';

CREATE TABLE audit (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT atlas_now(),
    actor       text NOT NULL CHECK (actor <> ''),
    action      text NOT NULL CHECK (action <> ''),
    customer_id bigint REFERENCES customers (id),
    subject     text NOT NULL DEFAULT '',
    details     jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_customer ON audit (customer_id, at) WHERE customer_id IS NOT NULL;
CREATE TRIGGER audit_is_final BEFORE UPDATE OR DELETE ON audit
    FOR EACH ROW EXECUTE FUNCTION refuse_change('the audit trail is append-only');
CREATE TRIGGER audit_stays BEFORE TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('the audit trail is append-only');

CREATE TABLE cases (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind        text NOT NULL CHECK (kind <> ''),
    subject     text NOT NULL CHECK (subject <> ''),
    customer_id bigint REFERENCES customers (id),
    money_in_id bigint UNIQUE REFERENCES money_in (id),
    key_id      bigint REFERENCES vpn_keys (id),
    details     jsonb NOT NULL DEFAULT '{}',
    state       text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'closed')),
    resolution  text,
    opened_at   timestamptz NOT NULL DEFAULT atlas_now(),
    closed_at   timestamptz,
    CONSTRAINT one_case_per_fact UNIQUE (kind, subject),
    CONSTRAINT a_closed_case_says_how CHECK ((state = 'closed') = (closed_at IS NOT NULL AND resolution IS NOT NULL))
);
CREATE INDEX cases_open ON cases (opened_at) WHERE state = 'open';
