-- What recurring work keeps: when each renewal and each reminder is due, and what became of it. The rows follow the
-- entitlement events, because nothing else moves an end.

-- One row per subscription with automatic renewal: the period that comes next, and when to try to pay for it.
CREATE TABLE renewal_schedule (
    subscription_id     bigint PRIMARY KEY REFERENCES subscriptions (id),
    period_start        timestamptz NOT NULL,  -- the end that the renewal moves; with the subscription it names the period
    state               text NOT NULL CHECK (state IN ('due', 'lacks_funds', 'off', 'missed', 'failed')),
    due_at              timestamptz,  -- NULL: nothing to do in this period
    tries               integer NOT NULL DEFAULT 0 CHECK (tries >= 0),     -- that ended for lack of money
    failures            integer NOT NULL DEFAULT 0 CHECK (failures >= 0),  -- that ended in an error of ours
    last_error          text,
    claimed_by          text,
    claimed_incarnation bigint,
    claim_epoch         bigint NOT NULL DEFAULT 0,  -- raised by every claim and by every change of the period
    claim_until         timestamptz,
    CONSTRAINT what_is_due_says_when CHECK ((state IN ('due', 'lacks_funds')) = (due_at IS NOT NULL)),
    CHECK (num_nulls(claimed_by, claimed_incarnation, claim_until) IN (0, 3))
);
CREATE INDEX renewal_schedule_due ON renewal_schedule (due_at, subscription_id) WHERE due_at IS NOT NULL;

-- How long before the end a renewal is tried first.
CREATE FUNCTION renewal_window() RETURNS interval LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN interval '6 hours';

