"""The step `intervals`: each grant gets the interval that it owns, by replaying the events of its subscription.

The events say what was granted, cut and taken back, and when; the best tariff was used up first, as it still is. The end of
a subscription is the same before and after. A refund of before took what was left of the tariff, whoever had bought it:
what was not left of its own grant was taken from others, newest first, and a case says how much of whose. What a
compensation of before gave back is divided over grants where the amounts leave one way to do it; where they do not, a case
says so with its numbers.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import attrs

from db.schema.move_cases import MoveCase, open_move_cases
from db.tx import Row, Tx

NOTHING = timedelta(0)
_TICK = timedelta(microseconds=1)


@attrs.define
class Owned:
    """A grant, and what became of its time so far."""

    event_id: int
    tariff: str
    rank: int
    granted: timedelta
    left: timedelta
    over_at: datetime
    """When the last of it was used or taken."""
    cost: int
    """What it cost, less refunds of its charge."""
    taken: timedelta = NOTHING

    @property
    def value(self) -> int:
        """What the time that is left cost, rounded down."""
        return self.cost * (self.left // _TICK) // (self.granted // _TICK)


@attrs.define
class Replay:
    """One subscription, as its events move it."""

    subscription_id: int
    customer_id: int
    expires_at: datetime
    owned: list[Owned] = attrs.field(factory=list)
    cursor: datetime | None = None
    """Up to when time was used."""
    strangers: list[dict[str, object]] = attrs.field(factory=list)
    """Refunds that took time of other grants."""
    parts: list[tuple[int, int, int]] = attrs.field(factory=list)
    """(journal, event, amount): what a compensation gave back for which grant."""
    undivided: list[tuple[int, int]] = attrs.field(factory=list)
    """(journal, amount): compensations that can be divided in more than one way."""
    first_of_run: int = 0
    """How many grants there were when access was last cut."""

    def advance(self, to: datetime) -> None:
        """Use time up until `to`: the best tariff first, of one tariff the oldest grant first."""
        if self.cursor is None or to <= self.cursor:
            self.cursor = self.cursor or to
            return
        at = self.cursor
        for each in sorted(self.owned, key=lambda one: -one.rank):
            used = min(each.left, to - at)
            if used:
                each.left -= used
                at += used
                each.over_at = at
        self.cursor = to

    def apply(self, row: Row) -> None:
        """Replay one event: a row of `_EVENTS`."""
        self.advance(row["created_at"])
        assert self.cursor is not None
        if row["kind"] == "grant":
            period: timedelta = row["period"]
            cost = max(0, row["cost"])
            self.owned.append(Owned(row["id"], row["tariff"], row["rank"], period, period, self.cursor, cost))
        elif row["kind"] == "refund" and row["period"] is not None:
            self._take_back(row)
        elif row["kind"] in ("revoke", "compensation"):
            if row["compensation_journal"] is not None:
                self._divide(row["compensation_journal"], row["compensated"])
            for each in self.owned:
                self._take(each, each.left)
            self.first_of_run = len(self.owned)

    def _take(self, each: Owned, time: timedelta) -> timedelta:
        taken = min(each.left, time)
        if taken:
            assert self.cursor is not None
            each.left -= taken
            each.taken += taken
            each.over_at = max(self.cursor, each.over_at)
        return taken

    def _take_back(self, row: Row) -> None:
        period: timedelta = row["period"]
        own = [each for each in self.owned if each.event_id == row["refunded_event"]]
        others = [each for each in reversed(self.owned) if each.tariff == row["tariff"] and each not in own]
        open_time = period
        lost: dict[int, float] = {}
        for each in (*own, *others):
            taken = self._take(each, open_time)
            open_time -= taken
            if taken and each in others:
                lost[each.event_id] = round(taken / timedelta(hours=1), 2)
        if lost:
            self.strangers.append(
                {"refund_event": row["id"], "of_event": row["refunded_event"], "hours_of_events": lost}
            )

    def _divide(self, journal_id: int, amount: int) -> None:
        """One way that the amounts leave: what was left, all of what had time left, or all since access was cut before."""
        run = [each for each in self.owned[self.first_of_run :] if each.cost]
        with_time = [each for each in run if each.left]
        ways: Sequence[Mapping[int, int]] = (
            {each.event_id: each.value for each in with_time if each.value},
            {each.event_id: each.cost for each in with_time},
            {each.event_id: each.cost for each in run},
            {each.event_id: amount for each in run} if len(run) == 1 and amount <= run[0].cost else {},
        )
        way = next((way for way in ways if sum(way.values()) == amount), None)
        if way is None:
            self.undivided.append((journal_id, amount))
            return
        self.parts += [(journal_id, event_id, part) for event_id, part in way.items()]

    def intervals(self, now: datetime) -> list[tuple[int, str, timedelta, timedelta, timedelta, datetime, datetime]]:
        """(event, tariff, granted, used, taken, starts, ends) of each grant, laid out from `now` on."""
        self.advance(now)
        assert self.cursor is not None
        at = self.cursor
        laid = []
        for each in sorted(self.owned, key=lambda one: -one.rank):
            starts = at if each.left else min(each.over_at, self.cursor)
            ends = starts + each.left
            used = each.granted - each.taken - each.left
            laid.append((each.event_id, each.tariff, each.granted, used, each.taken, starts, ends))
            at += each.left
        return laid


async def move_page_to_intervals(tx: Tx, after: int, limit: int) -> int | None:
    """Move up to `limit` subscriptions above number `after`; returns the last number, `None` when there are none left."""
    rows = await tx.fetch(_SUBSCRIPTIONS, after, limit)
    if not rows:
        await open_move_cases(tx, await _undivided(tx))
        return None
    now: datetime = rows[0]["now"]
    page = {row["id"]: Replay(row["id"], row["customer_id"], row["expires_at"]) for row in rows if not row["is_moved"]}
    for row in await tx.fetch(_EVENTS, list(page)):
        page[row["subscription_id"]].apply(row)
    await _write(tx, list(page.values()), now)
    last: int = rows[-1]["id"]
    return last


async def _write(tx: Tx, page: Sequence[Replay], now: datetime) -> None:
    cases: list[MoveCase] = []
    laid = []
    for replay in page:
        intervals = replay.intervals(now) if replay.owned else []
        laid += [(replay.subscription_id, *interval) for interval in intervals]
        derived = max((interval[-1] for interval in intervals), default=None)
        subject = f"subscription:{replay.subscription_id}"
        if derived != replay.expires_at:
            why = "its events lead to another end than the one that is stored"
            ends: dict[str, object] = {"why": why, "stored": str(replay.expires_at), "derived": str(derived)}
            cases.append(("interval_move", subject, replay.customer_id, ends))
        if replay.strangers:
            why = "refunds of before took time that other payments, gifts or renewals had brought"
            cases.append(("interval_strangers", subject, replay.customer_id, {"why": why, "refunds": replay.strangers}))
        for journal_id, amount in replay.undivided:
            why = "what was given back for which grant cannot be derived"
            cases.append(
                ("compensation_split", f"journal:{journal_id}", replay.customer_id, {"why": why, "amount": amount})
            )
    await tx.execute(
        """
        INSERT INTO entitlement_intervals (subscription_id, event_id, tariff, granted, used, taken, starts_at, ends_at)
        SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::interval[], $5::interval[], $6::interval[],
                             $7::timestamptz[], $8::timestamptz[])
        """,
        *([interval[column] for interval in laid] for column in range(8)),
    )
    parts = [part for replay in page for part in replay.parts]
    await tx.execute(
        """
        INSERT INTO compensation_parts (journal_id, event_id, amount)
        SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[])
        """,
        *([part[column] for part in parts] for column in range(3)),
    )
    await open_move_cases(tx, cases)


async def _undivided(tx: Tx) -> list[MoveCase]:
    """Compensations that no event of a subscription stands for, as cases."""
    why = "what was given back for which grant cannot be derived: no event of a subscription stands for it"
    rows = await tx.fetch(
        """
        SELECT j.id, j.customer_id, -p.amount AS amount FROM journals j
        JOIN postings p ON p.journal_id = j.id JOIN accounts a ON a.id = p.account_id AND a.kind = 'compensation_expense'
        WHERE j.kind = 'compensation' AND NOT EXISTS (SELECT FROM compensation_parts c WHERE c.journal_id = j.id)
          AND NOT EXISTS (SELECT FROM cases c WHERE c.kind = 'compensation_split' AND c.subject = 'journal:' || j.id)
        """
    )
    return [
        ("compensation_split", f"journal:{row['id']}", row["customer_id"], {"why": why, "amount": row["amount"]})
        for row in rows
    ]


_SUBSCRIPTIONS = """
SELECT s.id, s.customer_id, s.expires_at, atlas_now() AS now,
       EXISTS (SELECT FROM entitlement_intervals i WHERE i.subscription_id = s.id) AS is_moved
