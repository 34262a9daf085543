"""Rules of the books that need no server: who is told when connections are found dead, and whom a pool that stops waits for."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from actors.pool.pool import LeaseShed, PoolCrashed, PoolDown, PoolSettings
from actors.pool.state import PoolStatus
from db.lease.lease import Lease
from db.lease.queue import Lane
from tests.actors.pool.stand_ins import StandInDriver, book, connection, request, told, waits


async def test_who_finds_the_last_connection_dead_is_refused_if_none_can_be_opened() -> None:
    books, _ = book(2)
    before = books.refused["down"].value
    last = connection()
    books.admit(last)
    books.open_failed("the server is gone")
    last.driver.terminate()
    refused, health = request(), request(lane=Lane.SYSTEM)
    waits(books, refused)
    assert books.state is PoolStatus.DOWN
    assert isinstance(told(refused), PoolDown)
    waits(books, health)
    assert [waiter.payload for waiter in books.queue] == [health], "the system lane waits out an outage"
    assert books.refused["down"].value - before == 1


async def test_a_waiter_who_gets_a_dead_connection_is_refused_once_none_is_left() -> None:
    books, _ = book(2)
    driver = StandInDriver()
    books.admit(connection())
    books.admit(connection(driver))
    last, first = books.take(request()), books.take(request())
    assert first is not None
    assert last is not None
    one, other = request(), request()
    waits(books, one, other)
    books.revoke(first, "its holder did not react")
    books.open_failed("the server is gone")
    driver.answers = False  # it dies between coming back and being handed on
    books.give_back(last)
    assert books.state is PoolStatus.DOWN
    assert [type(told(each)) for each in (one, other)] == [PoolDown, PoolDown]
    assert len(books.queue) == 0


async def test_a_pool_shrunk_to_what_it_has_lacks_nothing() -> None:
    books, _ = book(4)
    books.admit(connection())
    books.admit(connection())
    books.open_failed("no room for another connection")
    states = []
    for size in (3, 2):  # one is still missing; none is
        books.resize(size)
        states.append((books.state, books.cause))
    assert states == [(PoolStatus.DEGRADED, "no room for another connection"), (PoolStatus.UP, "")]


async def _is_done(nursery: trio.Nursery, books_unused: trio.Event) -> bool:
    await trio.testing.wait_all_tasks_blocked()
    return books_unused.is_set()


async def test_a_pool_that_stops_waits_for_holders_and_waiters_behind_a_quarantine_too() -> None:
    books, _ = book(1)
    only = connection()
    books.admit(only)
    first = books.take(request())
    assert first is not None
    waiter = request()
    waits(books, waiter)
    unused = trio.Event()

    async def stop() -> None:
        await books.until_unused()
        unused.set()

    async with trio.open_nursery() as nursery:
        only.driver.needs_cleaning = True
        books.give_back(first)
        nursery.start_soon(stop)
        assert not await _is_done(nursery, unused), "its connection is being cleaned, and somebody waits for it"
        only.driver.needs_cleaning = False
        books.cleaned(only, clean=True)
        second = told(waiter)
        assert isinstance(second, Lease)
        assert not await _is_done(nursery, unused)
        books.give_back(second)
        assert await _is_done(nursery, unused)


@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_a_paused_pool_that_stops_refuses_waiters_at_once_and_ends_with_its_holders(when: str) -> None:
    books, _ = book(1)
    books.admit(connection())
    held = books.take(request())
    assert held is not None
    waiter = request(within=600.0)
    waits(books, waiter)
    if when == "before":
        books.pause()
    unused = trio.Event()

    async def stop() -> None:
        await books.until_unused()
        unused.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop)
        await trio.testing.wait_all_tasks_blocked()
        if when == "meanwhile":
            assert told(waiter) is None
            books.pause()
        assert not await _is_done(nursery, unused)
        assert isinstance(told(waiter), PoolCrashed)
        books.give_back(held)
        assert await _is_done(nursery, unused)


async def test_a_pool_that_stops_while_the_database_is_away_keeps_nobody_waiting() -> None:
    books, _ = book(1)
    health = request(lane=Lane.SYSTEM, within=600.0)
    books.open_failed("the server is gone")
    waits(books, health)
    with trio.fail_after(1):
        await books.until_unused()
    assert isinstance(told(health), PoolCrashed)


async def test_a_pool_that_stops_goes_on_when_the_last_waiter_gives_up() -> None:
    books, _ = book(1)
    only = connection()
    books.admit(only)
    held = books.take(request())
    assert held is not None
    waiter = request()
    waits(books, waiter)
    only.driver.needs_cleaning = True
    books.give_back(held)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(books.until_unused)
        await trio.testing.wait_all_tasks_blocked()
        books.forget(waiter)
        with trio.fail_after(1):
            while nursery.child_tasks:
                await trio.lowlevel.checkpoint()


async def test_a_paused_pool_refuses_only_who_finds_the_queue_full() -> None:
    books, _ = book(1, PoolSettings(reserved=0, max_waiting=1))
    books.admit(connection())
    books.pause()
    patient, one_too_many = request(), request()
    waits(books, patient, one_too_many)
    assert told(patient) is None
    assert isinstance(told(one_too_many), LeaseShed)
