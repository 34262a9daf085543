-- exclusive: released code keeps one end a tariff and writes no intervals.

-- A grant owns its time: each has an interval, so that a refund takes back its own and nobody else's. Time that was not
-- delivered is added to it, and what a compensation gave back is kept by the grant that it was given for.

ALTER TABLE entitlement_events
    ADD COLUMN of_event_id bigint REFERENCES entitlement_events (id),  -- the grant whose interval it changes
    DROP CONSTRAINT entitlement_events_kind_check,
    ADD CONSTRAINT entitlement_events_kind_check
        CHECK (kind IN ('grant', 'opening', 'revoke', 'refund', 'compensation', 'delay', 'correction')),
    DROP CONSTRAINT a_grant_adds_time,
    ADD CONSTRAINT a_grant_adds_time CHECK (
        (kind NOT IN ('grant', 'opening', 'delay') OR (period IS NOT NULL AND period > '0'))
        AND (kind IN ('grant', 'opening', 'delay', 'refund') OR period IS NULL)),
    ADD CONSTRAINT a_delay_names_its_grant CHECK (kind <> 'delay' OR of_event_id IS NOT NULL);
CREATE UNIQUE INDEX entitlement_events_one_delay ON entitlement_events (of_event_id) WHERE kind = 'delay';
CREATE INDEX entitlement_events_of_event ON entitlement_events (of_event_id) WHERE of_event_id IS NOT NULL;

-- The projection of the events: how much of each grant is used, taken back and still to come, and when it runs.
CREATE TABLE entitlement_intervals (
    event_id        bigint PRIMARY KEY REFERENCES entitlement_events (id),
    subscription_id bigint NOT NULL REFERENCES subscriptions (id),
    tariff          text NOT NULL REFERENCES tariffs (code),
    granted         interval NOT NULL CHECK (granted > '0'),  -- with what was added because it was not delivered
    used            interval NOT NULL CHECK (used >= '0'),    -- in earlier pieces
    taken           interval NOT NULL CHECK (taken >= '0'),   -- by a refund, a compensation or a revocation
    starts_at       timestamptz NOT NULL,                     -- of the piece that runs now, comes next or was the last
    ends_at         timestamptz NOT NULL,
    CONSTRAINT an_interval_ends_after_it_starts CHECK (ends_at >= starts_at),
    CONSTRAINT an_interval_is_used_taken_or_to_come CHECK (used + (ends_at - starts_at) + taken = granted)
);
CREATE INDEX entitlement_intervals_ends ON entitlement_intervals (subscription_id, ends_at);

-- Those that are there are derived from their events, page by page (db/schema/moving_intervals.py).
INSERT INTO moving_over (step, done_at)
SELECT 'intervals', CASE WHEN NOT EXISTS (SELECT FROM subscriptions) THEN atlas_now() END;

-- When the name of the running tariff has to be looked at again.
ALTER TABLE subscriptions ADD COLUMN tariff_until timestamptz;
UPDATE subscriptions s SET tariff_until = coalesce(
    (SELECT ends_at FROM tariff_terms t WHERE t.subscription_id = s.id AND t.tariff = s.tariff), s.expires_at);
ALTER TABLE subscriptions ALTER COLUMN tariff_until SET NOT NULL;
CREATE INDEX subscriptions_tariff_ends ON subscriptions (tariff_until, id) WHERE state = 'active';

-- What a compensation gave back for which grant: with the refunds of a charge never more than it brought.
CREATE TABLE compensation_parts (
    journal_id bigint NOT NULL REFERENCES journals (id),
    event_id   bigint NOT NULL REFERENCES entitlement_events (id),
    amount     bigint NOT NULL CHECK (amount > 0),
    PRIMARY KEY (journal_id, event_id)
);
CREATE INDEX compensation_parts_event ON compensation_parts (event_id);
CREATE TRIGGER compensation_parts_are_final BEFORE UPDATE OR DELETE ON compensation_parts
    FOR EACH ROW EXECUTE FUNCTION refuse_change('what was given back is a fact; correct it in the ledger');
CREATE TRIGGER compensation_parts_stay BEFORE TRUNCATE ON compensation_parts
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('what was given back is a fact; correct it in the ledger');

-- ---- the invariants, with intervals ---------------------------------------------------------------------------------

