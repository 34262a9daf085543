"""Tariffs side by side: the one place where periods of different tariffs are added and taken back. Pure arithmetic.

Time is additive: the new end is `max(now, end) + period`, whatever the VPN says. An end that equals now has passed. Of
several running tariffs the best is used up first:

- the same tariff again: its end moves by the period;
- an upgrade: the better tariff starts at once, what is left of the lesser one follows it;
- a downgrade: the lesser tariff follows what is left of the better one;
- a trial that is running counts like paid time and follows or is followed in the same way;
- a period that is taken back shortens its own tariff by what is left of it, and what follows it comes earlier.

Nothing is converted by price, nothing is lost, and a cheap period never becomes a dear one.

Everywhere, `ends` says for each tariff until when it, or a better one, is paid for, and `ranks` which is the better.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta


def add_period(
    ends: Mapping[str, datetime], ranks: Mapping[str, int], now: datetime, tariff: str, period: timedelta
) -> dict[str, datetime]:
    """Add a period of `tariff`; returns the running tariffs.

    The latest end of the result is `max(now, latest end) + period`.
    """
    rank = ranks[tariff]
    running = {name: end for name, end in ends.items() if end > now}
    # It starts when itself and everything better is used up, and what is lesser waits for it.
    start = max([now, *(end for name, end in running.items() if ranks[name] >= rank)])
    result = {name: end + period if ranks[name] < rank else end for name, end in running.items()}
    result[tariff] = start + period
    return result


def take_period(
    ends: Mapping[str, datetime], ranks: Mapping[str, int], now: datetime, tariff: str, period: timedelta
) -> tuple[dict[str, datetime], timedelta]:
    """Take back up to `period` of what is left of `tariff`; returns the running tariffs and how much was taken.

    The latest end moves back by what was taken, never before now. A tariff that is used up thereby ends now or where
    the better one does.
    """
    taken = min(period, remaining(ends, ranks, now).get(tariff, timedelta(0)))
    running = {name: end for name, end in ends.items() if end > now}
    return {name: end - taken if ranks[name] <= ranks[tariff] else end for name, end in running.items()}, taken


def remaining(ends: Mapping[str, datetime], ranks: Mapping[str, int], now: datetime) -> dict[str, timedelta]:
    """How long each tariff will run by itself from now on, the best first; together that is until the latest end."""
    left: dict[str, timedelta] = {}
    start = now
    for name in sorted(ends, key=ranks.__getitem__, reverse=True):
        if ends[name] > start:
            left[name] = ends[name] - start
            start = ends[name]
    return left


def running_tariff(ends: Mapping[str, datetime], ranks: Mapping[str, int], now: datetime) -> str | None:
    """The tariff of the highest rank that has not ended at `now`; `None` if all have."""
    return next(iter(remaining(ends, ranks, now)), None)
