"""A virtual run takes no time and is decided by its seed, and leaves trio and `random` as they were."""

from __future__ import annotations

import random
import time

import pytest
import trio
from trio._core import _run as trio_run

from runtime.testing.system import run_virtual, seeded

TASKS = 12


async def scheduled() -> tuple[list[int], float]:
    """The order in which tasks that become runnable together are run, and a number by chance."""
    order: list[int] = []

    async def note(number: int) -> None:
        for _ in range(3):
            await trio.lowlevel.checkpoint()
            order.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(TASKS):
            nursery.start_soon(note, number)
    return order, random.random()  # what is tested


async def a_day(hours: int) -> float:
    await trio.sleep(hours * 3600)
    return trio.current_time()


def test_hours_pass_at_once() -> None:
    began = time.monotonic()
    assert run_virtual(a_day, 24, seed=1) == 24 * 3600
    assert time.monotonic() - began < 60


def test_a_seed_decides_the_order_of_tasks_and_the_numbers_of_chance() -> None:
    assert run_virtual(scheduled, seed=5) == run_virtual(scheduled, seed=5)
    orders = {tuple(run_virtual(scheduled, seed=seed)[0]) for seed in range(8)}
    numbers = {run_virtual(scheduled, seed=seed)[1] for seed in range(8)}
    assert len(orders) > 1
    assert len(numbers) == 8


def test_what_the_run_raises_comes_out_and_everything_is_as_it_was() -> None:
    before = trio_run._r, trio_run._ALLOW_DETERMINISTIC_SCHEDULING, random.getstate()

    async def fail() -> None:
        random.random()  # moves the state that has to be restored
        raise LookupError("as planned")

    with pytest.raises(LookupError, match="as planned"):
        run_virtual(fail, seed=1)
    assert (trio_run._r, trio_run._ALLOW_DETERMINISTIC_SCHEDULING, random.getstate()) == before


def test_a_seed_serves_a_run_on_another_clock_as_well() -> None:
    found = []
    for _ in range(2):
        with seeded(9):
            found.append(trio.run(scheduled))
    assert found[0] == found[1]
