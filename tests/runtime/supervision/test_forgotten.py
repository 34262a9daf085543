"""A child that its supervisor has forgotten leaves nothing behind."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Callable

import attrs
import pytest
import trio
import trio.testing

from runtime.child import ChildSpec, StopCause, StopReason
from runtime.core.actor import Actor
from runtime.core.address import Address
from runtime.core.drain import DrainingAddress
from runtime.core.services import Services
from runtime.events import EventBus
from runtime.message import Stop
from runtime.supervision.children import ChildRecord
from runtime.supervision.deadlines import Deadlines
from runtime.supervision.supervisor import DynamicSupervisor, Supervisor

ROUNDS = 200


@attrs.define(eq=False)
class Plain(Actor):
    """Does nothing."""


class Mark:
    """What a `start` holds; gone when the function is."""


@attrs.define(eq=False)
class Nursery:
    """Makes children, each with a mark that its `start` holds, a name in the registry and a beat."""

    services: Services = attrs.field(factory=lambda: Services(events=EventBus(log=None)))
    marks: list[weakref.ref[Mark]] = attrs.field(factory=list)
    names: Callable[[], int] = attrs.field(factory=lambda: itertools.count().__next__)

    def spec(self, restart: str = "temporary") -> ChildSpec:
        mark = Mark()
        self.marks.append(weakref.ref(mark))
        address = Address(f"c{self.names()}", Plain, self.services)
        self.services.registry.add(address)
        self.services.beats.worker(address.name)

        def start() -> Address:
            assert mark is not None
            return address

        # A start that may take an hour: its deadline is far away when the child has long been forgotten.
        return ChildSpec(address.name, start, restart=restart, start_timeout=3600)

    def left(self) -> tuple[int, int, int, int]:
        """Records, starts, names and beats that are there."""
        gc.collect()
        records = sum(isinstance(each, ChildRecord) for each in gc.get_objects())
        starts = sum(mark() is not None for mark in self.marks)
        return records, starts, len(self.services.registry), len(self.services.beats.workers)


# S-534
@pytest.mark.parametrize("way", ["terminated", "ended", "deleted", "failed"])
async def test_forgotten_children_leave_nothing_behind(way: str) -> None:
    here = Nursery()
    supervisor = Supervisor("top", [ChildSpec("slow", lambda: Address("slow", Plain, here.services))])
    before = here.left()
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: supervisor.run(1, task_status=task_status))
        for _ in range(ROUNDS // 10):
            spec = here.spec("transient" if way == "deleted" else "temporary")
            if way == "failed":
                spec = attrs.evolve(spec, start_timeout=0.0)
            name = spec.name
            try:
                await supervisor.start_child(spec)
            except Exception:  # noqa: BLE001  that is how it failed
                assert way == "failed"
                continue
            finally:
                del spec
            if way == "ended":
                here.services.registry.lookup(name).tell(Stop())
                await trio.testing.wait_all_tasks_blocked()
            else:
                await supervisor.terminate_child(name)
            if way == "deleted":
                supervisor.delete_child(name)
        await trio.testing.wait_all_tasks_blocked()
        records, *rest = here.left()
        assert (records, rest) == (before[0], [0, 0, 0])
        supervisor.request_stop(StopReason(StopCause.SHUTDOWN))


# S-534
async def test_forgotten_children_of_a_template_leave_nothing_behind() -> None:
    here = Nursery()
    pen = DynamicSupervisor("pen", lambda: here.spec())
    before = here.left()
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: pen.run(1, task_status=task_status))
        for number in range(ROUNDS // 10):
            await pen.start_child()
            await pen.terminate_child(f"c{number}")
        await trio.testing.wait_all_tasks_blocked()
        assert here.left() == (before[0], 0, 0, 0)
        pen.request_stop(StopReason(StopCause.SHUTDOWN))


# S-534
def test_deadlines_that_count_no_more_are_dropped_however_far_away_they_are() -> None:
    deadlines, here = Deadlines(), Nursery()
    first = here.spec()
    stays = ChildRecord(first, first.start(), own_attempts=None)  # type: ignore[arg-type]  # of no concern here
    deadlines.set(stays, 1.0)
    for number in range(10 * ROUNDS):
        spec = here.spec()
        record = ChildRecord(spec, spec.start(), own_attempts=None)  # type: ignore[arg-type]  # as above
        deadlines.set(record, 3600.0 + number)
        deadlines.set(record, 7200.0)
        deadlines.set(record, float("inf"))
    assert len(deadlines) < ROUNDS
    assert deadlines.next == 1.0
    assert deadlines.pop_due(0.5) is None
    assert deadlines.pop_due(1.0) is stays
    assert deadlines.pop_due(9999.0) is None


# S-534
async def test_a_declared_actor_keeps_its_name_when_it_has_ended_for_good() -> None:
    services = Services(events=EventBus(log=None))
    address = DrainingAddress("declared", Plain, services)
    services.registry.add(address)
    supervisor = Supervisor("top", [ChildSpec("declared", lambda: address, restart="temporary")])
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: supervisor.run(1, task_status=task_status))
        await supervisor.terminate_child("declared")
        assert services.registry.find("declared") is address
        supervisor.request_stop(StopReason(StopCause.SHUTDOWN))
