from __future__ import annotations

import gc
import math
from collections.abc import Callable

import attrs
import pytest
import trio
import trio.testing

from runtime.core.actor import Actor, handler
from runtime.core.lease_guard import current_lease
from runtime.core.mailbox import Mailbox
from runtime.core.ref import Ref
from runtime.errors import (
    ActorCrashed,
    ActorDead,
    ActorRestarting,
    AskTimeout,
    LeaseHeldAcrossCall,
    MailboxFull,
    Unhandled,
)
from runtime.message import Message, Request, Suspend
from runtime.testing.system import Echo, FailableActor, OnCrash, actor_system
from tests.runtime.messages import (
    AskBoom,
    AskOther,
    Boom,
    GetNotes,
    Later,
    Note,
    Open,
    Scribe,
    Wait,
    World,
)


# S-201
async def test_an_ask_is_answered_with_what_the_handler_returned() -> None:
    async with actor_system() as system:
        ref = await system.start(FailableActor())
        assert await ref.ask(Echo(7), within=1) == 7


# S-202
@pytest.mark.parametrize("within", [0, -1, math.inf, math.nan])
async def test_an_ask_always_has_a_deadline(within: float) -> None:
    async with actor_system() as system:
        ref = await system.start(FailableActor())
        with pytest.raises(ValueError, match="within must be a positive number"):
            await ref.ask(Echo(7), within=within)


# S-205
async def test_an_ask_fails_at_once_when_its_handler_crashes() -> None:
    async with actor_system() as system:
        ref = await system.start(Scribe(), on_crash=OnCrash.RESTART)
        with pytest.raises(ActorCrashed, match=r"crashed with ValueError: boom while it handled AskBoom") as caught:
            await ref.ask(AskBoom(), within=60)
        assert isinstance(caught.value.__cause__, ValueError)
        assert caught.value.message == AskBoom()


# S-206
async def test_asks_in_the_mailbox_bounce_with_their_message_when_the_actor_restarts() -> None:
    async with actor_system() as system:
        ref = await system.start(Scribe(), on_crash=OnCrash.RESTART)
        ref.tell(Boom())
        with pytest.raises(ActorRestarting, match="safe to repeat") as caught:
            await ref.ask(GetNotes(), within=60)
        assert caught.value.message == GetNotes()
        await system.up(ref, 2)
        assert await ref.ask(GetNotes(), within=1) == ()


# S-206
async def test_an_ask_that_waits_for_room_bounces_too() -> None:
    world = World()
    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(Scribe(world), capacity=1, on_crash=OnCrash.RESTART)
        ref.tell(Suspend())
        await trio.testing.wait_all_tasks_blocked()
        ref.tell(Note(1))

        async def ask() -> None:
            with pytest.raises(ActorRestarting):
                await ref.ask(GetNotes(), within=60)

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        assert ref.address.mailbox.statistics().tasks_waiting_send == 1
        await system.kill(ref)
        await trio.testing.wait_all_tasks_blocked()
        assert ref.address.mailbox.statistics().tasks_waiting_send == 0


# S-206
async def test_an_ask_while_nothing_runs_between_two_incarnations_fails_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Slow(Scribe):
        async def on_start(self) -> None:
            if self.context.incarnation > 1:
                await self.world.gate.wait()

    world = World()
    async with actor_system() as system:
        ref = await system.start(Slow(world), on_crash=OnCrash.RESTART)
        errors: list[Exception] = []

        after_exit = Mailbox.after_exit

        def ask_now(mailbox: Mailbox, keep: Callable[[Message], bool]) -> None:
            after_exit(mailbox, keep)
            refusal = ref.address.refusal(GetNotes())
            assert refusal is not None
            errors.append(refusal)

        monkeypatch.setattr(Mailbox, "after_exit", ask_now)  # the moment between the two
        await system.kill(ref)
        assert isinstance(errors[0], ActorRestarting)
        # and once the next one is starting, asks wait for it
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: ref.ask(GetNotes(), within=60))
            await trio.testing.wait_all_tasks_blocked()
            assert len(ref.address.asks) == 1
            world.gate.set()


# S-207
async def test_an_ask_to_a_stopped_actor_fails_at_once() -> None:
    async with actor_system() as system:
        ref = await system.start(Scribe())
        await system.stop(ref)
        with pytest.raises(ActorDead, match=r"'scribe' is dead .* will not see GetNotes"):
            await ref.ask(GetNotes(), within=60)


# S-207
async def test_asks_in_the_mailbox_fail_when_the_actor_stops_for_good() -> None:
    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(Scribe())
        ref.tell(Suspend())

        async def ask() -> None:
            with pytest.raises(ActorDead):
                await ref.ask(GetNotes(), within=60)

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        await system.stop(ref)


# S-207
async def test_an_ask_to_an_actor_that_is_about_to_stop_fails_at_once() -> None:
    world = World()
    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(Scribe(world))
        nursery.start_soon(lambda: ref.ask(Wait(), within=60))
        await world.entered.wait()
        nursery.start_soon(system.stop, ref)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ActorDead, match="is stopping"):
            await ref.ask(GetNotes(), within=60)
        world.gate.set()


