"""Actors that an actor spawns: they live under its supervision, and end with it unless they outlive it."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable

import attrs
import pytest
import trio
import trio.testing

from runtime.child import StopReason
from runtime.core.actor import Actor, handler
from runtime.core.context import Context
from runtime.core.ref import Ref
from runtime.core.services import Services
from runtime.core.spawned import SpawnOptions
from runtime.errors import ActorDead, Ignore, NameTaken, SpawnRefused, TooManyChildren
from runtime.events import EventBus
from runtime.message import Message, Request
from runtime.restart_limits import NO_BACKOFF
from runtime.supervision.errors import ChildStartFailed
from runtime.testing.system import ActorSystem, OnCrash, actor_system


@attrs.frozen
class Do(Request[object]):
    """Do this with the context, and answer what it returns."""

    what: Callable[[Context], Awaitable[object]]


@attrs.frozen
class Fall(Message):
    """Crash."""


@attrs.frozen
class Who(Request[str]):
    """Whose name is this?"""


@attrs.define(eq=False)
class Parent(Actor):
    log: list[str] = attrs.field(factory=list)

    @handler
    async def do(self, message: Do) -> object:
        try:
            return await message.what(self.context)
        except (SpawnRefused, ChildStartFailed, ValueError) as error:
            return error

    @handler
    async def fall(self, _: Fall) -> None:
        raise RuntimeError("told to")

    async def on_stop(self, reason: StopReason) -> None:
        self.log.append("parent stopped")


@attrs.define(eq=False)
class Child(Actor):
    log: list[str] = attrs.field(factory=list)
    refuses: Exception | None = None
    hangs: bool = False
    deaf: trio.Event | None = None

    async def on_start(self) -> None:
        if self.refuses is not None:
            raise self.refuses
        if self.hangs:
            await trio.sleep_forever()
        if self.deaf is not None:
            self.context.start_task(self._wait_deaf, self.deaf)

    async def _wait_deaf(self, end: trio.Event) -> None:
        with trio.CancelScope(shield=True):
            await end.wait()

    @handler
    async def who(self, _: Who) -> str:
        return self.context.name

    @handler
    async def fall(self, _: Fall) -> None:
        raise RuntimeError("told to")

    async def on_stop(self, reason: StopReason) -> None:
        self.log.append(f"{self.context.name} stopped")


@attrs.define(eq=False)
class Bare(Actor):
    """Does nothing."""


ALONE = SpawnOptions(backoff=NO_BACKOFF)


async def started(system: ActorSystem, log: list[str] | None = None) -> Ref:
    return await system.start(Parent([] if log is None else log), name="parent", on_crash=OnCrash.RESTART)


async def done(parent: Ref, what: Callable[[Context], Awaitable[object]]) -> object:
    found = await parent.ask(Do(what), within=5)
    if isinstance(found, Exception):
        raise found
    return found


async def spawn(
    parent: Ref,
    name: str | None = "anna",
    actor: Actor | None = None,
    *,
    options: SpawnOptions | None = None,
    outlives: bool = False,
) -> Ref:
    found = await done(
        parent, lambda context: context.spawn(actor or Child(), name=name, options=options, outlives=outlives)
    )
    assert isinstance(found, Ref)
    return found


async def stop(parent: Ref, ref: Ref) -> None:
    await done(parent, lambda context: context.stop(ref))


# S-1201
async def test_a_spawned_actor_serves_under_its_parents_name() -> None:
    async with actor_system() as system:
        parent = await started(system)
        anna = await spawn(parent)
        assert (anna.name, await anna.ask(Who(), within=1)) == ("parent.anna", "parent.anna")
        assert system.services.registry.lookup("parent.anna") == anna
        unnamed = await spawn(parent, None)
        assert unnamed.name.startswith("parent.child-")


# S-1201
@pytest.mark.parametrize("error", [Ignore("not here"), RuntimeError("no")])
async def test_a_start_that_fails_or_declines_leaves_no_child_and_no_name(error: Exception) -> None:
    async with actor_system() as system:
        parent = await started(system)
        with pytest.raises((SpawnRefused, ChildStartFailed), match=str(error)):
            await spawn(parent, actor=Child(refuses=error))
        assert (len(system.services.registry), len(system.services.spawned)) == (1, 0)
        await spawn(parent)


# S-1201
async def test_a_spawn_that_is_cancelled_leaves_no_child_and_no_name(autojump_clock: trio.testing.MockClock) -> None:
    async with actor_system() as system:
        parent = await started(system)

        async def give_up(context: Context) -> object:
            with trio.move_on_after(1) as scope:
                await context.spawn(Child(hangs=True), name="anna")
            return scope.cancelled_caught

        assert await parent.ask(Do(give_up), within=5)
        await trio.testing.wait_all_tasks_blocked()
        assert (len(system.services.registry), len(system.services.spawned)) == (1, 0)
        await spawn(parent)


# S-1201
@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 101, "ä"])
async def test_a_name_that_is_none_is_refused(name: str) -> None:
    async with actor_system() as system:
        parent = await started(system)
        with pytest.raises(ValueError, match="is no name for a child"):
            await spawn(parent, name)


# S-1201, S-1206
async def test_a_taken_name_and_one_child_too_many_are_refused() -> None:
    async with actor_system() as system:
        parent = await started(system)

        async def refused(context: Context) -> object:
            await context.spawn(Child(), name="anna", max_children=1)
            with pytest.raises(NameTaken, match=r"parent\.anna.*exists already"):
                await context.spawn(Child(), name="anna")
            with pytest.raises(TooManyChildren, match="has 1 children, as many as max_children allows"):
                await context.spawn(Child(), name="bert", max_children=1)
            return list(context.children())

        assert await parent.ask(Do(refused), within=5) == ["anna"]


# S-1202
async def test_a_child_that_crashes_comes_back_behind_the_same_ref_alone() -> None:
    async with actor_system() as system:
        parent = await started(system)
        anna, bert = await spawn(parent, options=ALONE), await spawn(parent, "bert")
        numbers = anna.incarnation, bert.incarnation
        await fall(anna)
        assert await anna.ask(Who(), within=1) == "parent.anna"
        assert (anna.incarnation > numbers[0], bert.incarnation, parent.incarnation) == (True, numbers[1], 1)


async def fall(ref: Ref) -> None:
    """Crash it, and wait until it is back, or stays away."""
    number = ref.incarnation
    ref.tell(Fall())
    while ref.incarnation == number and ref.address.state.value not in ("parked", "dead"):  # turns of the loop, no time
        await trio.lowlevel.checkpoint()


async def fall_too_often(ref: Ref) -> None:
    for _ in range(6):
        await fall(ref)


# S-1202
async def test_a_child_that_crashes_too_often_is_parked_and_its_parent_goes_on() -> None:
    async with actor_system() as system:
        parent = await started(system)
        anna = await spawn(parent, options=ALONE)
        await fall_too_often(anna)
        assert (anna.address.state.value, parent.incarnation) == ("parked", 1)
        await stop(parent, anna)
        assert await spawn(parent) != anna


# S-1202
async def test_a_child_that_escalates_ends_its_parents_incarnation() -> None:
    async with actor_system() as system:
        parent = await started(system)
        anna = await spawn(parent, options=SpawnOptions(backoff=NO_BACKOFF, give_up="escalate"))
        await fall_too_often(anna)
        end = await system.exited(parent)
        assert "parent.anna" in str(end.error)
        await system.up(parent, 2)
        assert len(system.services.spawned) == 0


# S-1203
async def test_a_parent_that_stops_lets_its_children_stop_in_order_first() -> None:
    log: list[str] = []
    async with actor_system() as system:
        parent = await started(system, log)
        await spawn(parent, actor=Child(log))
        await system.stop(parent)
        assert log == ["parent.anna stopped", "parent stopped"]
        assert len(system.services.registry) == 1


# S-1203
@pytest.mark.parametrize("how", ["crash", "kill"])
async def test_a_parent_that_crashes_takes_its_children_along(how: str) -> None:
    log: list[str] = []
    async with actor_system() as system:
        parent = await started(system)
        anna = await spawn(parent, actor=Child(log))
        if how == "crash":
            parent.tell(Fall())
        else:
            await system.kill(parent)
        await system.up(parent, 2)
        assert (log, anna.address.state.value, len(system.services.spawned)) == ([], "dead", 0)
        with pytest.raises(ActorDead):
            await anna.ask(Who(), within=1)
        await spawn(parent)


# S-1203
async def test_a_child_that_does_not_end_keeps_its_name_until_it_does(autojump_clock: trio.testing.MockClock) -> None:
    end = trio.Event()
    async with actor_system() as system:
        parent = await system.start(Parent(), name="parent", on_crash=OnCrash.STOP)
        await spawn(parent, actor=Child(deaf=end))
        parent.tell(Fall())
        assert "could not stop parent.anna" in str((await system.exited(parent)).error)
        assert "parent.anna" in system.services.registry
        end.set()
        await trio.testing.wait_all_tasks_blocked()
        assert "parent.anna" not in system.services.registry


# S-1204
async def test_a_child_that_outlives_its_parent_is_found_by_the_next_one() -> None:
    async with actor_system() as system:
        parent = await started(system)
        anna = await spawn(parent, outlives=True)
        await system.kill(parent)
        await system.up(parent, 2)
        assert await anna.ask(Who(), within=1) == "parent.anna"

        async def found(context: Context) -> object:
            return context.children()

        assert await parent.ask(Do(found), within=1) == {"anna": anna}
        await stop(parent, anna)
        assert (anna.address.state.value, len(system.services.spawned)) == ("dead", 0)


# S-1205
async def test_stop_waits_until_the_child_is_gone_and_its_name_is_free() -> None:
    log: list[str] = []
    async with actor_system() as system:
        parent = await started(system)
        anna = await spawn(parent, actor=Child(log))
        await stop(parent, anna)
        assert (log, "parent.anna" in system.services.registry) == (["parent.anna stopped"], False)
        await stop(parent, anna)  # again does nothing
        assert await spawn(parent) != anna


# S-1205
async def test_an_actor_stops_only_what_it_has_spawned() -> None:
    async with actor_system() as system:
        parent = await started(system)
        other = await system.start(Parent(), name="other")
        anna = await spawn(parent)
        with pytest.raises(ValueError, match="is a child of 'parent', and not of 'other'"):
            await stop(other, anna)
        with pytest.raises(ValueError, match="'other' is no child of 'parent'"):
            await stop(parent, other)


# S-1205
async def test_ten_thousand_children_that_came_and_went_leave_nothing() -> None:
    async with actor_system(Services(events=EventBus())) as system:
        parent = await started(system)

        def churn(rounds: int) -> Do:
            async def come_and_go(context: Context) -> object:
                async def one() -> None:
                    await context.stop(await context.spawn(Bare()))

                for _ in range(rounds):
                    async with trio.open_nursery() as nursery:
                        for _ in range(200):
                            nursery.start_soon(one)
                return None

            return Do(come_and_go)

        await parent.ask(churn(5), within=600)
        gc.collect()
        before = len(gc.get_objects())
        await parent.ask(churn(45), within=600)
        gc.collect()
        assert len(gc.get_objects()) - before < 3000, "trio itself keeps up to a thousand cancelled deadlines"
        assert (len(system.services.registry), len(system.services.spawned)) == (1, 0)
