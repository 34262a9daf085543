"""Promises about timers and tasks that no other test proves."""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from runtime.core.actor import Actor, handler
from runtime.core.incarnation import ActorTask
from runtime.core.ref import Ref
from runtime.core.timers import Timer, Timers
from runtime.message import Message, Resume, Stop, Suspend
from runtime.testing.system import OnCrash, actor_system
from tests.runtime.messages import Boom, Note, Tick


def number(timers: Timers, now: float) -> int | None:
    """What the next timer that is due by `now` carries."""
    timer = timers.pop_due(now)
    if timer is None:
        return None
    assert isinstance(timer.message, Note)
    return timer.message.number


# S-701
async def test_they_come_in_the_order_of_their_times_and_at_one_time_as_they_were_set(
    mock_clock: MockClock,
) -> None:
    timers = Timers()
    for seconds, each in ((2.0, 3), (1.0, 1), (1.0, 2), (0.0, 0)):
        timers.add(seconds, Note(each))
    began = trio.current_time()
    assert timers.next_due == began
    assert [number(timers, began + 1.0) for _ in range(4)] == [0, 1, 2, None]
    assert timers.next_due == began + 2.0
    assert number(timers, began + 2.0) == 3
    assert timers.next_due == math.inf


# S-702
async def test_one_that_is_cancelled_is_neither_due_nor_counted(mock_clock: MockClock) -> None:
    timers = Timers()
    first, second = timers.add(1.0, Note(1)), timers.add(2.0, Note(2))
    first.cancel()
    first.cancel()
    assert first.is_cancelled
    assert not second.is_cancelled
    assert len(timers) == 1
    assert timers.next_due == second.due == trio.current_time() + 2.0
    assert number(timers, math.inf) == 2
    second.cancel()  # too late, and harmless
    assert len(timers) == 0


# S-705
@pytest.mark.parametrize("seconds", [-1.0, math.inf, -math.inf, math.nan])
async def test_a_time_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="a timer needs a finite number of seconds from now"):
        Timers().add(seconds, Note(1))


Do = Callable[["Clockwork"], None]


@attrs.frozen
class Run(Message):
    """Let the actor do something."""

    do: Do


@attrs.define(eq=False)
class Clockwork(Actor):
    """Role: sets timers and starts tasks as told. Owns nothing. On crash: they are gone."""

    seen: list[tuple[float, int]]
    timers: list[Timer] = attrs.field(init=False, factory=list)

    @handler
    async def run(self, message: Run) -> None:
        message.do(self)

    @handler
    async def note(self, message: Note) -> None:
        self.seen.append((trio.current_time(), message.number))

    @handler
    async def tick(self, message: Tick) -> None:
        self.seen.append((trio.current_time(), message.number))

    @handler
    async def boom(self, _: Boom) -> None:
        raise ValueError("boom")

    def after(self, seconds: float, number: int) -> None:
        self.timers.append(self.context.after(seconds, Note(number)))


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def pass_time(clock: trio.testing.MockClock, seconds: float) -> None:
    clock.jump(seconds)
    await settle()


def numbers(seen: list[tuple[float, int]]) -> list[int]:
    return [number for _, number in seen]


# S-701
async def test_timers_come_when_due_in_the_order_of_due_times(autojump_clock: trio.testing.MockClock) -> None:
    seen: list[tuple[float, int]] = []
    async with actor_system() as system:
        ref = await system.start(Clockwork(seen))
        began = trio.current_time()

        def set_all(actor: Clockwork) -> None:
            for seconds, number in ((3.0, 3), (1.0, 1), (2.0, 2)):
                actor.after(seconds, number)

        ref.tell(Run(set_all))
        with trio.move_on_at(began + 5):
            await trio.sleep_forever()
    assert seen == [(began + 1, 1), (began + 2, 2), (began + 3, 3)]
    assert autojump_clock.autojump_threshold == 0


# S-701
async def test_a_due_timer_goes_ahead_of_what_waits_even_with_a_full_mailbox(
    mock_clock: trio.testing.MockClock,
) -> None:
    seen: list[tuple[float, int]] = []
    async with actor_system() as system:
        ref = await system.start(Clockwork(seen), capacity=2)
        ref.tell(Run(lambda actor: actor.after(1.0, 9)))
        await settle()
        mock_clock.jump(2.0)
        ref.tell(Note(1))
        ref.tell(Note(2))
        assert ref.tell(Note(3)).value == "full"
        await settle()
        assert numbers(seen) == [9, 1, 2]


