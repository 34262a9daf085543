"""A cycle of asks is refused when its last edge is added, with the path; what is no cycle is not."""

from __future__ import annotations

import attrs
import pytest
import trio
import trio.testing

from runtime.core.actor import handler
from runtime.core.ref import Ref
from runtime.errors import (
    ActorCrashed,
    WouldDeadlock,
)
from runtime.message import Message, Request
from runtime.testing.system import OnCrash, actor_system
from tests.run_queue import PATIENCE
from tests.runtime.messages import (
    AskOther,
    GetNotes,
    Later,
    Note,
    Open,
    Scribe,
    Wait,
    World,
)


# S-201
async def test_an_actor_that_asks_itself_would_deadlock() -> None:
    async with actor_system() as system:
        ref = await system.start(Scribe(), name="narcissus", on_crash=OnCrash.RESTART)
        with pytest.raises(ActorCrashed) as caught:
            await ref.ask(AskOther(ref, Wait()), within=60)
        assert isinstance(caught.value.__cause__, WouldDeadlock)
        assert caught.value.__cause__.path == ("narcissus", "narcissus")


# S-217
async def test_the_last_edge_of_a_cycle_of_asks_is_refused_with_the_path() -> None:
    async with actor_system() as system:
        a = await system.start(Scribe(), name="a", on_crash=OnCrash.RESTART)
        b = await system.start(Scribe(), name="b", on_crash=OnCrash.RESTART)
        c = await system.start(Scribe(), name="c", on_crash=OnCrash.RESTART)
        with pytest.raises(ActorCrashed):
            await a.ask(AskOther(b, AskOther(c, AskOther(a, Wait()))), within=60)
        error = system.exits(c)[0].error
        assert isinstance(error, WouldDeadlock)
        assert error.path == ("c", "a", "b", "c")
        assert "c -> a -> b -> c" in str(error)


async def test_a_cycle_through_different_requests_is_refused_as_well() -> None:
    """b is not asked on behalf of a: it happens to ask a while a waits in its mailbox."""
    world = World()

    class Asking(Scribe):
        @handler
        async def note(self, message: Note) -> None:
            self.world.entered.set()
            await self.world.gate.wait()
            await self.context.lookup("a").ask(GetNotes(), within=60)

    async with actor_system() as system, trio.open_nursery() as nursery:
        a = await system.start(Scribe(), name="a", on_crash=OnCrash.RESTART)
        b = await system.start(Asking(world), name="b", on_crash=OnCrash.RESTART)
        b.tell(Note(1))
        await world.entered.wait()

        async def ask() -> None:
            with pytest.raises(ActorCrashed):
                await a.ask(AskOther(b, Wait()), within=60)

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        world.gate.set()
        exit_ = await system.exited(b)
        assert isinstance(exit_.error, WouldDeadlock)
        assert exit_.error.path == ("b", "a", "b")


# S-219
async def test_a_task_may_ask_whoever_asks_its_actor() -> None:
    """The message loop is free while a task waits: no deadlock, so no refusal."""

    @attrs.frozen
    class Back(Request[str]):
        to: Ref

    class Backing(Scribe):
        @handler
        async def back(self, message: Back) -> str:
            self.context.start_task(self._ask, message.to)
            return "started"

        async def _ask(self, to: Ref) -> None:
            await to.ask(GetNotes(), within=5)
            self.world.entered.set()

    world = World()
    async with actor_system() as system:
        backing = await system.start(Backing(world), name="backing")
        other = await system.start(Scribe(), name="other")
        assert await other.ask(AskOther(backing, Back(other)), within=5) == "started"
        await world.entered.wait()


# S-208 S-219
async def test_an_ask_that_was_deferred_does_not_count_as_an_edge() -> None:
    world = World()
    async with actor_system() as system, trio.open_nursery() as nursery:
        b = await system.start(Scribe(world), name="b", on_crash=OnCrash.RESTART)
        a = await system.start(Scribe(), name="a", on_crash=OnCrash.RESTART)
        answers: list[str] = []

        async def ask() -> None:
            answers.append(await a.ask(AskOther(b, Later()), within=60))

        nursery.start_soon(ask)
        await world.entered.wait()
        assert [edge.needs_callee for edge in a.address.waits()] == [False]
        b.tell(Open())
    assert answers == ["later"]


# S-218
async def test_two_handlers_that_send_to_each_others_full_mailbox_are_refused() -> None:
    @attrs.frozen
    class Flood(Message):
        to: Ref

    class Flooding(Scribe):
        @handler
        async def flood(self, message: Flood) -> None:
            for n in range(10):
                await message.to.send(Note(n))

    async with actor_system() as system:
        a = await system.start(Flooding(), name="a", capacity=1, on_crash=OnCrash.STOP)
        b = await system.start(Flooding(), name="b", capacity=1, on_crash=OnCrash.STOP)
        a.tell(Flood(b))
        b.tell(Flood(a))
        with trio.fail_after(PATIENCE):
            errors = [(await system.exited(ref)).error for ref in (a, b)]
        # Whoever comes second is refused, and dies of it here; to the other that one is then dead.
        assert sorted(type(error).__name__ for error in errors) == ["ActorDead", "WouldDeadlock"]
        (refused,) = [error for error in errors if isinstance(error, WouldDeadlock)]
        assert set(refused.path) == {"a", "b"}