CREATE OR REPLACE VIEW money_i08_refunds_within_captured AS
WITH back AS (
    SELECT money_in_id, currency, amount, 0 AS compensated FROM refunds
    UNION ALL
    SELECT e.money_in_id, m.booked_currency, 0, c.amount
    FROM compensation_parts c JOIN entitlement_events e ON e.id = c.event_id JOIN money_in m ON m.id = e.money_in_id
)
SELECT 'money_in:' || m.id AS subject,
       format('captured %s, refunded %s, compensated with %s', m.booked_amount, sum(b.amount), sum(b.compensated)) AS problem
FROM back b JOIN money_in m ON m.id = b.money_in_id
GROUP BY m.id HAVING sum(b.amount + b.compensated) > m.booked_amount OR bool_or(b.currency <> m.booked_currency)
UNION ALL
-- What a compensation credited is what it gave back for each grant, and no grant gets back more than it cost.
SELECT 'journal:' || j.id, format('a compensation of %s, its parts are %s', -paid.amount, coalesce(parts.amount, 0))
FROM journals j
JOIN LATERAL (SELECT sum(p.amount) AS amount FROM postings p JOIN accounts a ON a.id = p.account_id
              WHERE p.journal_id = j.id AND a.kind = 'compensation_expense') AS paid ON true
LEFT JOIN LATERAL (SELECT sum(amount) AS amount FROM compensation_parts WHERE journal_id = j.id) AS parts ON true
WHERE j.kind = 'compensation' AND -paid.amount IS DISTINCT FROM parts.amount::numeric
  -- of before, for which it could not be derived what was given back for which grant
  AND NOT EXISTS (SELECT FROM cases c WHERE c.kind = 'compensation_split' AND c.subject = 'journal:' || j.id)
UNION ALL
SELECT 'event:' || e.id, format('cost %s, %s of it was given back by compensation', coalesce(cost.amount, 0), given.amount)
FROM (SELECT event_id, sum(amount) AS amount FROM compensation_parts GROUP BY event_id) AS given
JOIN entitlement_events e ON e.id = given.event_id
LEFT JOIN LATERAL (SELECT sum(p.amount) AS amount FROM postings p JOIN accounts a ON a.id = p.account_id
                   WHERE p.journal_id = e.journal_id AND a.kind = 'revenue') AS cost ON true
WHERE given.amount > coalesce(cost.amount, 0)
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
   OR (e.kind IN ('grant', 'opening', 'delay') AND e.new_end <> greatest(e.previous_end, e.created_at) + e.period)
   OR (e.kind = 'refund' AND e.period IS NOT NULL AND e.new_end <> e.previous_end - e.period)
   OR (e.kind IN ('revoke', 'compensation') AND e.new_end <> least(e.previous_end, e.created_at))
UNION ALL
SELECT 'event:' || e.id, format('a %s of a %s of subscription %s', e.kind, g.kind, g.subscription_id)
FROM entitlement_events e JOIN entitlement_events g ON g.id = e.of_event_id
WHERE g.subscription_id <> e.subscription_id OR g.kind NOT IN ('grant', 'opening') OR g.position >= e.position
UNION ALL
-- Each grant owns one interval, of what it gave and what was added for delays.
SELECT 'event:' || e.id, format('granted %s %s and %s for delays, its interval has %s %s', e.tariff, e.period,
                                coalesce(added.period, '0'), i.tariff, i.granted)
FROM entitlement_events e
LEFT JOIN entitlement_intervals i ON i.event_id = e.id
LEFT JOIN LATERAL (SELECT sum(period) AS period FROM entitlement_events WHERE of_event_id = e.id AND kind = 'delay') AS added ON true
WHERE e.kind IN ('grant', 'opening')
  AND (i.granted IS DISTINCT FROM e.period + coalesce(added.period, '0') OR i.tariff <> e.tariff
       OR i.subscription_id <> e.subscription_id)
UNION ALL
SELECT 'event:' || i.event_id, format('a %s owns an interval', e.kind)
FROM entitlement_intervals i JOIN entitlement_events e ON e.id = i.event_id WHERE e.kind NOT IN ('grant', 'opening')
UNION ALL
SELECT 'event:' || i.event_id, format('%s of its interval were taken, refunds took %s', i.taken, back.period)
FROM entitlement_intervals i
JOIN (SELECT of_event_id, sum(period) AS period FROM entitlement_events WHERE kind = 'refund' GROUP BY of_event_id) AS back
    ON back.of_event_id = i.event_id
WHERE i.taken < back.period
UNION ALL
-- What is left runs end to end until the end of the subscription, the best tariff first.
SELECT 'subscription:' || s.id, format('ends %s, its intervals end %s', s.expires_at, i.ends_at)
FROM subscriptions s
LEFT JOIN (SELECT subscription_id, max(ends_at) AS ends_at FROM entitlement_intervals GROUP BY subscription_id) AS i
    ON i.subscription_id = s.id