# S-716
async def test_a_due_timer_goes_ahead_of_a_control_message_and_that_ahead_of_the_user_lane(
    mock_clock: trio.testing.MockClock,
) -> None:
    seen: list[tuple[float, int]] = []
    async with actor_system() as system:
        ref = await system.start(Clockwork(seen))
        ref.tell(Run(lambda actor: actor.after(1.0, 8)))
        ref.tell(Run(lambda actor: actor.after(0.5, 7)))
        await settle()
        mock_clock.jump(2.0)
        ref.tell(Note(2))
        ref.tell(Tick(1))
        await settle()
    assert numbers(seen) == [7, 8, 1, 2]


# S-716
async def test_a_stop_by_the_supervisor_goes_ahead_of_due_timers_and_a_told_stop_does_not(
    mock_clock: trio.testing.MockClock,
) -> None:
    for told, expected in ((True, [7]), (False, [])):
        seen: list[tuple[float, int]] = []
        async with actor_system() as system:
            ref = await system.start(Clockwork(seen))
            ref.tell(Run(lambda actor: actor.after(1.0, 7)))
            await settle()
            mock_clock.jump(2.0)
            if told:
                ref.tell(Stop())
                await system.exited(ref)
            else:
                await system.stop(ref)
        assert numbers(seen) == expected


# S-702
async def test_a_cancelled_timer_never_comes(mock_clock: trio.testing.MockClock) -> None:
    seen: list[tuple[float, int]] = []
    async with actor_system() as system:
        ref = await system.start(Clockwork(seen))

        def set_and_cancel(actor: Clockwork) -> None:
            actor.after(1.0, 1)
            actor.after(1.0, 2)
            actor.timers[0].cancel()
            actor.timers[0].cancel()

        ref.tell(Run(set_and_cancel))
        await settle()
        assert ref.address.inspect()["timers"] == 1
        await pass_time(mock_clock, 2.0)
        assert numbers(seen) == [2]


# S-407 S-702
async def test_a_timer_dies_with_its_incarnation(mock_clock: trio.testing.MockClock) -> None:
    seen: list[tuple[float, int]] = []
    async with actor_system() as system:
        ref = await system.start(Clockwork(seen), on_crash=OnCrash.RESTART)
        ref.tell(Run(lambda actor: actor.after(1.0, 1)))
        ref.tell(Boom())
        await system.up(ref, 2)
        await pass_time(mock_clock, 2.0)
        ref.tell(Note(2))
        await settle()
        assert numbers(seen) == [2]


# S-703
async def test_the_timers_of_a_suspended_actor_wait(mock_clock: trio.testing.MockClock) -> None:
    seen: list[tuple[float, int]] = []
    async with actor_system() as system:
        ref = await system.start(Clockwork(seen))
        ref.tell(Run(lambda actor: actor.after(1.0, 1)))
        await settle()
        ref.tell(Suspend())
        await settle()
        await pass_time(mock_clock, 5.0)
        ref.tell(Suspend())  # a control message wakes it, and it sees that the timer is due
        await settle()
        assert seen == []
        ref.tell(Resume())
        await settle()
        assert numbers(seen) == [1]


# S-704
async def test_a_timer_of_zero_seconds_that_sets_itself_again_lets_others_run(
    mock_clock: trio.testing.MockClock,
) -> None:
    fired = 0

    def again(actor: Clockwork) -> None:
        nonlocal fired
        fired += 1
        # So that a runtime that breaks the promise fails this test instead of hanging it.
        assert fired < 10_000, "nobody else was let run"
        actor.context.after(0.0, Run(again))

    seen: list[tuple[float, int]] = []
    async with actor_system() as system:
        ref = await system.start(Clockwork(seen))
        ref.tell(Run(again))
        turns = 0
        while fired < 500:
            await trio.lowlevel.checkpoint()
            turns += 1
        assert turns >= 500 // 64 // 2
        ref.tell(Note(1))
        while not seen:
            await trio.lowlevel.checkpoint()
    assert mock_clock.rate == 0


