"""What a mailbox tells about itself: depth, peak, who waits, and for how long."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from runtime.core.mailbox import Arrivals
from runtime.message import Resume, Suspend
from runtime.testing.system import actor_system
from tests.runtime.messages import Close, GetNotes, Held, Note, Scribe, Wait, World


def test_a_message_came_when_the_last_mark_before_it_was_set() -> None:
    arrivals = Arrivals(limit=10)
    for position, time in ((1, 10.0), (4, 20.0), (5, 30.0)):
        arrivals.mark(position, time)
    assert [arrivals.since(first) for first in (1, 2, 3, 4, 5, 6)] == [10.0, 10.0, 10.0, 20.0, 30.0, 30.0]


def test_the_marks_of_what_no_longer_waits_are_forgotten() -> None:
    arrivals = Arrivals(limit=3)
    fullness = []
    for position in (1, 2, 3):
        fullness.append(arrivals.is_full)
        arrivals.mark(position, float(position))
    fullness.append(arrivals.is_full)
    arrivals.forget_before(3)
    fullness.append(arrivals.is_full)
    assert fullness == [False, False, False, True, False]
    assert arrivals.since(3) == 3.0


def test_the_last_mark_is_never_forgotten() -> None:
    arrivals = Arrivals(limit=3)
    arrivals.mark(1, 5.0)
    arrivals.forget_before(100)
    assert arrivals.since(100) == 5.0


# S-314
async def test_oldest_age_is_that_of_the_oldest_message_that_waits(autojump_clock: trio.testing.MockClock) -> None:
    assert autojump_clock.autojump_threshold == 0
    world = World()
    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(Scribe(world))
        nursery.start_soon(lambda: ref.ask(Wait(), within=600))
        await world.entered.wait()
        mailbox = ref.address.mailbox
        assert mailbox.statistics().oldest_age == 0
        await trio.sleep(10)
        ref.tell(Note(1))
        await trio.sleep(20)
        ref.tell(Note(2))
        await trio.sleep(3)
        assert mailbox.statistics().oldest_age == pytest.approx(23)
        ref.tell(Close())
        ref.tell(Held(3))
        world.gate.set()
        await trio.testing.wait_all_tasks_blocked()
        assert mailbox.statistics().oldest_age == 0
        ref.tell(Suspend())
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(5)
        ref.tell(Note(4))
        await trio.sleep(5)
        ref.tell(Note(5))
        await trio.sleep(1)
        assert mailbox.statistics().oldest_age == pytest.approx(6)


async def test_the_age_of_a_second_message_is_its_own(autojump_clock: trio.testing.MockClock) -> None:
    assert autojump_clock.autojump_threshold == 0
    world = World()
    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(Scribe(world))
        # a burst in one turn of the loop, of which the first keeps the actor busy
        nursery.start_soon(lambda: ref.ask(Wait(), within=600))
        await world.entered.wait()
        nursery.start_soon(lambda: ref.ask(Wait(), within=600))
        await trio.sleep(7)
        ref.tell(Note(1))
        await trio.sleep(2)
        assert ref.address.mailbox.statistics().oldest_age == pytest.approx(9)
        gate, world.gate, world.entered = world.gate, trio.Event(), trio.Event()
        gate.set()
        await world.entered.wait()
        assert ref.address.mailbox.statistics().oldest_age == pytest.approx(2)
        world.gate.set()


# S-314
async def test_statistics_show_depth_peak_and_waiting_senders() -> None:
    world = World()
    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(Scribe(world), capacity=4)
        ref.tell(Suspend())
        await trio.testing.wait_all_tasks_blocked()
        for n in range(4):
            ref.tell(Note(n))
        nursery.start_soon(ref.send, Note(4))
        await trio.testing.wait_all_tasks_blocked()
        now = ref.address.mailbox.statistics()
        assert (now.current_buffer_used, now.peak_buffer_used, now.max_buffer_size) == (4, 4, 4)
        assert now.tasks_waiting_send == 1
        ref.tell(Resume())
        await ref.ask(GetNotes(), within=1)
        now = ref.address.mailbox.statistics()
        assert (now.current_buffer_used, now.peak_buffer_used) == (0, 4)