# S-209
async def test_a_deferred_reply_fails_when_the_incarnation_dies() -> None:
    world = World()
    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(Scribe(world), on_crash=OnCrash.RESTART)

        async def ask() -> None:
            with pytest.raises(ActorCrashed, match="while it owed the reply to Later"):
                await ref.ask(Later(), within=60)

        nursery.start_soon(ask)
        await world.entered.wait()
        ref.tell(Boom())


# S-205
async def test_an_ask_of_a_killed_actor_fails_as_crashed() -> None:
    world = World()
    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(Scribe(world), on_crash=OnCrash.RESTART)

        async def ask() -> None:
            with pytest.raises(ActorCrashed, match="was killed while it handled Wait"):
                await ref.ask(Wait(), within=60)

        nursery.start_soon(ask)
        await world.entered.wait()
        await system.kill(ref)


# S-210
async def test_an_ask_for_which_there_is_no_handler_says_what_there_is() -> None:
    async with actor_system() as system:
        ref = await system.start(FailableActor())
        with pytest.raises(Unhandled, match="no handler for GetNotes; it handles Crash, Echo, Hang, Swallow"):
            await ref.ask(GetNotes(), within=1)


# S-204
async def test_the_callee_lives_on_after_a_timeout(autojump_clock: trio.testing.MockClock) -> None:
    assert autojump_clock.autojump_threshold == 0
    world = World()
    async with actor_system() as system:
        ref = await system.start(Scribe(world))
        with pytest.raises(AskTimeout, match=r"in within=2 s: being handled for 2\.000 s"):
            await ref.ask(Wait(), within=2)
        assert trio.current_time() == pytest.approx(2)
        world.gate.set()
        assert await ref.ask(GetNotes(), within=1) == ()


# S-203
async def test_a_timeout_in_the_mailbox_says_what_the_callee_was_busy_with(
    autojump_clock: trio.testing.MockClock,
) -> None:
    assert autojump_clock.autojump_threshold == 0
    world = World()
    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(Scribe(world))
        nursery.start_soon(lambda: ref.ask(Wait(), within=60))
        await world.entered.wait()
        await trio.sleep(1)
        with pytest.raises(AskTimeout, match=r"not handled yet .* busy with Wait for 3\.000 s"):
            await ref.ask(GetNotes(), within=2)
        world.gate.set()


# S-203
async def test_a_timeout_before_there_was_room_is_mailbox_full(autojump_clock: trio.testing.MockClock) -> None:
    assert autojump_clock.autojump_threshold == 0
    async with actor_system() as system:
        ref = await system.start(Scribe(), capacity=1)
        ref.tell(Suspend())
        ref.tell(Note(1))
        with pytest.raises(MailboxFull, match="1 of 1 waiting"):
            await ref.ask(GetNotes(), within=2)


# S-213
async def test_an_expired_request_is_dropped_unhandled_and_counted(autojump_clock: trio.testing.MockClock) -> None:
    world = World()
    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(Scribe(world))
        nursery.start_soon(lambda: ref.ask(Wait(), within=60))
        await world.entered.wait()

        # The deadline passes in one jump that the asker has not seen yet when the callee gets to its request.
        async def ask() -> None:
            with pytest.raises(AskTimeout):
                await ref.ask(AskBoom(), within=2)

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        asked = next(each for each in ref.address.asks if each.message == AskBoom())
        asked.deadline = trio.current_time()
        world.gate.set()
        await trio.testing.wait_all_tasks_blocked()
        assert ref.address.expired == 1
        letters = system.services.deadletters.recent()
        assert [(each.actor, each.message, each.reason) for each in letters] == [
            ("scribe", "AskBoom", "its deadline had passed")
        ]
        autojump_clock.jump(2)


# S-214
async def test_a_request_whose_asker_was_cancelled_in_the_mailbox_is_not_handled() -> None:
    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(Scribe(), on_crash=OnCrash.FAIL)
        ref.tell(Suspend())
        nursery.start_soon(lambda: ref.ask(AskBoom(), within=60))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert nursery.cancel_scope.cancelled_caught


# S-222
async def test_a_cancelled_asker_leaves_nothing_behind() -> None:
    world = World()
    async with actor_system() as system:
        ref = await system.start(Scribe(world))
        for _ in range(3):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: ref.ask(Wait(), within=60))
                await trio.testing.wait_all_tasks_blocked()
                assert len(ref.address.asks) == 1
                nursery.cancel_scope.cancel()
            assert ref.address.asks == {}
            world.gate.set()
            await trio.testing.wait_all_tasks_blocked()
            world.gate = trio.Event()
        assert await ref.ask(GetNotes(), within=1) == ()
        assert ref.address.mailbox.statistics().current_buffer_used == 0