# S-705
@pytest.mark.parametrize("seconds", [-1.0, math.inf, math.nan])
async def test_a_timer_needs_a_finite_time_from_now(seconds: float) -> None:
    errors: list[str] = []

    def set_wrong(actor: Clockwork) -> None:
        with pytest.raises(ValueError, match="finite number of seconds") as raised:
            actor.after(seconds, 1)
        errors.append(str(raised.value))

    async with actor_system() as system:
        ref = await system.start(Clockwork([]))
        ref.tell(Run(set_wrong))
        await settle()
    assert len(errors) == 1


async def start(ref: Ref, function: Callable[[], object]) -> ActorTask:
    tasks: list[ActorTask] = []
    ref.tell(Run(lambda actor: tasks.append(actor.context.start_task(function, name="work"))))  # type: ignore[arg-type]  # any coroutine function
    await settle()
    return tasks[0]


# S-706
async def test_a_task_runs_beside_the_messages_and_its_cancellation_is_no_crash() -> None:
    seen: list[tuple[float, int]] = []
    async with actor_system() as system:
        ref = await system.start(Clockwork(seen))
        task = await start(ref, trio.sleep_forever)
        ref.tell(Note(1))
        await settle()
        assert (numbers(seen), task.is_done) == ([1], False)
        task.cancel()
        await task.wait()
        await settle()
        assert ref.incarnation == 1


# S-706
async def test_the_crash_of_a_task_crashes_its_actor_and_waiting_for_it_does_not_raise() -> None:
    gate = trio.Event()

    async def crash() -> None:
        await gate.wait()
        raise ValueError("in a task")

    async with actor_system() as system:
        ref = await system.start(Clockwork([]), on_crash=OnCrash.RESTART)
        task = await start(ref, crash)
        gate.set()
        await task.wait()
        await settle()
        assert ref.incarnation == 2
        [ended] = system.exits(ref)
        assert str(ended.error) == "in a task"


# S-1211
async def test_a_periodic_timer_keeps_its_step_and_does_not_come_in_a_burst(mock_clock: MockClock) -> None:
    timers = Timers()
    began = trio.current_time()
    timer = timers.add(1.0, Note(1), period=10.0)
    assert [number(timers, began + at) for at in (1.0, 10.9, 11.0, 45.0, 50.9, 51.0)] == [1, None, 1, 1, None, 1]
    timer.cancel()
    assert (number(timers, began + 100.0), len(timers)) == (None, 0)


# S-1211
async def test_an_actor_is_told_every_so_often_until_it_cancels(mock_clock: MockClock) -> None:
    log: list[int] = []
    async with actor_system() as system:
        await system.start(Clock(log))
        for _ in range(5):
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(2.0)
        await trio.testing.wait_all_tasks_blocked()
    assert log == [0, 1, 2]


@attrs.define(eq=False)
class Clock(Actor):
    log: list[int]

    async def on_start(self) -> None:
        with pytest.raises(ValueError, match="a period must be"):
            self.context.every(0.0, Tick(0))
        self.context.every(2.0, Tick(0), first=0.0, key="clock")

    @handler
    async def tick(self, _: Tick) -> None:
        self.log.append(len(self.log))
        if len(self.log) == 3:
            assert self.context.cancel_timer("clock")
            assert not self.context.cancel_timer("clock")


# S-1212
async def test_a_timer_takes_the_place_of_the_one_with_its_key(mock_clock: MockClock) -> None:
    timers = Timers()
    began = trio.current_time()
    timers.add(1.0, Note(1), key="retry")
    timers.add(5.0, Note(2), key="retry")
    timers.add(2.0, Note(3), key="other")
    assert [number(timers, began + 9.0) for _ in range(3)] == [3, 2, None]
    assert not timers.cancel("retry"), "it has been"


# S-1212
async def test_keys_that_never_come_again_are_not_kept(mock_clock: MockClock) -> None:
    timers = Timers()
    for each in range(1000):
        timers.add(0.0, Note(each), key=each)
        timers.pop_due(trio.current_time())
    assert timers._keyed is not None
    assert len(timers._keyed) < 20
