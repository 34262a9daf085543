"""Whose time it is: the one place where intervals of access are added, taken back and moved. Pure arithmetic.

Each grant owns an interval. Time is additive: the new end is `max(now, end) + period`, whatever the VPN says. An end that
equals now has passed. What is left is laid out end to end from now on, the best tariff first, and of one tariff the
oldest grant first:

- the same tariff again follows what is left of it;
- an upgrade starts at once, and what is left of the lesser tariff follows it;
- a downgrade follows what is left of the better tariff;
- a trial that is running counts like paid time;
- what is taken back is the rest of one grant's own interval, and all that follows comes earlier: time that another
  grant owns is never touched, and what is used up is used up.

Nothing is converted by price, nothing is lost, and a cheap period never becomes a dear one.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import attrs

NOTHING = timedelta(0)


@attrs.frozen
class Interval:
    """The time that one grant owns, and the piece of it that runs now or comes next.

    `used + (ends_at - starts_at) + taken == granted`, always.
    """

    event_id: int
    """The entitlement event that granted it; 0 until that is written."""
    tariff: str
    granted: timedelta
    """All that was ever given: the period, and what was added because it was not delivered."""
    used: timedelta
    """What ran in earlier pieces: a better tariff came in between, or another one ended."""
    taken: timedelta
    """What was taken back by a refund, a compensation or a revocation."""
    starts_at: datetime
    ends_at: datetime

    def left(self, now: datetime) -> timedelta:
        """How much of it is still to run from `now` on."""
        return max(NOTHING, self.ends_at - max(self.starts_at, now))


def share(amount: int, part: timedelta, whole: timedelta) -> int:
    """What `part` of a period costs of which the `whole` cost `amount` kopecks, rounded down."""
    tick = timedelta(
        microseconds=1
    )  # in whole numbers, since an amount times a timedelta may be more than one can hold
    return amount * (part // tick) // (whole // tick)


Ranks = Mapping[str, int]
"""The rank of each tariff: of two the higher one is better."""


def add_interval(
    intervals: Sequence[Interval], ranks: Ranks, now: datetime, tariff: str, period: timedelta
) -> list[Interval]:
    """All intervals that are not over, with a new one of `period`, whose `event_id` is 0. The latest end moves by the period."""
    new = Interval(0, tariff, period, NOTHING, NOTHING, now, now)
    start = _beginning(intervals, now)
    return _lay_out([*((each, each.left(start)) for each in _open(intervals, start)), (new, period)], ranks, start)


def take_interval(
    intervals: Sequence[Interval], ranks: Ranks, now: datetime, event_id: int, most: timedelta | None = None
) -> tuple[list[Interval], timedelta]:
    """Take back what is left of one grant's interval, at most `most`; returns the open intervals and how much was taken."""
    start = _beginning(intervals, now)
    taken = NOTHING
    queue: list[tuple[Interval, timedelta]] = []
    for each in _open(intervals, start):
        left = each.left(start)
        if each.event_id == event_id:
            taken = left if most is None else min(left, most)
            each = attrs.evolve(each, taken=each.taken + taken)
            left -= taken
        queue.append((each, left))
    return _lay_out(queue, ranks, start), taken


def extend_interval(
    intervals: Sequence[Interval], ranks: Ranks, now: datetime, event_id: int, by: timedelta
) -> list[Interval]:
    """Add `by` to one grant's interval, also if it is over by now: it goes on then. The latest end moves by `by`."""
    start = _beginning(intervals, now)
    longer = [(each, each.left(start)) for each in intervals if each.event_id == event_id or each.ends_at > start]
    return _lay_out(
        [
            (attrs.evolve(each, granted=each.granted + by), left + by) if each.event_id == event_id else (each, left)
            for each, left in longer
        ],
        ranks,
        start,
    )


def end_intervals(intervals: Sequence[Interval], now: datetime) -> list[Interval]:
    """End all access at `now`: what is left of each interval is taken."""
    start = _beginning(intervals, now)
    return [
        attrs.evolve(each, taken=each.taken + each.left(now), starts_at=min(each.starts_at, now), ends_at=now)
        if each.starts_at < now
        else attrs.evolve(each, taken=each.taken + (each.ends_at - each.starts_at), starts_at=now, ends_at=now)
        for each in _open(intervals, start)
    ]


def running_tariff(intervals: Sequence[Interval], ranks: Ranks, now: datetime) -> str | None:
    """The tariff of the highest rank of which something is left at `now`; `None` if nothing is."""
    open_tariffs = {each.tariff for each in intervals if each.ends_at > now}
    return max(open_tariffs, key=ranks.__getitem__, default=None)


def running_until(intervals: Sequence[Interval], tariff: str) -> datetime:
    """When the last interval of the tariff ends; all that is left of one tariff runs without a break."""
    return max(each.ends_at for each in intervals if each.tariff == tariff)


def _beginning(intervals: Sequence[Interval], now: datetime) -> datetime:
    """`now`, or where the first open interval begins, if a transaction that began after this one has laid them out before it."""
    return max(now, min((each.starts_at for each in intervals if each.ends_at > now), default=now))


def _open(intervals: Sequence[Interval], now: datetime) -> list[Interval]:
    return [each for each in intervals if each.ends_at > now]


def _lay_out(queue: Sequence[tuple[Interval, timedelta]], ranks: Ranks, now: datetime) -> list[Interval]:
    """Place each interval with what is left of it, the best tariff first, then in the given order (the oldest grant first)."""
    result = []
    start = now
    for each, left in sorted(queue, key=lambda pair: -ranks[pair[0].tariff]):
        is_first = start == now and each.starts_at < now < each.ends_at  # it runs on: the piece is not cut in two
        begins = each.starts_at if is_first else start if left else now
        ends = start + left if left else now
        used = each.granted - each.taken - (ends - begins)
        result.append(attrs.evolve(each, used=used, starts_at=begins, ends_at=ends))
        start += left
    return result