CREATE FUNCTION schedule_renewal(subject bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    found subscriptions%ROWTYPE;
BEGIN
    SELECT * INTO found FROM subscriptions WHERE id = subject;
    IF found.auto_renew AND found.plan_tariff IS NOT NULL AND found.state <> 'revoked' AND found.expires_at > atlas_now() THEN
        INSERT INTO renewal_schedule AS r (subscription_id, period_start, state, due_at)
        VALUES (subject, found.expires_at, 'due', found.expires_at - renewal_window())
        ON CONFLICT (subscription_id) DO UPDATE
            SET period_start = excluded.period_start, state = 'due', due_at = excluded.due_at, tries = 0, failures = 0,
                last_error = NULL, claim_epoch = r.claim_epoch + 1, claimed_by = NULL, claimed_incarnation = NULL,
                claim_until = NULL
            WHERE r.period_start <> excluded.period_start OR r.due_at IS NULL;
    ELSE
        UPDATE renewal_schedule
        SET state = 'off', due_at = NULL, claim_epoch = claim_epoch + 1, claimed_by = NULL, claimed_incarnation = NULL,
            claim_until = NULL
        WHERE subscription_id = subject AND due_at IS NOT NULL;
    END IF;
END
$$;

-- One row per subscription: the reminder that comes next. The rules of its plan are in reminder_times.
CREATE TABLE reminder_schedule (
    subscription_id bigint PRIMARY KEY REFERENCES subscriptions (id),
    plan            text NOT NULL CHECK (plan IN ('paid', 'grant_week', 'grant_day', 'trial')),
    began_at        timestamptz NOT NULL,
    ends_at         timestamptz NOT NULL,
    due_at          timestamptz  -- NULL: nothing more to remind of before this end
);
CREATE INDEX reminder_schedule_due ON reminder_schedule (due_at, subscription_id) WHERE due_at IS NOT NULL;

-- When a customer is reminded, and of what; `anchor` is the moment that the reminder is about and makes it one of a kind.
CREATE FUNCTION reminder_times(plan text, began timestamptz, ends timestamptz)
RETURNS TABLE (kind text, at timestamptz, anchor timestamptz) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT rule.kind, rule.at, rule.anchor
    FROM (VALUES ('paid',       'reminder_paid_3d',      $3 - interval '72 hours', $3),
                 ('paid',       'reminder_paid_24h',     $3 - interval '24 hours', $3),
                 ('paid',       'reminder_paid_3h',      $3 - interval '3 hours',  $3),
                 ('grant_week', 'reminder_grant_24h',    $3 - interval '24 hours', $3),
                 ('grant_day',  'reminder_grant_6h',     $3 - interval '6 hours',  $3),
                 ('trial',      'reminder_trial_6h_in',  $2 + interval '6 hours',  $2),
                 ('trial',      'reminder_trial_48h_in', $2 + interval '48 hours', $2),
                 ('trial',      'reminder_trial_6h',     $3 - interval '6 hours',  $3)) AS rule (plan, kind, at, anchor)
    WHERE rule.plan = $1
$$;

CREATE FUNCTION schedule_reminders(subject bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    found subscriptions%ROWTYPE;
    last  entitlement_events%ROWTYPE;
    rules text;
BEGIN
    SELECT * INTO found FROM subscriptions WHERE id = subject;
    -- The trial keeps its beginning when an operator prolongs it; anything else begins with its last event.
    SELECT * INTO last FROM entitlement_events
    WHERE subscription_id = subject AND kind = 'grant' AND (found.source <> 'trial' OR source = 'trial')
    ORDER BY position DESC LIMIT 1;
    rules := CASE WHEN found.source = 'trial' THEN 'trial'
                  WHEN found.source = 'admin' AND last.period <= interval '1 day' THEN 'grant_day'
                  WHEN found.source = 'admin' AND last.period <= interval '7 days' THEN 'grant_week'
                  ELSE 'paid' END;
    INSERT INTO reminder_schedule AS r (subscription_id, plan, began_at, ends_at, due_at)
    SELECT subject, rules, last.created_at, found.expires_at, min(times.at)
    FROM reminder_times(rules, last.created_at, found.expires_at) AS times
    WHERE times.at > atlas_now() AND found.expires_at > atlas_now() AND found.state <> 'revoked'
    ON CONFLICT (subscription_id) DO UPDATE
        SET plan = excluded.plan, began_at = excluded.began_at, ends_at = excluded.ends_at, due_at = excluded.due_at;
END
$$;

CREATE FUNCTION schedule_recurring_work() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM schedule_renewal(NEW.subscription_id), schedule_reminders(NEW.subscription_id);
    RETURN NULL;
END
$$;
CREATE TRIGGER an_event_sets_what_recurs AFTER INSERT ON entitlement_events
    FOR EACH ROW EXECUTE FUNCTION schedule_recurring_work();

CREATE FUNCTION reschedule_renewal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM schedule_renewal(NEW.id);
    RETURN NULL;
END
$$;
CREATE TRIGGER a_switch_sets_the_renewal AFTER UPDATE OF auto_renew ON subscriptions
    FOR EACH ROW WHEN (OLD.auto_renew <> NEW.auto_renew) EXECUTE FUNCTION reschedule_renewal();

-- Whoever lacked the money and has more of it now is tried again at once.
CREATE FUNCTION retry_renewal_after_credit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE renewal_schedule r SET due_at = least(r.due_at, atlas_now())
    FROM subscriptions s
    WHERE s.customer_id = NEW.customer_id AND r.subscription_id = s.id AND r.state = 'lacks_funds';
    IF FOUND THEN
        PERFORM pg_notify('atlas_wake', 'auto_renewal');
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER a_credit_retries_the_renewal AFTER UPDATE OF balance ON accounts
    FOR EACH ROW WHEN (NEW.balance > OLD.balance) EXECUTE FUNCTION retry_renewal_after_credit();

-- What housekeeping takes away: messages that were settled long ago.
CREATE INDEX outbox_settled ON outbox (settled_at) WHERE settled_at IS NOT NULL;

-- Subscriptions that were there before this.
SELECT count(schedule_renewal(id)), count(schedule_reminders(id)) FROM subscriptions WHERE state = 'active';

CREATE VIEW money_renewals_are_whole AS
SELECT 'journal:' || j.id AS subject, 'a renewal was debited without being written down' AS problem
FROM journals j WHERE j.kind = 'auto_renewal' AND NOT EXISTS (SELECT FROM renewals r WHERE r.journal_id = j.id)
UNION ALL
SELECT 'event:' || e.id, 'a renewal extended the access without being written down'
FROM entitlement_events e
WHERE e.source = 'auto_renewal' AND e.kind = 'grant' AND NOT EXISTS (SELECT FROM renewals r WHERE r.event_id = e.id)
UNION ALL
SELECT 'renewal:' || r.subscription_id || ':' || r.period_start,
       format('debited by a %s journal, extended by a %s event from %s', j.kind, e.source, e.previous_end)
FROM renewals r JOIN journals j ON j.id = r.journal_id JOIN entitlement_events e ON e.id = r.event_id
WHERE j.kind <> 'auto_renewal' OR e.source <> 'auto_renewal' OR e.subscription_id <> r.subscription_id
   OR e.journal_id IS DISTINCT FROM r.journal_id OR e.previous_end IS DISTINCT FROM r.period_start
UNION ALL
SELECT 'subscription:' || s.id, format('ends %s, its renewal is due for the end %s', s.expires_at, r.period_start)
FROM renewal_schedule r JOIN subscriptions s ON s.id = r.subscription_id
WHERE r.due_at IS NOT NULL AND (r.period_start <> s.expires_at OR NOT s.auto_renew);

CREATE VIEW money_recurring_work_is_in_time AS
SELECT 'subscription:' || subscription_id AS subject, format('its renewal has been due since %s', due_at) AS problem
FROM renewal_schedule WHERE due_at < atlas_now() - interval '1 hour'
UNION ALL
SELECT 'subscription:' || subscription_id, format('its reminder has been due since %s', due_at)
FROM reminder_schedule WHERE due_at < atlas_now() - interval '2 hours';
COMMENT ON VIEW money_recurring_work_is_in_time IS 'at rest';
