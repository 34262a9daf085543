-- What payment providers send, and the invoices that are open with them.

-- Every authentic event, as it came, stored before it is acknowledged. It is settled once, in the transaction that books it.
CREATE TABLE provider_events (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    provider            text NOT NULL CHECK (provider ~ '^[a-z][a-z0-9_]{0,31}$'),
    event_id            text NOT NULL CHECK (event_id <> '' AND length(event_id) <= 200),
    body                bytea NOT NULL,
    state               text NOT NULL DEFAULT 'received' CHECK (state IN ('received', 'processed', 'ignored', 'failed')),
    outcome             jsonb CHECK (jsonb_typeof(outcome) = 'object'),
    next_attempt_at     timestamptz NOT NULL,
    attempts            integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),  -- failures; an outage or a crash is none
    last_error          text,
    claimed_by          text,
    claimed_incarnation bigint,
    claim_epoch         bigint NOT NULL DEFAULT 0,
    claim_until         timestamptz,
    received_at         timestamptz NOT NULL DEFAULT atlas_now(),
    settled_at          timestamptz,
    CONSTRAINT one_row_per_event UNIQUE (provider, event_id),
    CONSTRAINT a_settled_event_says_when_and_what CHECK ((state = 'received') = (settled_at IS NULL)
                                                         AND (state = 'received') = (outcome IS NULL)),
    CHECK (num_nulls(claimed_by, claimed_incarnation, claim_until) IN (0, 3))
);
CREATE INDEX provider_events_due ON provider_events (next_attempt_at, id) WHERE state = 'received';
CREATE INDEX provider_events_ignored ON provider_events (settled_at) WHERE state = 'ignored';

CREATE TRIGGER what_came_is_final BEFORE UPDATE ON provider_events FOR EACH ROW
    WHEN ((OLD.id, OLD.provider, OLD.event_id, OLD.body, OLD.received_at)
          IS DISTINCT FROM (NEW.id, NEW.provider, NEW.event_id, NEW.body, NEW.received_at)
          OR (OLD.state <> 'received' AND (OLD.state, OLD.outcome) IS DISTINCT FROM (NEW.state, NEW.outcome)))
    EXECUTE FUNCTION refuse_change('what a provider sent and what it led to is final');
CREATE TRIGGER events_about_money_are_kept BEFORE DELETE ON provider_events FOR EACH ROW
    WHEN (OLD.state <> 'ignored') EXECUTE FUNCTION refuse_change('only events that meant nothing are pruned');
CREATE TRIGGER provider_events_stay BEFORE TRUNCATE ON provider_events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('only events that meant nothing are pruned');

-- An order at a provider: what the customer was given to pay with.
CREATE TABLE invoices (
    id                  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id            bigint NOT NULL REFERENCES orders (id),
    provider            text NOT NULL CHECK (provider ~ '^[a-z][a-z0-9_]{0,31}$'),
    request_key         text NOT NULL UNIQUE DEFAULT gen_random_uuid()::text,  -- makes asking the provider again the same
    invoice_id          text CHECK (invoice_id <> ''),  -- the provider's name of it; NULL until it has answered
    pay_url             text,
    watched             boolean NOT NULL DEFAULT true,  -- whether the provider can be asked about it
    state               text NOT NULL DEFAULT 'creating' CHECK (state IN ('creating', 'open', 'paid', 'closed')),
    why_closed          text,
    next_attempt_at     timestamptz NOT NULL DEFAULT atlas_now(),
    attempts            integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    last_error          text,
    claimed_by          text,
    claimed_incarnation bigint,
    claim_epoch         bigint NOT NULL DEFAULT 0,
    claim_until         timestamptz,
    created_at          timestamptz NOT NULL DEFAULT atlas_now(),
    opened_at           timestamptz,
    settled_at          timestamptz,
    CONSTRAINT one_row_per_invoice UNIQUE (provider, invoice_id),
    CONSTRAINT an_open_invoice_can_be_paid CHECK (state <> 'open' OR num_nulls(invoice_id, pay_url, opened_at) = 0),
    CONSTRAINT a_settled_invoice_says_when CHECK ((state IN ('paid', 'closed')) = (settled_at IS NOT NULL)),
    CHECK (num_nulls(claimed_by, claimed_incarnation, claim_until) IN (0, 3))
);
CREATE UNIQUE INDEX invoices_one_current ON invoices (order_id, provider) WHERE state IN ('creating', 'open');
CREATE INDEX invoices_due ON invoices (next_attempt_at, id) WHERE state = 'open' AND watched;
CREATE INDEX invoices_unfinished ON invoices (created_at) WHERE state IN ('creating', 'open');

CREATE VIEW money_rule1_events_are_settled AS
SELECT 'provider_event:' || id AS subject, format('%s event received %s is not settled', provider, received_at) AS problem
FROM provider_events WHERE state = 'received' AND received_at < atlas_now() - interval '1 hour'
UNION ALL
SELECT 'provider_event:' || e.id, 'failed without a case' FROM provider_events e
WHERE e.state = 'failed' AND NOT EXISTS (SELECT FROM cases WHERE kind = 'provider_event' AND subject = 'provider_event:' || e.id);
COMMENT ON VIEW money_rule1_events_are_settled IS 'at rest';
