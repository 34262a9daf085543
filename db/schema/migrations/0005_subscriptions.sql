-- What a customer may use until when. The end moves only by an append-only entitlement event.

CREATE TABLE subscriptions (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id    bigint NOT NULL REFERENCES customers (id),
    tariff         text NOT NULL REFERENCES tariffs (code),
    period_days    smallint CHECK (period_days > 0),  -- the plan bought last, which an automatic renewal buys again
    price_amount   bigint CHECK (price_amount >= 0),  -- its price basis
    price_currency text REFERENCES assets (code),
    source         text NOT NULL CHECK (source IN ('payment', 'balance', 'trial', 'admin', 'auto_renewal')),
    state          text NOT NULL CHECK (state IN ('active', 'expired', 'revoked')),
    expires_at     timestamptz NOT NULL,
    auto_renew     boolean NOT NULL DEFAULT false,
    created_at     timestamptz NOT NULL DEFAULT atlas_now(),
    -- Today's rule, not the schema's: dropping this constraint is all that several subscriptions per customer need here.
    CONSTRAINT one_subscription_per_customer UNIQUE (customer_id),
    CONSTRAINT a_price_basis_is_whole CHECK (num_nulls(period_days, price_amount, price_currency) IN (0, 3))
);
CREATE INDEX subscriptions_due ON subscriptions (expires_at, id) WHERE state = 'active';
CREATE INDEX subscriptions_to_renew ON subscriptions (expires_at, id) WHERE state = 'active' AND auto_renew;

-- Until when each tariff, or a better one, is paid for: the best tariff is used up first, and the ends add up.
CREATE TABLE tariff_terms (
    subscription_id bigint NOT NULL REFERENCES subscriptions (id),
    tariff          text NOT NULL REFERENCES tariffs (code),
    ends_at         timestamptz NOT NULL,
    PRIMARY KEY (subscription_id, tariff)
);

CREATE TABLE entitlement_events (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subscription_id  bigint NOT NULL REFERENCES subscriptions (id),
    position         integer NOT NULL CHECK (position > 0),
    kind             text NOT NULL CHECK (kind IN ('grant', 'revoke', 'refund', 'compensation', 'correction')),
    source           text NOT NULL CHECK (source IN ('payment', 'balance', 'trial', 'admin', 'auto_renewal')),
    tariff           text NOT NULL REFERENCES tariffs (code),
    period           interval,
    previous_end     timestamptz,  -- NULL: the first event of the subscription
    new_end          timestamptz NOT NULL,
    order_id         bigint UNIQUE REFERENCES orders (id),
    money_in_id      bigint UNIQUE REFERENCES money_in (id),
    journal_id       bigint UNIQUE REFERENCES journals (id),
    idempotency_key  text UNIQUE,  -- of what no order and no charge stands behind: grants by an operator
    actor            text NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT atlas_now(),
    CONSTRAINT events_are_numbered UNIQUE (subscription_id, position),
    CONSTRAINT the_first_event_has_no_past CHECK ((position = 1) = (previous_end IS NULL)),
    CONSTRAINT a_grant_adds_time CHECK ((kind = 'grant') = (period IS NOT NULL))
);
CREATE TRIGGER entitlement_events_are_final BEFORE UPDATE OR DELETE ON entitlement_events
    FOR EACH ROW EXECUTE FUNCTION refuse_change('entitlement events are append-only');
CREATE TRIGGER entitlement_events_stay BEFORE TRUNCATE ON entitlement_events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('entitlement events are append-only');

-- At commit: the end of a subscription is what its last event says.
CREATE FUNCTION check_end_is_recorded() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    stored   timestamptz;
    recorded timestamptz;
    subject  bigint;
BEGIN
    IF TG_TABLE_NAME = 'subscriptions' THEN subject := NEW.id; ELSE subject := NEW.subscription_id; END IF;
    SELECT expires_at INTO stored FROM subscriptions WHERE id = subject;
    SELECT new_end INTO recorded FROM entitlement_events WHERE subscription_id = subject ORDER BY position DESC LIMIT 1;
    IF recorded IS DISTINCT FROM stored THEN
        RAISE EXCEPTION 'subscription % ends %, but its last entitlement event says %', subject, stored, recorded
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER end_is_recorded AFTER INSERT OR UPDATE OF expires_at ON subscriptions
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_end_is_recorded();
CREATE CONSTRAINT TRIGGER event_moves_the_end AFTER INSERT ON entitlement_events
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_end_is_recorded();

-- Once per customer ever: the row is the rule.
CREATE TABLE trials (
    customer_id bigint PRIMARY KEY REFERENCES customers (id),
    event_id    bigint NOT NULL UNIQUE REFERENCES entitlement_events (id),
    granted_at  timestamptz NOT NULL DEFAULT atlas_now()
);

-- Charged at most once per period, whatever restarts: the row is the rule.
CREATE TABLE renewals (
    subscription_id bigint NOT NULL REFERENCES subscriptions (id),
    period_start    timestamptz NOT NULL,
    journal_id      bigint NOT NULL UNIQUE REFERENCES journals (id),
    event_id        bigint NOT NULL UNIQUE REFERENCES entitlement_events (id),
    created_at      timestamptz NOT NULL DEFAULT atlas_now(),
    PRIMARY KEY (subscription_id, period_start)
);
