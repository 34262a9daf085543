"""What a request that waits learns when the actor ends under a real supervisor, whoever of all tasks runs first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar

import attrs
import pytest
import trio
import trio.testing

from runtime.child import ChildSpec, GiveUp, StopCause, StopReason
from runtime.core.actor import Actor, handler
from runtime.core.address import Address
from runtime.core.services import Services
from runtime.errors import ActorCrashed, ActorDead, ActorRestarting, AskError, AskTimeout
from runtime.events import EventBus
from runtime.message import POSTPONE, Message, Postponed, Suspend
from runtime.restart_limits import NO_BACKOFF, Backoff
from runtime.supervision.supervisor import Supervisor
from runtime.testing.system import OnCrash, actor_system
from runtime.testing.virtual_time import run_virtual
from tests.runtime.messages import Boom, GetNotes, Note, Scribe, Wait, World

SEEDS = range(24)
"""Enough that both orders of any two tasks are among them."""
SHUTDOWN = StopReason(StopCause.SHUTDOWN, "over")


@attrs.frozen
class Linger(Message):
    """Start a task that takes its time to end, then crash."""


@attrs.define(eq=False)
class Lingering(Scribe):
    @handler
    async def linger(self, _: Linger) -> None:
        self.context.start_task(self._stay, 5.0)
        await trio.lowlevel.checkpoint()
        raise ValueError("boom")

    async def _stay(self, seconds: float) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(seconds)


@attrs.define(eq=False)
class Stage:
    """One actor under one supervisor, and somebody who waits for it."""

    supervisor: Supervisor
    address: Address
    world: World
    nursery: trio.Nursery
    answers: list[tuple[type[AskError], float]] = attrs.field(factory=list)
    """What each ask that failed came to, and when."""

    async def ask(self) -> None:
        """Ask until it is known what comes of it, in the background."""
        try:
            await self.address.ref.ask(GetNotes(), within=60)
        except AskError as error:
            self.answers.append((type(error), trio.current_time()))


async def _play(
    scene: Callable[[Stage], Awaitable[None]], intensity: int, shutdown: float, capacity: int
) -> list[tuple[type[AskError], float]]:
    world = World()
    services = Services(events=EventBus(log=None))
    address = Address("scribe", lambda: Lingering(world), services, capacity=capacity)
    spec = ChildSpec("scribe", lambda: address, shutdown=shutdown, backoff=NO_BACKOFF, give_up=GiveUp.PARK)
    supervisor = Supervisor("top", [spec], intensity=intensity)
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: supervisor.run(1, task_status=task_status))
        stage = Stage(supervisor, address, world, nursery)
        await scene(stage)
        await trio.testing.wait_all_tasks_blocked()
        supervisor.request_stop(SHUTDOWN)
    return stage.answers


def play(
    scene: Callable[[Stage], Awaitable[None]],
    *,
    seed: int,
    intensity: int = 0,
    shutdown: float = 5.0,
    capacity: int = 64,
) -> list[tuple[type[AskError], float]]:
    """What the askers of this scene learned."""
    return run_virtual(_play, scene, intensity, shutdown, capacity, seed=seed)


async def waits(stage: Stage) -> None:
    """Somebody waits for a suspended actor."""
    stage.address.ref.tell(Suspend())
    await trio.testing.wait_all_tasks_blocked()
    stage.nursery.start_soon(stage.ask)
    await trio.testing.wait_all_tasks_blocked()


async def waits_behind_another(stage: Stage) -> None:
    """Somebody waits behind a request that is being handled."""

    async def hold() -> None:
        with pytest.raises(AskError):
            await stage.address.ref.ask(Wait(), within=60)

    stage.nursery.start_soon(hold)
    await stage.world.entered.wait()
    stage.nursery.start_soon(stage.ask)
    await trio.testing.wait_all_tasks_blocked()


# S-207
@pytest.mark.parametrize("shutdown", [5.0, 0.0], ids=["asked to stop", "interrupted"])
def test_a_request_that_waits_when_the_actor_is_terminated_fails_as_dead(shutdown: float) -> None:
    async def terminate(stage: Stage) -> None:
        await waits(stage)
        await stage.supervisor.terminate_child("scribe")

    assert {tuple(play(terminate, seed=seed, shutdown=shutdown)) for seed in SEEDS} == {((ActorDead, 0.0),)}


# S-207
@pytest.mark.parametrize("shutdown", [5.0, 0.0], ids=["asked to stop", "interrupted"])
def test_a_request_that_waits_at_a_shutdown_fails_as_dead(shutdown: float) -> None:
    assert {tuple(play(waits, seed=seed, shutdown=shutdown)) for seed in SEEDS} == {((ActorDead, 0.0),)}


# S-207
def test_a_request_that_waits_when_the_actor_parks_fails_as_dead() -> None:
    async def park(stage: Stage) -> None:
        await waits_behind_another(stage)
        stage.supervisor.kill_child("scribe", "for the test")

    assert {tuple(play(park, seed=seed)) for seed in SEEDS} == {((ActorDead, 0.0),)}


# S-207
def test_a_request_that_waits_for_room_when_the_actor_parks_fails_as_dead() -> None:
    async def park(stage: Stage) -> None:
        stage.address.ref.tell(Suspend())
        await trio.testing.wait_all_tasks_blocked()
        stage.address.ref.tell(Note(1))
        stage.nursery.start_soon(stage.ask)
        await trio.testing.wait_all_tasks_blocked()
        stage.supervisor.kill_child("scribe", "for the test")

    assert {tuple(play(park, seed=seed, capacity=1)) for seed in SEEDS} == {((ActorDead, 0.0),)}


# S-207
def test_a_waiting_request_need_not_wait_for_the_last_words_of_an_actor_that_stops() -> None:
    async def held(stage: Stage) -> None:
        stage.nursery.start_soon(lambda: stage.address.ref.ask(Wait(), within=60))
        await stage.world.entered.wait()
        stage.nursery.start_soon(stage.ask)
        await trio.testing.wait_all_tasks_blocked()
        stage.nursery.start_soon(stage.supervisor.terminate_child, "scribe")
        await trio.sleep(1)
        stage.world.gate.set()

    assert {tuple(play(held, seed=seed)) for seed in SEEDS} == {((ActorDead, 0.0),)}


# S-206
def test_a_request_that_waits_when_the_actor_crashes_fails_as_restarting() -> None:
    async def restart(stage: Stage) -> None:
        await waits_behind_another(stage)
        stage.supervisor.kill_child("scribe", "for the test")

    assert {tuple(play(restart, seed=seed, intensity=5)) for seed in SEEDS} == {((ActorRestarting, 0.0),)}


# S-206
def test_a_task_that_does_not_end_keeps_no_request_waiting_for_its_deadline() -> None:
    async def linger(stage: Stage) -> None:
        stage.address.ref.tell(Linger())
        stage.nursery.start_soon(stage.ask)
        await trio.sleep(10)

    for seed in SEEDS:
        [(kind, when)] = play(linger, seed=seed, intensity=5)
        assert kind is ActorRestarting
        assert when == pytest.approx(0.1)


# S-206 S-207
def test_actors_of_a_nested_supervisor_restart_between_its_lives_and_end_with_it() -> None:
    async def main() -> list[type[AskError] | None]:
        services = Services(events=EventBus(log=None))
        address = Address("scribe", Scribe, services)
        spec = ChildSpec("scribe", lambda: address, backoff=NO_BACKOFF)
        group = Supervisor("group", [spec], intensity=0)
        slow = Backoff(initial=30.0, jitter=0.0)
        top = Supervisor("top", [ChildSpec("group", lambda: group, kind="supervisor", backoff=slow)])
        seen: list[type[AskError] | None] = []

        def look() -> None:
            refusal = address.refusal(GetNotes())
            seen.append(None if refusal is None else type(refusal))

        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: top.run(1, task_status=task_status))
            for _ in range(2):  # the first restart of the group is immediate, the second waits
                address.ref.tell(Boom())
                await trio.testing.wait_all_tasks_blocked()
            look()
            await trio.sleep(31)
            look()
            await top.terminate_child("group")
            look()
            top.request_stop(SHUTDOWN)
        return seen

    for seed in SEEDS:
        assert run_virtual(main, seed=seed) == [ActorRestarting, None, ActorDead]


@attrs.define(eq=False)
class Bookkeeper(Actor):
    """Notes a request before it postpones it, as a handler may that has done something by then."""

    noted: ClassVar[int] = 0

    @handler
    async def note(self, message: GetNotes) -> tuple[int, ...] | Postponed:
        type(self).noted += 1
        return POSTPONE

    @handler
    async def boom(self, message: Boom) -> None:
        raise ValueError("boom")


# S-206 S-223
@pytest.mark.parametrize("end", ["crashed with ValueError: boom", "was killed", "is stopping"])
async def test_a_request_whose_handler_ran_and_postponed_it_is_not_called_safe_to_repeat(end: str) -> None:
    Bookkeeper.noted = 0
    seen: list[AskError] = []
    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(Bookkeeper(), on_crash=OnCrash.RESTART)

        async def ask() -> None:
            with pytest.raises(AskError) as failed:
                await ref.ask(GetNotes(), within=60)
            seen.append(failed.value)

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        assert Bookkeeper.noted == 1
        if end == "was killed":
            await system.kill(ref)
        elif end == "is stopping":
            await system.stop(ref)
        else:
            ref.tell(Boom())
    (error,) = seen
    assert type(error) is ActorCrashed
    assert f"{end} while it had seen and postponed GetNotes; whether it took effect is unknown" in str(error)


# S-203 S-223
async def test_a_timeout_says_that_the_request_was_postponed() -> None:
    async with actor_system() as system:
        ref = await system.start(Bookkeeper())
        with pytest.raises(AskTimeout, match=r"postponed by its handler for \d.*what it did by then is unknown"):
            await ref.ask(GetNotes(), within=0.01)
