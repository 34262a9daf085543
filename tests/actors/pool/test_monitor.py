"""What is told of an overload with the settings as they come: early, with names, seldom, and louder when it lasts."""

from __future__ import annotations

from typing import Any, cast

import attrs
import pytest
import trio
import trio.testing

from actors.pool.events import RequestsShed, SevereRequestsShed, SheddingResolved
from actors.pool.messages import LeaseRequest
from actors.pool.monitor import TICK, PoolMonitor
from db.errors import LeaseShed
from db.lease.queue import Lane
from runtime import Event
from tests.actors.pool.stand_ins import StandInReply, connection, new_state, request, waits


@attrs.define
class _Context:
    emit: Any


@attrs.frozen
class _Seen:
    events: list[tuple[float, Event]]
    """With seconds since the begin."""
    waits: list[float]
    """Of those who were shed, in seconds."""

    def of(self, kind: type[Event]) -> list[tuple[float, Any]]:
        return [(at, event) for at, event in self.events if type(event) is kind]


async def _stall(every: float, seconds: float, *, connecting: bool = False) -> _Seen:
    """The only connection is held for so long, while somebody new asks `every` so many seconds; then it is given back."""
    began = trio.current_time()
    events: list[tuple[float, Event]] = []
    state, _ = new_state(1)
    state._emit = lambda event: events.append((trio.current_time() - began, event))
    ticker = PoolMonitor(state, cast("Any", _Context(state._emit)), cast("Any", None))
    held = None
    if not connecting:
        state.add_connection(connection())
        held = state.take(request("holder"))
        assert held is not None
        held.deadline = float("inf")
    asked: list[LeaseRequest] = []
    due = began
    while trio.current_time() < began + seconds:
        if trio.current_time() >= due:
            asked.append(request("debit" if len(asked) % 4 else "credit", within=30.0))
            waits(state, asked[-1])
            due += every
        ticker.tick(trio.current_time())
        await trio.sleep(TICK)  # rule-ok: on its callers' virtual clock
    if held is not None:
        while state.leases:  # those who waited are served late
            state.give_back(next(iter(state.leases.values())))
        assert state.take(request("in time")) is not None
        ticker.tick(trio.current_time())
    replies = [cast("StandInReply", each.deferred) for each in asked]
    return _Seen(
        events,
        [
            reply.at - each.since
            for each, reply in zip(asked, replies, strict=True)
            if isinstance(reply.told, LeaseShed)
        ],
    )


@pytest.mark.parametrize("every", [0.05, 0.5, 2.0, 7.0, 20.0])
async def test_a_stall_becomes_critical_with_default_settings_however_seldom_somebody_asks(
    autojump_clock: trio.testing.MockClock, every: float
) -> None:
    seen = await _stall(every, 60.0)
    severe = seen.of(SevereRequestsShed)
    assert 5.0 < severe[0][0] < 5.0 + every + 2.5
    event = severe[0][1]
    assert event.lasting > 5.0
    assert '"holder" at ' in event.holders
    assert "1 leased" in event.state
    assert '"debit" interactive' in event.labels
    told = len(seen.of(RequestsShed)) + len(severe)
    assert told <= 2 + 60 / 10, "seldom, whatever the load"
    assert max(seen.waits) < 2.5, "told early"


async def test_every_request_that_was_shed_is_in_a_report_or_in_the_sum_at_the_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    seen = await _stall(0.5, 42.0)
    ((_, resolved),) = seen.of(SheddingResolved)
    assert resolved.count == len(seen.waits)
    assert 40 < resolved.lasted < 44
    reports = [event for kind in (RequestsShed, SevereRequestsShed) for _, event in seen.of(kind)]
    assert sum(event.count for event in reports) <= resolved.count
    assert sum(event.count for event in reports) > resolved.count * 0.7


async def test_nobody_is_shed_while_the_first_connection_is_being_opened(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A long migration is no overload; who waits is told so by the deadline."""
    seen = await _stall(0.5, 20.0, connecting=True)
    assert seen.waits == []
    assert seen.of(RequestsShed) == []


async def test_the_system_lane_is_never_part_of_it(autojump_clock: trio.testing.MockClock) -> None:
    state, events = new_state(1)
    ticker = PoolMonitor(state, cast("Any", _Context(events.append)), cast("Any", None))
    state.add_connection(connection())
    held = state.take(request())
    assert held is not None
    held.deadline = float("inf")
    waits(state, request("health", Lane.SYSTEM, within=60))
    for _ in range(40):
        ticker.tick(trio.current_time())
        await trio.sleep(TICK)
    assert not any(isinstance(event, RequestsShed) for event in events)
