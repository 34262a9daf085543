"""What a supervisor does for one child does not grow with the number of its siblings. Counted, not timed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Awaitable, Callable, Iterator
from types import FrameType

import attrs
import pytest
import trio

from runtime.child import ChildSpec, Strategy
from runtime.restart_limits import NO_BACKOFF
from runtime.supervision.spec_checks import start_order
from tests.runtime.supervision.misbehaving import Harness, settle

FEW, MANY = 150, 300
"""Enough: what grew with the square of it would show as nearly four times as much."""


@attrs.define
class Count:
    """How many functions were called, and by whom, in the supervision's own code."""

    calls: int = 0


@contextlib.contextmanager
def counted() -> Iterator[Count]:
    """Calls of and from every function of the supervision while the block runs; those of C, and the steps of a generator,
    count as well."""
    count = Count()

    def note(frame: FrameType, event: str, _: object) -> None:
        file = frame.f_code.co_filename
        if event in ("call", "c_call") and "/runtime/supervis" in file and "/tests/runtime/" not in file:
            count.calls += 1

    sys.setprofile(note)
    try:
        yield count
    finally:
        sys.setprofile(None)


def specs(harness: Harness, count: int) -> list[ChildSpec]:
    return [harness.spec(f"child{number}", backoff=NO_BACKOFF) for number in range(count)]


async def started_and_stopped(count: int) -> int:
    harness = Harness()
    with counted() as calls:
        async with harness.running(harness.supervisor(*specs(harness, count))):
            pass
    assert all(child.served == [1] for child in harness.children.values())
    return calls.calls


async def added_one_by_one(count: int) -> int:
    harness = Harness()
    pen = harness.dynamic(lambda name: harness.spec(name))
    with counted() as calls:
        async with harness.running(pen):
            for number in range(count):
                await pen.start_child(f"child{number}")
    return calls.calls


async def added_at_once(count: int) -> int:
    harness = Harness()
    pen = harness.dynamic(lambda name: harness.spec(name))
    with counted() as calls:
        async with harness.running(pen), trio.open_nursery() as nursery:
            for number in range(count):
                nursery.start_soon(pen.start_child, f"child{number}")
    return calls.calls


# S-530
@pytest.mark.parametrize(
    "scenario", [started_and_stopped, added_one_by_one, added_at_once], ids=lambda each: each.__name__
)
async def test_twice_as_many_children_are_twice_as_much_work(scenario: Callable[[int], Awaitable[int]]) -> None:
    few, many = await scenario(FEW), await scenario(MANY)
    assert many / few < 2.2, (few, many)


# S-530
async def test_restarts_and_administrative_calls_cost_the_same_among_many_siblings_as_few() -> None:
    costs = []
    for count in (10, FEW):
        harness = Harness()
        supervisor = harness.supervisor(*specs(harness, count), intensity=9)
        async with harness.running(supervisor):
            with counted() as calls:
                harness["child5"].crash()
                await settle()
                await supervisor.terminate_child("child7")
                await supervisor.restart_child("child7")
                supervisor.kill_child("child3", "on purpose")
                await settle()
        assert harness["child5"].served == harness["child7"].served == harness["child3"].served == [1, 2]
        costs.append(calls.calls)
    few, many = costs
    assert many < 1.2 * few, costs


# S-530
async def test_a_group_restart_grows_with_the_group() -> None:
    costs = []
    for count in (30, 60):
        harness = Harness()
        async with harness.running(harness.supervisor(*specs(harness, count), strategy=Strategy.ONE_FOR_ALL)):
            with counted() as calls:
                harness["child5"].crash()
                await settle()
        assert set(harness.incarnations().values()) == {2}
        costs.append(calls.calls)
    few, many = costs
    assert many / few < 2.2, costs


def test_the_start_order_of_many_is_found_in_one_pass(harness: Harness) -> None:
    def chain(count: int) -> list[ChildSpec]:
        """Each needs the one that is declared after it: the worst order there is."""
        names = [f"child{number}" for number in range(count)]
        return [harness.spec(name, needs=(after,)) for name, after in zip(names, [*names[1:], "last"], strict=True)] + [
            harness.spec("last")
        ]

    costs = []
    for count in (FEW, MANY):
        given = chain(count)
        with counted() as calls:
            ordered = start_order(given)
        assert [spec.name for spec in ordered] == [spec.name for spec in reversed(given)]
        costs.append(calls.calls)
    few, many = costs
    assert many / few < 2.2, costs
