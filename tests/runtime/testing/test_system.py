from __future__ import annotations

import attrs
import pytest
import trio

from runtime.child import ExitReason
from runtime.core.actor import handler
from runtime.core.ref import AddressState
from runtime.errors import ActorCrashed, Fatal, Ignore
from runtime.testing.actors import FailableError
from runtime.testing.system import Crash, Echo, Failable, FailableActor, Hang, OnCrash, Swallow, actor_system
from tests.runtime.messages import GetNotes, Note, Scribe, Tick


async def test_a_crash_that_nobody_expected_fails_the_test() -> None:
    with pytest.RaisesGroup(FailableError, flatten_subgroups=True):
        async with actor_system() as system:
            ref = await system.start(FailableActor())
            ref.tell(Crash("unexpected"))
            await system.exited(ref)
            await trio.sleep_forever()


async def test_an_expected_crash_is_followed_by_a_new_incarnation_at_once() -> None:
    plan = Failable()
    async with actor_system() as system:
        ref = await system.start(FailableActor(plan), on_crash=OnCrash.RESTART)
        for expected in (2, 3):
            ref.tell(Crash())
            await system.up(ref, expected)
        assert (plan.starts, plan.running) == (3, 1)
        assert [exit_.reason for exit_ in system.exits(ref)] == [ExitReason.CRASHED] * 2
    assert plan.running == 0


async def test_a_failed_start_is_raised_where_the_actor_was_started() -> None:
    async with trio.open_nursery() as nursery:
        nursery.cancel_scope.shield = True
        with pytest.RaisesGroup(FailableError, flatten_subgroups=True, allow_unwrapped=True):
            async with actor_system() as system:
                await system.start(FailableActor(Failable(fail_starts=1)))


async def test_a_declined_start_is_raised_too() -> None:
    class Declining(Scribe):
        async def on_start(self) -> None:
            raise Ignore("not here")

    with pytest.RaisesGroup(Ignore, flatten_subgroups=True, allow_unwrapped=True):
        async with actor_system() as system:
            await system.start(Declining())


async def test_stopping_interrupts_an_actor_that_does_not_stop_in_time(autojump_clock: trio.testing.MockClock) -> None:
    assert autojump_clock.autojump_threshold == 0
    plan = Failable()
    async with actor_system() as system:
        ref = await system.start(FailableActor(plan))
        ref.tell(Hang())
        await plan.busy.wait()
        assert (await system.stop(ref, within=3)).reason is ExitReason.KILLED
        assert trio.current_time() == pytest.approx(3)


async def test_swallow_ends_with_its_release_only() -> None:
    plan = Failable()
    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(FailableActor(plan), on_crash=OnCrash.STOP)
        ref.tell(Swallow())
        await plan.busy.wait()
        nursery.start_soon(system.kill, ref)
        await trio.testing.wait_all_tasks_blocked()
        assert system.exits(ref) == []
        plan.release()


async def test_an_actor_that_is_asked_to_stop_while_it_crashes_is_not_restarted() -> None:
    plan = Failable()
    async with actor_system() as system:
        ref = await system.start(FailableActor(plan), on_crash=OnCrash.RESTART)
        system.services.failpoints.arm("failableactor", "before:Echo")
        with pytest.raises(ActorCrashed):
            await ref.ask(Echo(1), within=60)
        # Its task has not ended yet, so the incarnation has not either.
        assert (await system.stop(ref)).reason is ExitReason.CRASHED
    assert plan.starts == 1


async def test_a_probe_records_everything_and_answers_as_told() -> None:
    async with actor_system() as system:
        probe = await system.probe("p")
        probe.answer(GetNotes, (4, 2))
        probe.ref.tell(Note(1))
        probe.ref.tell(Tick(2))
        assert await probe.ref.ask(GetNotes(), within=1) == (4, 2)
        assert await probe.receive(Tick) == Tick(2)
        assert await probe.receive(Note) == Note(1)
        with pytest.raises(AssertionError, match="expected Note next, got GetNotes"):
            await probe.receive(Note)


# S-535
async def test_a_start_that_failed_frees_its_name() -> None:
    async with actor_system() as system:
        for _ in range(2):
            with pytest.raises(FailableError):
                await system.start(FailableActor(Failable(fail_starts=1)), name="a")
        assert "a" not in system.services.registry
        ref = await system.start(FailableActor(), name="a")
        assert await ref.ask(Echo(1), within=1) == 1


@attrs.define(eq=False)
class Doomed(Scribe):
    """Ends the system with its first note."""

    @handler
    async def note(self, message: Note) -> None:
        raise Fatal("it is over")


# S-535
@pytest.mark.parametrize("on_crash", OnCrash)
async def test_a_system_ends_when_an_actor_ends_fatal_whatever_a_crash_would_do(on_crash: OnCrash) -> None:
    with trio.fail_after(30), pytest.RaisesGroup(Fatal, flatten_subgroups=True):
        async with actor_system() as system:
            await system.start(Scribe(), name="another")
            ref = await system.start(Doomed(), on_crash=on_crash)
            ref.tell(Note(1))
            await trio.sleep_forever()


# S-535
async def test_a_system_ends_when_it_is_cancelled() -> None:
    with trio.fail_after(30):
        with trio.CancelScope() as scope:
            async with actor_system() as system:
                refs = [await system.start(Scribe(), name=name) for name in ("first", "second")]
                scope.cancel(reason="the test is over")
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert [system.exits(ref)[0].reason for ref in refs] == [ExitReason.KILLED] * 2
        assert all(ref.address.state is AddressState.DEAD for ref in refs)
