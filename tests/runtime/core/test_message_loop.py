from __future__ import annotations

import itertools

import attrs
import pytest
import trio
import trio.testing

from runtime.core.actor import Actor, handler
from runtime.message import Message
from runtime.testing.system import actor_system


@attrs.frozen
class Crunch(Message):
    """Takes a while of computing."""


@attrs.frozen
class CrunchAndWait(Message):
    """As Crunch, in a handler that contains an await."""


@attrs.define(eq=False)
class Cruncher(Actor):
    """Role: computes without waiting. Owns a count. On crash: nothing."""

    clock: trio.testing.MockClock
    seconds: float
    done: list[float]

    def _crunch(self) -> None:
        self.clock.jump(self.seconds)
        self.done.append(trio.current_time())

    @handler
    async def crunch(self, _: Crunch) -> None:
        self._crunch()

    @handler
    async def crunch_and_wait(self, _: CrunchAndWait) -> None:
        self._crunch()
        if self.seconds < 0:
            await trio.sleep_forever()


class Steps(trio.abc.Instrument):
    """How many messages were handled at the end of each step of any task."""

    def __init__(self, done: list[float]) -> None:
        self.done = done
        self.seen = [0]

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        del task
        if len(self.done) > self.seen[-1]:
            self.seen.append(len(self.done))


async def batches(clock: trio.testing.MockClock, message: Message, seconds: float, count: int) -> list[int]:
    """How many messages are handled before anybody else gets a turn."""
    steps = Steps([])
    async with actor_system() as system:
        ref = await system.start(Cruncher(clock, seconds, steps.done), capacity=count)
        trio.lowlevel.add_instrument(steps)
        for _ in range(count):
            ref.tell(message)
        await trio.testing.wait_all_tasks_blocked()
        trio.lowlevel.remove_instrument(steps)
    return [after - before for before, after in itertools.pairwise(steps.seen)]


async def test_a_batch_ends_after_64_messages(mock_clock: trio.testing.MockClock) -> None:
    assert await batches(mock_clock, Crunch(), 0.0, 200) == [64, 64, 64, 8]


async def test_a_batch_ends_after_a_millisecond(mock_clock: trio.testing.MockClock) -> None:
    assert await batches(mock_clock, CrunchAndWait(), 0.0004, 7) == [3, 3, 1]


async def test_the_clock_is_read_after_every_fourth_handler_that_cannot_wait(
    mock_clock: trio.testing.MockClock,
) -> None:
    assert await batches(mock_clock, Crunch(), 0.0004, 9) == [4, 4, 1]


async def test_busy_actors_shorten_their_batches_until_a_turn_of_the_loop_is_short(
    mock_clock: trio.testing.MockClock,
) -> None:
    done: list[float] = []
    turns: list[float] = []
    async with actor_system() as system:
        for n in range(10):
            ref = await system.start(Cruncher(mock_clock, 0.0002, done), name=f"busy.{n}", capacity=100)
            for _ in range(100):
                ref.tell(Crunch())
        while len(done) < 800:
            began = trio.current_time()
            await trio.lowlevel.checkpoint()
            turns.append(trio.current_time() - began)
        # ten batches of a millisecond each would make it ten
        assert sum(turns[10:]) / len(turns[10:]) < 0.004


async def test_batches_grow_again_when_the_others_are_done(mock_clock: trio.testing.MockClock) -> None:
    steps = Steps([])
    async with actor_system() as system:
        ref = await system.start(Cruncher(mock_clock, 0.0001, steps.done), capacity=200)
        trio.lowlevel.add_instrument(steps)
        for _ in range(150):
            ref.tell(Crunch())
        for _ in range(3):
            await trio.lowlevel.checkpoint()
            mock_clock.jump(0.1)  # somebody else is slow
        await trio.testing.wait_all_tasks_blocked()
        trio.lowlevel.remove_instrument(steps)
    sizes = [after - before for before, after in itertools.pairwise(steps.seen)]
    assert min(sizes[:5]) == 1
    assert max(sizes[5:]) >= 10


@pytest.mark.parametrize("message", [Crunch(), CrunchAndWait()])
async def test_a_long_message_ends_its_batch(mock_clock: trio.testing.MockClock, message: Message) -> None:
    assert max(await batches(mock_clock, message, 5.0, 9)) <= 4


async def test_since_when_a_message_is_handled_is_exact_after_one_that_waited(
    autojump_clock: trio.testing.MockClock,
) -> None:
    assert autojump_clock.autojump_threshold == 0

    @attrs.frozen
    class Nap(Message):
        seconds: float

    @attrs.define(eq=False)
    class Sleeper(Actor):
        """Role: sleeps. Owns nothing. On crash: nothing."""

        @handler
        async def nap(self, message: Nap) -> None:
            await trio.sleep(message.seconds)

    async with actor_system() as system:
        ref = await system.start(Sleeper())
        begin = trio.current_time()
        ref.tell(Nap(30))
        ref.tell(Nap(10))
        await trio.sleep(35)
        assert ref.address.last_activity().handling_since == pytest.approx(begin + 30)