# S-208 S-215
async def test_a_reply_to_a_gone_asker_is_dropped_silently() -> None:
    world = World()
    async with actor_system() as system:
        ref = await system.start(Scribe(world))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: ref.ask(Later(), within=60))
            await world.entered.wait()
            nursery.cancel_scope.cancel()
        ref.tell(Open())
        assert await ref.ask(GetNotes(), within=1) == ()


# S-216
async def test_a_reply_that_is_on_its_way_wins_over_the_cancellation() -> None:
    async with actor_system() as system:
        ref = await system.start(FailableActor())
        answers: list[int] = []
        scope = trio.CancelScope()

        async def ask() -> None:
            with scope:
                answers.append(await ref.ask(Echo(3), within=60))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
        assert answers == [3]


# S-211
async def test_the_asks_of_a_handler_are_capped_by_its_messages_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    assert autojump_clock.autojump_threshold == 0
    async with actor_system() as system:
        slow = await system.start(Scribe(), name="slow")
        middle = await system.start(Scribe(), name="middle", on_crash=OnCrash.RESTART)
        begin = trio.current_time()
        with pytest.raises((AskTimeout, ActorCrashed)):
            await middle.ask(AskOther(slow, Wait(), within=60), within=2)
        await system.exited(middle)
        assert trio.current_time() - begin == pytest.approx(2)
        assert "what was left of the deadline of the message being handled" in str(system.exits(middle)[0].error)


# S-211
async def test_a_handlers_ask_with_a_shorter_deadline_keeps_it(autojump_clock: trio.testing.MockClock) -> None:
    assert autojump_clock.autojump_threshold == 0
    async with actor_system() as system:
        slow = await system.start(Scribe(), name="slow")
        middle = await system.start(Scribe(), name="middle", on_crash=OnCrash.RESTART)
        with pytest.raises(ActorCrashed) as caught:
            await middle.ask(AskOther(slow, Wait(), within=1), within=5)
        assert "in within=1 s" in str(caught.value.__cause__)


@attrs.frozen
class StartAsking(Request[str]):
    other: Ref
    inherit: bool


@attrs.define(eq=False)
class Tasker(Actor):
    """Role: asks from a task. Owns nothing. On crash: nothing."""

    world: World

    @handler
    async def start_asking(self, message: StartAsking) -> str:
        self.context.start_task(self._ask, message.other, inherit_deadline=message.inherit)
        return "started"

    async def _ask(self, other: Ref) -> None:
        begin = trio.current_time()
        try:
            await other.ask(Wait(), within=30)
        except AskTimeout:
            self.world.deadlines.append(trio.current_time() - begin)


# S-212
@pytest.mark.parametrize(("inherit", "expected"), [(True, 2), (False, 30)])
async def test_the_asks_of_a_task_are_capped_unless_it_lives_on(
    autojump_clock: trio.testing.MockClock, inherit: bool, expected: float
) -> None:
    assert autojump_clock.autojump_threshold == 0
    world = World()
    async with actor_system() as system:
        slow = await system.start(Scribe(), name="slow")
        tasker = await system.start(Tasker(world))
        assert await tasker.ask(StartAsking(slow, inherit), within=2) == "started"
        await trio.sleep(40)
        assert world.deadlines == [pytest.approx(expected)]


# S-217


@attrs.define
class Lease:
    is_open: bool = True
    label: str = "batch"
    site: str = "db.py:1"

    def note_refused_call(self, error: Exception) -> None:
        """Nobody looks."""


# S-220
async def test_asking_and_sending_with_a_lease_is_refused() -> None:
    async with actor_system() as system:
        ref = await system.start(Scribe())
        lease = Lease()
        current_lease.set(lease)
        with pytest.raises(LeaseHeldAcrossCall, match=r"ask GetNotes to 'scribe' at .*test_ask.py:\d+ .* db.py:1"):
            await ref.ask(GetNotes(), within=1)
        with pytest.raises(LeaseHeldAcrossCall, match="send Note to 'scribe'"):
            await ref.send(Note(1))
        lease.is_open = False
        await ref.send(Note(1))
        assert await ref.ask(GetNotes(), within=1) == (1,)


# S-221
async def test_a_refused_ask_lets_others_run() -> None:
    async with actor_system() as system:
        ref = await system.start(Scribe())
        await system.stop(ref)
        with trio.testing.assert_checkpoints(), pytest.raises(ActorDead):
            await ref.ask(GetNotes(), within=1)


# S-302
async def test_a_control_request_is_answered_by_a_busy_mailbox_first() -> None:
    async with actor_system() as system:
        ref = await system.start(Scribe(), capacity=1)
        ref.tell(Suspend())
        ref.tell(Note(1))
        from runtime.message import Inspect

        state = await ref.ask(Inspect(), within=1)
        assert state["depth"] == 1
        assert state["suspended"] is True


# S-222
async def test_answered_asks_are_not_kept_alive() -> None:
    async with actor_system() as system:
        ref = await system.start(FailableActor())
        await ref.ask(Echo(1), within=1)
        gc.collect()
        assert ref.address.asks == {}