FROM (SELECT * FROM subscriptions WHERE id > $1 ORDER BY id LIMIT $2) AS s
ORDER BY s.id
"""

# A compensation's journal is named for the position of its event.
_EVENTS = """
SELECT e.id, e.subscription_id, e.kind, e.tariff, e.period, e.created_at, t.rank,
       coalesce(paid.amount, 0)::bigint - coalesce(back.amount, 0)::bigint AS cost,
       refunded.id AS refunded_event, given.id AS compensation_journal, given.amount AS compensated
FROM entitlement_events e
JOIN tariffs t ON t.code = e.tariff
LEFT JOIN LATERAL (SELECT sum(p.amount) AS amount FROM postings p JOIN accounts a ON a.id = p.account_id
                   WHERE p.journal_id = e.journal_id AND a.kind = 'revenue' AND e.kind = 'grant') AS paid ON true
LEFT JOIN LATERAL (SELECT sum(amount) AS amount FROM refunds WHERE money_in_id = e.money_in_id) AS back ON true
LEFT JOIN LATERAL (SELECT g.id FROM refunds r JOIN entitlement_events g ON g.money_in_id = r.money_in_id AND g.kind = 'grant'
                   WHERE r.event_id = e.id) AS refunded ON e.kind = 'refund'
LEFT JOIN LATERAL (SELECT j.id, -p.amount AS amount FROM journals j
                   JOIN postings p ON p.journal_id = j.id
                   JOIN accounts a ON a.id = p.account_id AND a.kind = 'compensation_expense'
                   WHERE j.idempotency_key = 'compensation:' || e.subscription_id || ':' || e.position) AS given
    ON e.kind = 'compensation'
WHERE e.subscription_id = ANY($1::bigint[])
ORDER BY e.subscription_id, e.position
"""
