"""Rules of the state that need no server: who is told when connections are found dead, and whom a pool that stops waits for."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from actors.pool.events import PoolStatus
from actors.pool.settings import PoolSettings
from db.errors import LeaseShed, PoolCrashed, PoolDown
from db.lease.lease import Lease
from db.lease.queue import Lane
from tests.actors.pool.stand_ins import StandInDriver, connection, new_state, request, told, waits
from tests.run_queue import at_most


async def test_who_finds_the_last_connection_dead_is_refused_if_none_can_be_opened() -> None:
    state, _ = new_state(2)
    before = state.refused["down"].value
    last = connection()
    state.add_connection(last)
    state.open_failed("the server is gone")
    last.driver.terminate()
    refused, health = request(), request(lane=Lane.SYSTEM)
    waits(state, refused)
    assert state.status is PoolStatus.DOWN
    assert isinstance(told(refused), PoolDown)
    waits(state, health)
    assert [waiter.payload for waiter in state.queue] == [health], "the system lane waits out an outage"
    assert state.refused["down"].value - before == 1


async def test_a_waiter_who_gets_a_dead_connection_is_refused_once_none_is_left() -> None:
    state, _ = new_state(2)
    driver = StandInDriver()
    state.add_connection(connection())
    state.add_connection(connection(driver))
    last, first = state.take(request()), state.take(request())
    assert first is not None
    assert last is not None
    one, other = request(), request()
    waits(state, one, other)
    state.revoke(first, "its holder did not react")
    state.open_failed("the server is gone")
    driver.answers = False  # it dies between coming back and being handed on
    state.give_back(last)
    assert state.status is PoolStatus.DOWN
    assert [type(told(each)) for each in (one, other)] == [PoolDown, PoolDown]
    assert len(state.queue) == 0


async def test_a_pool_shrunk_to_what_it_has_lacks_nothing() -> None:
    state, _ = new_state(4)
    state.add_connection(connection())
    state.add_connection(connection())
    state.open_failed("no room for another connection")
    states = []
    for size in (3, 2):  # one is still missing; none is
        state.resize(size)
        states.append((state.status, state.cause))
    assert states == [(PoolStatus.DEGRADED, "no room for another connection"), (PoolStatus.UP, "")]


async def _is_done(nursery: trio.Nursery, books_unused: trio.Event) -> bool:
    await trio.testing.wait_all_tasks_blocked()
    return books_unused.is_set()


async def test_a_pool_that_stops_waits_for_holders_and_waiters_behind_a_quarantine_too() -> None:
    state, _ = new_state(1)
    only = connection()
    state.add_connection(only)
    first = state.take(request())
    assert first is not None
    waiter = request()
    waits(state, waiter)
    unused = trio.Event()

    async def stop() -> None:
        await state.until_drained()
        unused.set()

    async with trio.open_nursery() as nursery:
        only.driver.needs_cleaning = True
        state.give_back(first)
        nursery.start_soon(stop)
        assert not await _is_done(nursery, unused), "its connection is being cleaned, and somebody waits for it"
        only.driver.needs_cleaning = False
        state.quarantine_ended(only, clean=True)
        second = told(waiter)
        assert isinstance(second, Lease)
        assert not await _is_done(nursery, unused)
        state.give_back(second)
        assert await _is_done(nursery, unused)


@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_a_paused_pool_that_stops_refuses_waiters_at_once_and_ends_with_its_holders(when: str) -> None:
    state, _ = new_state(1)
    state.add_connection(connection())
    held = state.take(request())
    assert held is not None
    waiter = request(within=600.0)
    waits(state, waiter)
    if when == "before":
        state.pause()
    unused = trio.Event()

    async def stop() -> None:
        await state.until_drained()
        unused.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop)
        await trio.testing.wait_all_tasks_blocked()
        if when == "meanwhile":
            assert told(waiter) is None
            state.pause()
        assert not await _is_done(nursery, unused)
        assert isinstance(told(waiter), PoolCrashed)
        state.give_back(held)
        assert await _is_done(nursery, unused)


async def test_a_pool_that_stops_while_the_database_is_away_keeps_nobody_waiting() -> None:
    state, _ = new_state(1)
    health = request(lane=Lane.SYSTEM, within=600.0)
    state.open_failed("the server is gone")
    waits(state, health)
    with at_most(1):
        await state.until_drained()
    assert isinstance(told(health), PoolCrashed)


async def test_a_pool_that_stops_goes_on_when_the_last_waiter_gives_up() -> None:
    state, _ = new_state(1)
    only = connection()
    state.add_connection(only)
    held = state.take(request())
    assert held is not None
    waiter = request()
    waits(state, waiter)
    only.driver.needs_cleaning = True
    state.give_back(held)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(state.until_drained)
        await trio.testing.wait_all_tasks_blocked()
        state.forget(waiter)
        with at_most(1):
            while nursery.child_tasks:
                await trio.lowlevel.checkpoint()


async def test_a_paused_pool_refuses_only_who_finds_the_queue_full() -> None:
    state, _ = new_state(1, PoolSettings(reserved=0, max_waiting=1))
    state.add_connection(connection())
    state.pause()
    patient, one_too_many = request(), request()
    waits(state, patient, one_too_many)
    assert told(patient) is None
    assert isinstance(told(one_too_many), LeaseShed)
