"""What an actor sees of the runtime, from within a real one."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest
import trio
import trio.testing

from runtime.core.actor import Actor, handler
from runtime.core.context import Context
from runtime.core.ref import Ref
from runtime.errors import UnknownActor
from runtime.events import Event
from runtime.message import Message, Request
from runtime.testing.system import ActorSystem, OnCrash, actor_system


@attrs.frozen
class Happened(Event):
    what: str


@attrs.frozen
class Do(Message):
    """Do something with the context."""

    what: Callable[[Context], object]


@attrs.frozen
class Tell(Request[object]):
    """Answer what this says of the context."""

    what: Callable[[Context], object]


@attrs.define(eq=False)
class Worker(Actor):
    stopping: list[bool]

    @handler
    async def do(self, message: Do) -> None:
        message.what(self.context)

    @handler
    async def tell(self, message: Tell) -> object:
        return message.what(self.context)

    async def on_stop(self, reason: object) -> None:
        self.stopping.append(self.context.stopping)


async def start(system: ActorSystem) -> Ref:
    return await system.start(Worker([]), name="worker", on_crash=OnCrash.RESTART)


async def told(ref: Ref, what: Callable[[Context], object]) -> object:
    return await ref.ask(Tell(what), within=1)


async def test_it_knows_its_name_its_ref_its_incarnation_and_the_others() -> None:
    async with actor_system() as system:
        ref = await start(system)
        assert await told(ref, lambda context: (context.name, context.incarnation)) == ("worker", 1)
        assert await told(ref, lambda context: context.ref) == ref
        assert await told(ref, lambda context: context.lookup("worker")) == ref
        assert await told(ref, lambda context: context.services) is system.services
        with pytest.raises(UnknownActor, match="did you mean 'worker'"):
            system.services.registry.lookup("worke")
        await system.kill(ref)
        await system.up(ref, incarnation=2)
        assert await told(ref, lambda context: context.incarnation) == 2


async def test_it_is_stopping_once_it_was_asked_to() -> None:
    actor = Worker([])
    async with actor_system() as system:
        ref = await system.start(actor)
        assert await told(ref, lambda context: context.stopping) is False
    assert actor.stopping == [True]


async def test_facts_add_up_and_hold_for_the_incarnation_only() -> None:
    """As does what it says of its readiness (S-413)."""
    async with actor_system() as system:
        ref = await start(system)
        ref.tell(Do(lambda context: context.describe(port="1", host="a")))
        ref.tell(Do(lambda context: context.describe(port="2")))
        ref.tell(Do(lambda context: context.ready(False, "no database")))
        await trio.testing.wait_all_tasks_blocked()
        assert ref.address.facts == {"port": "2", "host": "a"}
        assert ref.address.readiness == (False, "no database")
        await system.kill(ref)
        await system.up(ref, incarnation=2)
        assert ref.address.facts == {}
        assert ref.address.readiness == (True, "")


async def test_events_reach_the_bus_of_the_system() -> None:
    async with actor_system() as system:
        ref = await start(system)
        ref.tell(Do(lambda context: context.emit(Happened("worker", "this"))))
        await trio.testing.wait_all_tasks_blocked()
        assert system.services.events.recent(1) == [Happened("worker", "this")]


async def test_a_task_is_named_for_its_function_unless_it_has_a_name() -> None:
    async with actor_system() as system:
        ref = await start(system)
        assert await told(ref, lambda context: context.start_task(trio.sleep_forever).name) == "sleep_forever"
        assert await told(ref, lambda context: context.start_task(trio.sleep_forever, name="own").name) == "own"


async def test_a_context_whose_incarnation_is_over_starts_nothing() -> None:
    contexts: list[Context] = []
    async with actor_system() as system:
        ref = await start(system)
        ref.tell(Do(contexts.append))
        await trio.testing.wait_all_tasks_blocked()
        await system.kill(ref)
        with pytest.raises(RuntimeError, match="'worker' does not run yet or any more: it cannot start a task"):
            contexts[0].start_task(trio.sleep_forever)


async def test_a_failpoint_does_nothing_unless_it_was_armed() -> None:
    """S-415 holds the rest."""
    async with actor_system() as system:
        ref = await start(system)
        assert await told(ref, lambda context: context.failpoint("here")) is None
        system.services.failpoints.enabled = True
        system.services.failpoints.arm("worker", "here")
        ref.tell(Do(lambda context: context.failpoint("here")))
        await system.exited(ref)
        assert ref.address.incarnation in (1, 2)
