from __future__ import annotations

import pytest
import trio
import trio.testing

from runtime.core.beats import Beats
from runtime.core.iteration_budget import Budget
from runtime.errors import Fatal, Killed, LeaseHeldAcrossCall


def budget(seconds: float = 15.0, yield_every: int = 20) -> Budget:
    return Budget(seconds, 100, yield_every, Beats(trio.current_time).worker("w"))


async def test_it_is_spent_when_the_time_is_up(autojump_clock: trio.testing.MockClock) -> None:
    assert autojump_clock.autojump_threshold == 0
    short = budget(10)
    assert (short.remaining, short.is_spent) == (10, False)
    await trio.sleep(4)
    assert short.remaining == 6
    await trio.sleep(6)
    assert (short.remaining, short.is_spent) == (0, True)


async def test_it_is_spent_when_the_worker_is_to_stop() -> None:
    long = budget(1000)
    long.stop()
    assert (long.remaining, long.is_spent) == (0, True)


async def test_counting_lets_others_run_after_every_n_items() -> None:
    shared = budget(yield_every=20)
    turns: list[int] = []

    async def other() -> None:
        while True:
            turns.append(shared.done)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await trio.lowlevel.checkpoint()
        for _ in range(2000):
            await shared.count()
        nursery.cancel_scope.cancel()
    assert shared.done == 2000
    # trio shuffles who goes first in each turn, so that of the hundred turns one in three or four is not seen
    assert len(set(turns)) > 25
    assert all(turn % 20 == 0 for turn in turns), "and only then"


async def test_counting_and_progress_prove_life(autojump_clock: trio.testing.MockClock) -> None:
    assert autojump_clock.autojump_threshold == 0
    beats = Beats(trio.current_time)
    alive = Budget(15, 100, 20, beats.worker("w"))
    await trio.sleep(3)
    await alive.count(5)
    assert beats.worker("w").progressed_at == trio.current_time()
    await trio.sleep(3)
    alive.progress()
    assert beats.worker("w").progressed_at == trio.current_time()
    assert alive.done == 5


# S-713
async def test_an_isolated_failure_is_counted_and_swallowed() -> None:
    batch = budget()
    for number in range(3):
        with batch.isolate(f"item {number}"):
            if number == 1:
                raise ValueError("rotten")
            await batch.count()
    assert (batch.done, batch.failed) == (2, 1)


# S-713
@pytest.mark.parametrize("error", [Fatal("no"), Killed("w", "here"), LeaseHeldAcrossCall("bug")])
async def test_what_is_not_the_items_fault_is_let_through(error: Exception) -> None:
    batch = budget()
    with pytest.raises(type(error)), batch.isolate("item"):
        raise error
    assert batch.failed == 0


async def test_cancellation_is_let_through() -> None:
    batch = budget()
    with trio.CancelScope() as scope:
        scope.cancel()
        with batch.isolate("item"):
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert batch.failed == 0
