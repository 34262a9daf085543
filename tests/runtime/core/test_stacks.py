"""Where tasks stand, and whose they are."""

from __future__ import annotations

import attrs
import trio
import trio.testing

from runtime.child import ChildSpec
from runtime.core.actor import Actor, handler
from runtime.core.drain import DrainingAddress
from runtime.core.services import Services
from runtime.core.stacks import stack_of, tasks_of
from runtime.message import Message
from runtime.supervision.events import ChildUnstopped
from runtime.supervision.supervisor import Supervisor
from tests.runtime.supervision.misbehaving import Harness, settle


@attrs.frozen
class Begin(Message):
    """Start a task that does not end."""


@attrs.define(eq=False)
class Starter(Actor):
    """Its task hangs in trio's own nursery, opens one of its own, and swallows its cancellation until it is let go."""

    let_go: trio.Event

    @handler
    async def begin(self, _: Begin) -> None:
        self.context.start_task(self.swallow)

    async def swallow(self) -> None:
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.wait_inside)

    async def wait_inside(self) -> None:
        await self.let_go.wait()


# S-602
async def test_the_report_of_an_unstopped_actor_shows_its_own_tasks_and_theirs_only(
    harness: Harness, autojump_clock: trio.testing.MockClock
) -> None:
    let_go = trio.Event()
    services = Services()
    addresses = {name: DrainingAddress(name, lambda: Starter(let_go), services) for name in ("a", "b")}
    specs = [
        ChildSpec(name, lambda address=address: address, shutdown=1.0, kill_grace=1.0)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        for name, address in addresses.items()
    ]
    supervisor = Supervisor("top", specs, emit=harness.events.append)
    async with harness.running(supervisor):
        for address in addresses.values():
            address.ref.tell(Begin())
        await trio.testing.wait_all_tasks_blocked()
        assert len(tasks_of(addresses["b"])) == 3
        supervisor.kill_child("a", "on purpose")
        await trio.sleep(2.0)
        (report,) = harness.events_of(ChildUnstopped)
        let_go.set()
        await settle()
    titles = [line for line in report.stack.splitlines() if line.startswith("task ")]
    assert titles[:2] == ["task a#1", "task a/swallow"]
    assert len(titles) == 3
    assert "await self.let_go.wait()" in report.stack


async def test_a_stack_shows_where_a_task_and_its_children_stand() -> None:
    async def inner() -> None:
        await trio.sleep_forever()

    async def outer() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(inner)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(outer)
        await settle()
        (task,) = nursery.child_tasks
        stack = stack_of(task)
        nursery.cancel_scope.cancel()
    assert stack.index("outer") < stack.index("inner")
    assert "await trio.sleep_forever()" in stack
    assert "test_stacks.py" in stack


async def test_the_stack_of_an_ended_task_is_empty() -> None:
    tasks: list[trio.lowlevel.Task] = []

    async def brief() -> None:
        tasks.append(trio.lowlevel.current_task())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(brief)
    assert stack_of(tasks[0]) == ""