WHERE i.ends_at IS DISTINCT FROM s.expires_at
UNION ALL
SELECT 'event:' || i.event_id, format('its interval starts %s, the one before it ends %s; tariffs %s after %s',
                                      i.starts_at, i.before_end, i.tariff, i.before_tariff)
FROM (SELECT i.*, t.rank, lag(i.ends_at) OVER run AS before_end, lag(i.tariff) OVER run AS before_tariff,
             lag(t.rank) OVER run AS before_rank
      FROM entitlement_intervals i JOIN tariffs t ON t.code = i.tariff
      WHERE i.ends_at > atlas_now()
      WINDOW run AS (PARTITION BY i.subscription_id ORDER BY i.starts_at, i.ends_at)) AS i
WHERE i.before_end IS NOT NULL AND (i.starts_at <> i.before_end OR i.rank > i.before_rank);

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
SELECT 'subscription:' || id, format('still called %s, which ran out %s', tariff, tariff_until)
FROM subscriptions WHERE state = 'active' AND expires_at > atlas_now() AND tariff_until < atlas_now() - interval '1 hour'
UNION ALL
SELECT 'reissue:' || r.id, format('asked for %s, its key is %s and has replaced nothing', r.requested_at, k.activation_status)
FROM reissues r JOIN vpn_keys k ON k.id = r.key_id
WHERE r.finished_at IS NULL AND k.wanted = 'present'
  AND greatest(r.requested_at, k.pending_since) < atlas_now() - interval '30 minutes'
UNION ALL
-- Three days it is watched; an hour is the longest between two looks.
SELECT 'invoice:' || id, format('still %s, made %s', state, created_at)
FROM invoices WHERE state IN ('creating', 'open') AND created_at < atlas_now() - interval '76 hours'
UNION ALL
SELECT 'invoice:' || id, format('its provider should have been asked %s, claimed by %s', next_attempt_at, coalesce(claimed_by, 'nobody'))
FROM invoices WHERE state = 'open' AND watched AND next_attempt_at < atlas_now() - interval '1 hour';
COMMENT ON VIEW money_i12_nothing_past_its_deadline IS 'at rest';

COMMENT ON TABLE tariff_terms IS 'until the intervals of a subscription are derived from its events; nothing writes it any more';

-- ---- time that was not delivered ------------------------------------------------------------------------------------

-- When a node had the key of a new access for the first time: of the grant with which the access began.
CREATE TABLE first_placements (
    event_id  bigint PRIMARY KEY REFERENCES entitlement_events (id),
    placed_at timestamptz NOT NULL DEFAULT atlas_now()
);
CREATE TRIGGER first_placements_are_final BEFORE UPDATE OR DELETE ON first_placements
    FOR EACH ROW EXECUTE FUNCTION refuse_change('when access was delivered first is a fact');
CREATE TRIGGER first_placements_stay BEFORE TRUNCATE ON first_placements
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('when access was delivered first is a fact');

-- Access from before this: delivered, as far as anything can still tell; only what has never been on a node is open.
INSERT INTO first_placements (event_id, placed_at)
SELECT e.id, e.created_at
FROM entitlement_events e
WHERE e.kind = 'grant' AND (e.previous_end IS NULL OR e.previous_end <= e.created_at)
  AND (EXISTS (SELECT FROM vpn_keys k WHERE k.subscription_id = e.subscription_id AND k.activated_at IS NOT NULL)
       OR EXISTS (SELECT FROM entitlement_events later WHERE later.subscription_id = e.subscription_id
                  AND later.position > e.position AND (later.previous_end <= later.created_at OR later.kind <> 'grant')));

-- An outage that is made good for everybody it hit. The window is the fact: no two windows of one node overlap.
CREATE TABLE prolongations (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    since      timestamptz NOT NULL,
    until      timestamptz NOT NULL,
    node_id    bigint REFERENCES vpn_nodes (id),  -- NULL: all of them
    reason     text NOT NULL CHECK (reason <> ''),
    actor      text NOT NULL CHECK (actor <> ''),
    created_at timestamptz NOT NULL DEFAULT atlas_now(),
    CONSTRAINT an_outage_begins_before_it_ends CHECK (since < until)
);
CREATE TRIGGER prolongations_are_final BEFORE UPDATE OR DELETE ON prolongations
    FOR EACH ROW EXECUTE FUNCTION refuse_change('what was made good is a fact');
CREATE TRIGGER prolongations_stay BEFORE TRUNCATE ON prolongations
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('what was made good is a fact');
