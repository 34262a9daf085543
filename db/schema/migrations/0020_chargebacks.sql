-- A chargeback of money that has been spent takes back what it bought, newest first; what that does not cover is a debt.

ALTER TABLE refunds
    ADD COLUMN spent bigint NOT NULL DEFAULT 0,  -- of a credited charge: what the purse `paid` did not hold any more
    ADD COLUMN owed  bigint NOT NULL DEFAULT 0,  -- what became a debt
    ADD CONSTRAINT spent_within_amount CHECK (spent BETWEEN 0 AND amount),
    ADD CONSTRAINT owed_within_amount CHECK (owed >= 0 AND owed + written_off <= amount);

-- What a chargeback took back of a purchase from the balance.
CREATE TABLE undone_purchases (
    refund_id bigint NOT NULL REFERENCES refunds (id),
    event_id  bigint NOT NULL REFERENCES entitlement_events (id),  -- the grant of the purchase
    base      bigint NOT NULL CHECK (base > 0),                    -- of the outside money that it took, what went back
    value     bigint NOT NULL CHECK (value BETWEEN 0 AND base),    -- of that, what was not used yet: revenue no more
    moved_by  bigint UNIQUE REFERENCES entitlement_events (id),    -- the event that took time; none if nothing was left
    PRIMARY KEY (refund_id, event_id)
);
CREATE INDEX undone_purchases_event ON undone_purchases (event_id);
CREATE TRIGGER undone_purchases_are_final BEFORE UPDATE OR DELETE ON undone_purchases
    FOR EACH ROW EXECUTE FUNCTION refuse_change('what a chargeback took back is a fact');
CREATE TRIGGER undone_purchases_stay BEFORE TRUNCATE ON undone_purchases
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('what a chargeback took back is a fact');

-- A chargeback of what was compensated takes the compensation back: a part below zero, of the refund's journal.
ALTER TABLE compensation_parts
    DROP CONSTRAINT compensation_parts_amount_check,
    ADD CONSTRAINT compensation_parts_amount_check CHECK (amount <> 0);

CREATE VIEW money_chargebacks_are_whole AS
SELECT 'refund:' || r.id AS subject,
       format('%s of it were spent, %s taken from purchases, %s owed, %s written off', r.spent, coalesce(u.value, 0), r.owed, r.written_off)
           AS problem
FROM refunds r
JOIN journals j ON j.id = r.journal_id
LEFT JOIN (SELECT refund_id, sum(base) AS base, sum(value) AS value FROM undone_purchases GROUP BY refund_id) AS u ON u.refund_id = r.id
WHERE coalesce(u.base, 0) > r.spent OR coalesce(u.value, 0) + r.owed + r.written_off > r.amount
UNION ALL
SELECT 'refund:' || r.id, format('owes %s, its journal says %s', r.owed, coalesce(-p.amount, 0))
FROM refunds r
LEFT JOIN (SELECT p.journal_id, sum(p.amount) AS amount FROM postings p JOIN accounts a ON a.id = p.account_id
           WHERE a.kind = 'debt' GROUP BY p.journal_id) AS p ON p.journal_id = r.journal_id
WHERE r.owed <> coalesce(-p.amount, 0)
UNION ALL
SELECT 'event:' || u.event_id, format('took %s of outside money, chargebacks took back %s', coalesce(-p.amount, 0), u.base)
FROM (SELECT event_id, sum(base) AS base FROM undone_purchases GROUP BY event_id) AS u
JOIN entitlement_events e ON e.id = u.event_id
LEFT JOIN LATERAL (SELECT sum(p.amount) AS amount FROM postings p JOIN accounts a ON a.id = p.account_id
                   WHERE p.journal_id = e.journal_id AND a.kind = 'paid') AS p ON true
WHERE u.base > coalesce(-p.amount, 0)
UNION ALL
SELECT 'event:' || m.id, format('a %s of grant %s, which a chargeback of grant %s names', m.kind, m.of_event_id, u.event_id)
FROM undone_purchases u JOIN entitlement_events m ON m.id = u.moved_by
WHERE m.kind <> 'refund' OR m.of_event_id IS DISTINCT FROM u.event_id
UNION ALL
SELECT 'event:' || event_id, format('%s were given back by compensation', sum(amount))
FROM compensation_parts GROUP BY event_id HAVING sum(amount) < 0
UNION ALL
SELECT 'refund:' || r.id, format('takes %s of given money, of a compensation %s', -p.amount, coalesce(-c.amount, 0))
FROM refunds r
JOIN (SELECT p.journal_id, sum(p.amount) AS amount FROM postings p JOIN accounts a ON a.id = p.account_id
      WHERE a.kind = 'credit' GROUP BY p.journal_id) AS p ON p.journal_id = r.journal_id
LEFT JOIN (SELECT journal_id, sum(amount) AS amount FROM compensation_parts WHERE amount < 0 GROUP BY journal_id) AS c
    ON c.journal_id = r.journal_id
WHERE p.amount < coalesce(c.amount, 0);
