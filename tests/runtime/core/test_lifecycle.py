"""Promises about the life of an actor that no other test proves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import pytest
import trio
import trio.testing

from runtime.child import ExitReason, StopCause, StopReason
from runtime.core.actor import Actor, handler
from runtime.core.address import Address
from runtime.core.incarnation import StopCutOff
from runtime.core.ref import AT_ONCE_PER_SECOND, AddressState, Ref
from runtime.core.services import Services
from runtime.errors import ActorDead, Killed
from runtime.events import EventBus
from runtime.message import Back, Down, Gone, Inspect, Message, Suspend
from runtime.testing.system import ActorSystem, OnCrash, actor_system
from tests.runtime.messages import AskBoom, Boom, GetNotes, Note, Scribe, Tick, Wait, World


@attrs.define(eq=False)
class Diary:
    """What several incarnations did, in order, and the gates that hold them up."""

    lines: list[str] = attrs.field(factory=list)
    gate: trio.Event = attrs.field(factory=trio.Event)


@attrs.frozen
class StartTask(Message):
    """Start a task that waits at the gate even when it is cancelled, or that crashes."""

    crash: bool = False


@attrs.define(eq=False)
class Diarist(Actor):
    """Role: writes down its life. Owns nothing. On crash: the next incarnation writes on."""

    diary: Diary
    words: list[str]
    waits_in: str = ""
    raises_in: str = ""
    own: list[int] = attrs.field(init=False, factory=list)

    async def _enter(self, hook: str) -> None:
        self.diary.lines.append(f"{hook} {self.context.incarnation}")
        if hook == self.raises_in:
            raise ValueError(hook)
        if hook == self.waits_in:
            await self.diary.gate.wait()
            self.diary.lines.append(f"{hook} done")

    async def on_start(self) -> None:
        await self._enter("on_start")

    async def after_start(self) -> None:
        await self._enter("after_start")

    async def on_stop(self, reason: StopReason) -> None:
        await self._enter("on_stop")

    def on_undelivered(self, messages: Sequence[Message], reason: str) -> None:
        self.diary.lines.append(f"undelivered {[type(message).__name__ for message in messages]}")

    @handler
    async def note(self, message: Note) -> None:
        self.own.append(message.number)
        self.diary.lines.append(f"note {message.number} of {self.own} with {self.words}")

    @handler
    async def boom(self, _: Boom) -> None:
        raise ValueError("boom")

    @handler
    async def begin(self, message: StartTask) -> None:
        self.context.start_task(self._crash if message.crash else self._linger)

    async def _crash(self) -> None:
        raise ValueError("in a task")

    async def _linger(self) -> None:
        with trio.CancelScope(shield=True):
            await self.diary.gate.wait()
        self.diary.lines.append("task done")

    def inspect(self) -> Mapping[str, object]:
        if self.own:
            raise ValueError("cannot be looked at")
        return {}


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


# S-401
async def test_one_message_at_a_time_control_messages_included() -> None:
    world = World()
    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(Scribe(world))
        nursery.start_soon(lambda: ref.ask(Wait(), within=60))
        await world.entered.wait()
        ref.tell(Note(1))
        ref.tell(Tick(2))
        await settle()
        assert world.notes == []
        world.gate.set()
        await settle()
        assert world.notes == [2, 1]


# S-402
async def test_each_incarnation_has_the_same_start_arguments_and_fresh_state() -> None:
    diary = Diary()
    async with actor_system() as system:
        ref = await system.start(Diarist(diary, ["hello"]), on_crash=OnCrash.RESTART)
        for message in (Note(1), Boom(), Note(2)):
            ref.tell(message)
        await system.up(ref, 2)
        await settle()
    assert [line for line in diary.lines if line.startswith("note")] == [
        "note 1 of [1] with ['hello']",
        "note 2 of [2] with ['hello']",
    ]


# S-403
async def test_on_start_then_after_start_then_the_first_message() -> None:
    diary = Diary()
    async with actor_system() as system:
        ref = await system.start(Diarist(diary, [], waits_in="after_start"))
        # `start` has returned: it counts as started, although `after_start` goes on.
        assert ref.address.state is AddressState.UP
        ref.tell(Note(1))
        await settle()
        assert diary.lines == ["on_start 1", "after_start 1"]
        diary.gate.set()
        await settle()
        assert diary.lines[2:] == ["after_start done", "note 1 of [1] with []"]


# S-404
async def test_a_stop_during_after_start_cancels_it_and_on_stop_still_runs() -> None:
    diary = Diary()
    async with actor_system() as system:
        ref = await system.start(Diarist(diary, [], waits_in="after_start"))
        await settle()
        ended = await system.stop(ref)
        assert ended.reason is ExitReason.SHUTDOWN
    assert diary.lines == ["on_start 1", "after_start 1", "on_stop 1"]


# S-405
@pytest.mark.parametrize("how", ["stop", "crash", "kill"])
async def test_on_stop_runs_after_a_stop_and_not_after_a_crash_or_a_kill(how: str) -> None:
    diary = Diary()
    async with actor_system() as system:
        ref = await system.start(Diarist(diary, []), on_crash=OnCrash.STOP)
        match how:
            case "stop":
                await system.stop(ref)
            case "crash":
                ref.tell(Boom())
                await system.exited(ref)
            case _:
                await system.kill(ref)
    assert ("on_stop 1" in diary.lines) is (how == "stop")


# S-405
async def test_on_stop_is_bounded_by_the_deadline_of_the_stop(autojump_clock: trio.testing.MockClock) -> None:
    assert autojump_clock.autojump_threshold == 0
    diary = Diary()
    async with actor_system() as system:
        ref = await system.start(Diarist(diary, [], waits_in="on_stop"))
        began = trio.current_time()
        ended = await system.stop(ref, within=2.0)
        assert trio.current_time() - began == pytest.approx(2.0)
        assert ended.lived == pytest.approx(2.0)
    assert "on_stop done" not in diary.lines


# S-405 S-604
@pytest.mark.parametrize("repeated", [False, True], ids=["its own limit", "an earlier deadline"])
async def test_on_stop_ends_at_the_earliest_of_its_own_limit_and_all_given_deadlines(
    autojump_clock: trio.testing.MockClock, repeated: bool
) -> None:
    assert autojump_clock.autojump_threshold == 0
    services, diary = Services(events=EventBus(log=None)), Diary()
    address = Address("diarist", lambda: Diarist(diary, [], waits_in="on_stop"), services, stop_timeout=50.0)
    async with trio.open_nursery() as nursery:
        await nursery.start(address.run, 1)
        began = trio.current_time()
        address.request_stop(StopReason(StopCause.SHUTDOWN))
        await settle()
        assert diary.lines[-1] == "on_stop 1"
        if repeated:
            await trio.sleep(1)
            address.request_stop(StopReason(StopCause.SHUTDOWN, "hurry", began + 3.0))
            address.request_stop(StopReason(StopCause.SHUTDOWN, "take your time", began + 40.0))
    took = 3.0 if repeated else 50.0
    assert trio.current_time() - began == pytest.approx(took)
    assert services.events.recent() == [StopCutOff("diarist", 1, took)]


# S-405
async def test_on_stop_is_not_interrupted_by_the_crash_of_a_task() -> None:
    diary, crash = Diary(), trio.Event()

    async def fail() -> None:
        await crash.wait()
        raise RuntimeError("in a task")

    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(Diarist(diary, [], waits_in="on_stop"), on_crash=OnCrash.STOP)
        run = ref.address._run
        assert run is not None
        run.start_task(fail, (), None, inherit_deadline=False)
        nursery.start_soon(system.stop, ref)
        await settle()
        crash.set()
        await settle()
        diary.gate.set()
    assert diary.lines[-1] == "on_stop done"


# S-405 S-521
async def test_a_kill_interrupts_on_stop() -> None:
    diary = Diary()
    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(Diarist(diary, [], waits_in="on_stop"), on_crash=OnCrash.STOP)
        nursery.start_soon(system.stop, ref)
        await settle()
        assert diary.lines[-1] == "on_stop 1"
        ended = await system.kill(ref)
        assert ended.reason is ExitReason.KILLED
    assert "on_stop done" not in diary.lines


# S-406
@pytest.mark.parametrize("where", ["after_start", "on_stop", "handler", "task"])
async def test_whatever_a_hook_a_handler_or_a_task_raises_ends_the_incarnation(where: str) -> None:
    async with actor_system() as system:
        ref = await system.start(Diarist(Diary(), [], raises_in=where), on_crash=OnCrash.STOP)
        match where:
            case "on_stop":
                await system.stop(ref)
            case "handler":
                ref.tell(Boom())
            case "task":
                ref.tell(StartTask(crash=True))
        ended = await system.exited(ref)
        assert ended.reason is ExitReason.CRASHED
        assert isinstance(ended.error, ValueError)


# S-407
async def test_an_incarnation_has_ended_only_when_its_tasks_have() -> None:
    diary = Diary()
    async with actor_system() as system:
        ref = await system.start(Diarist(diary, []), on_crash=OnCrash.RESTART)
        ref.tell(StartTask())
        ref.tell(Boom())
        await settle()
        seen = ref.incarnation, system.exits(ref)
        diary.gate.set()
        await system.up(ref, 2)
        assert seen == (1, [])
    assert diary.lines[2:4] == ["task done", "on_start 2"]


# S-207 S-410
async def test_at_the_final_stop_told_messages_are_handed_over_in_order_and_asks_fail() -> None:
    diary = Diary()
    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(Diarist(diary, []), name="diarist")
        ref.tell(Suspend())
        ref.tell(Note(1))
        refused: list[ActorDead] = []

        async def ask() -> None:
            try:
                await ref.ask(AskBoom(), within=60)
            except ActorDead as error:
                refused.append(error)

        nursery.start_soon(ask)
        await settle()
        ref.tell(Boom())
        await system.stop(ref)
        await settle()
        assert diary.lines[-1] == "undelivered ['Note', 'Boom']"
        assert len(refused) == 1
        letters = system.services.deadletters.recent()
        assert [(letter.actor, letter.message) for letter in letters] == [("diarist", "Note"), ("diarist", "Boom")]


@attrs.define(eq=False)
class Watcher(Actor):
    """Role: watches one other actor. Owns nothing. On crash: forgets it."""

    watched: Ref
    downs: list[Down]

    async def on_start(self) -> None:
        self.context.monitor(self.watched)

    @handler
    async def down(self, message: Down) -> None:
        self.downs.append(message)

    @handler
    async def boom(self, _: Boom) -> None:
        raise ValueError("boom")


async def watched(system: ActorSystem) -> Ref:
    return await system.start(Scribe(), name="watched", on_crash=OnCrash.RESTART)


# S-411
async def test_a_monitor_tells_once_who_ended_which_incarnation_and_why() -> None:
    downs: list[Down] = []
    async with actor_system() as system:
        ref = await watched(system)
        ref.tell(Boom())
        await system.up(ref, 2)
        await system.start(Watcher(ref, downs))
        ref.tell(Boom())
        await system.up(ref, 3)
        ref.tell(Boom())
        await system.up(ref, 4)
        await settle()
    assert downs == [Down("watched", 2, "crashed")]


# S-411
async def test_a_monitor_of_an_actor_that_does_not_run_tells_at_once() -> None:
    downs: list[Down] = []
    async with actor_system() as system:
        ref = await watched(system)
        await system.stop(ref)
        await system.start(Watcher(ref, downs))
        await settle()
    assert downs == [Down("watched", 1, "dead")]


@attrs.define(eq=False)
class Follower(Actor):
    """Role: watches one actor over its restarts, or, told `back = False`, watches again on each Down at once."""

    watched: Ref
    seen: list[Message]
    back: bool = True

    async def on_start(self) -> None:
        self.context.monitor(self.watched)
        self.context.monitor(self.watched, when="gone")

    @handler
    async def down(self, message: Down) -> None:
        self.seen.append(message)
        self.context.monitor(self.watched, when="back" if self.back else "down")

    @handler
    async def came_back(self, message: Back) -> None:
        self.seen.append(message)
        self.context.monitor(self.watched)

    @handler
    async def gone(self, message: Gone) -> None:
        self.seen.append(message)


# S-418
async def test_a_monitor_can_wait_until_an_actor_is_back_or_gone_for_good() -> None:
    seen: list[Message] = []
    async with actor_system() as system:
        ref = await watched(system)
        await system.start(Follower(ref, seen))
        for incarnation in (2, 3):
            ref.tell(Boom())
            await system.up(ref, incarnation)
            await settle()
        await system.stop(ref)
        await settle()
        assert ref.address.monitors != {}, "it waits for the next one to serve"
        late: list[Message] = []
        await system.start(Follower(ref, late), name="late")
        await settle()
    assert seen == [
        *(Down("watched", 1, "crashed"), Back("watched", 2)),
        *(Down("watched", 2, "crashed"), Back("watched", 3)),
        *(Down("watched", 3, "shutdown"), Gone("watched", "dead")),
    ]
    assert late == [Down("watched", 3, "dead"), Gone("watched", "dead")]
    assert ref.address.monitors == {}


# S-418
async def test_a_watcher_that_watches_again_on_each_down_does_not_spin(autojump_clock: trio.testing.MockClock) -> None:
    assert autojump_clock.autojump_threshold == 0
    seen: list[Message] = []
    async with actor_system() as system:
        ref = await watched(system)
        await system.stop(ref)
        await system.start(Follower(ref, seen, back=False))
        await trio.sleep(10.5)
        assert AT_ONCE_PER_SECOND <= len(seen) <= 11 * (AT_ONCE_PER_SECOND + 1)


# S-407 S-412
async def test_a_monitor_ends_with_the_incarnation_that_placed_it() -> None:
    downs: list[Down] = []
    async with actor_system() as system:
        ref = await watched(system)
        watcher = await system.start(Watcher(ref, downs), on_crash=OnCrash.RESTART)
        for incarnation in (2, 3):
            watcher.tell(Boom())
            await system.up(watcher, incarnation)
        ref.tell(Boom())
        await system.up(ref, 2)
        await settle()
    assert downs == [Down("watched", 1, "crashed")]


@attrs.define(eq=False)
class Modest(Scribe):
    """Says in its first incarnation that it is not ready."""

    async def on_start(self) -> None:
        if self.context.incarnation == 1:
            self.context.ready(False, "no database")
            self.context.describe(listening="nowhere")


# S-413
async def test_readiness_and_facts_begin_anew_with_each_incarnation() -> None:
    async with actor_system() as system:
        ref = await system.start(Modest(), on_crash=OnCrash.RESTART)
        seen = ref.address.inspect()
        assert (seen["ready"], seen["why_not_ready"], seen["facts"]) == (False, "no database", {"listening": "nowhere"})
        ref.tell(Boom())
        await system.up(ref, 2)
        seen = ref.address.inspect()
        assert (seen["ready"], seen["facts"]) == (True, {})


# S-414
async def test_inspecting_works_while_an_actor_is_stuck_and_never_raises() -> None:
    world, diary = World(), Diary()
    async with actor_system() as system, trio.open_nursery() as nursery:
        stuck = await system.start(Scribe(world), name="stuck")
        nursery.start_soon(lambda: stuck.ask(Wait(), within=60))
        await world.entered.wait()
        seen = stuck.address.inspect()
        assert (seen["handling"], seen["state"], seen["actor"]) == ("Wait", "up", {"notes": []})
        world.gate.set()
        broken = await system.start(Diarist(diary, []), name="broken")
        broken.tell(Note(1))
        answer = await broken.ask(Inspect(), within=1)
        assert answer["name"] == "broken"
        await settle()
        assert broken.address.inspect()["actor"] == {"error": "inspect raised ValueError: cannot be looked at"}
        assert broken.incarnation == 1


# S-415
@pytest.mark.parametrize("point", ["before:Note", "after:Note", "task:linger"])
async def test_an_actor_dies_at_a_failpoint_at_the_visit_it_was_armed_for_and_only_then(point: str) -> None:
    @attrs.define(eq=False)
    class Busy(Scribe):
        @handler
        async def note(self, message: Note) -> None:
            self._note(message.number)
            self.context.start_task(trio.lowlevel.checkpoint, name="linger")

    world = World()
    async with actor_system() as system:
        ref = await system.start(Busy(world), name="busy", on_crash=OnCrash.RESTART)
        system.services.failpoints.arm("busy", point, nth=2)
        system.services.failpoints.arm("somebody else", point)
        for number in (1, 2, 3):
            ref.tell(Note(number))
            await settle()
        assert await ref.ask(GetNotes(), within=1) == (3,)
        [ended] = system.exits(ref)
        assert isinstance(ended.error, Killed)
        assert (ended.error.point, ended.last_message) == (point, "Note")
        assert world.notes == ([1, 3] if point == "before:Note" else [1, 2, 3])
