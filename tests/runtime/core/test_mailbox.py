from __future__ import annotations

import pytest
import trio
import trio.testing

from runtime.core.actor import handler
from runtime.core.mailbox import Overflow
from runtime.errors import ActorDead
from runtime.message import Delivery, Resume, Suspend, WakeUp
from runtime.testing.system import OnCrash, actor_system
from tests.runtime.messages import (
    AskHeld,
    Boom,
    Close,
    GetNotes,
    Held,
    Hint,
    Note,
    Open,
    Scribe,
    Tick,
    Wait,
    World,
)


# S-105
async def test_tell_accepts_until_the_lane_is_full_and_never_waits() -> None:
    world = World()
    async with actor_system() as system:
        ref = await system.start(Scribe(world), capacity=3)
        deliveries = [ref.tell(Note(n)) for n in range(4)]
        assert deliveries == [Delivery.ACCEPTED] * 3 + [Delivery.FULL]
        assert await ref.ask(GetNotes(), within=1) == (0, 1, 2)


# S-301
async def test_the_default_lane_holds_64() -> None:
    async with actor_system() as system:
        ref = await system.start(Scribe())
        assert [ref.tell(Note(n)) for n in range(65)].index(Delivery.FULL) == 64


# S-105
async def test_tell_to_a_stopped_actor_is_dead() -> None:
    async with actor_system() as system:
        ref = await system.start(Scribe())
        await system.stop(ref)
        assert ref.tell(Note(1)) is Delivery.DEAD
        assert ref.tell(Tick(1)) is Delivery.DEAD


# S-106
async def test_the_order_of_one_sender_is_kept() -> None:
    async with actor_system() as system:
        ref = await system.start(Scribe(), capacity=2)
        for n in range(20):
            if n % 3:
                await ref.send(Note(n))
            else:
                while ref.tell(Note(n)) is not Delivery.ACCEPTED:
                    await trio.lowlevel.checkpoint()
        assert await ref.ask(GetNotes(), within=1) == tuple(range(20))


# S-106
async def test_a_tell_does_not_overtake_a_sender_that_waits() -> None:
    world = World()
    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(Scribe(world), capacity=1)
        nursery.start_soon(lambda: ref.ask(Wait(), within=60))
        await world.entered.wait()
        ref.tell(Note(1))
        nursery.start_soon(ref.send, Note(2))
        await trio.testing.wait_all_tasks_blocked()
        assert ref.tell(Note(3)) is Delivery.FULL
        world.gate.set()
        assert await ref.ask(GetNotes(), within=1) == (1, 2)


# S-302
async def test_the_control_lane_is_served_first() -> None:
    world = World()
    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(Scribe(world))
        nursery.start_soon(lambda: ref.ask(Wait(), within=60))
        await world.entered.wait()
        ref.tell(Note(1))
        ref.tell(Note(2))
        ref.tell(Tick(8))
        ref.tell(Tick(9))
        world.gate.set()
        assert await ref.ask(GetNotes(), within=1) == (8, 9, 1, 2)


# S-302
async def test_the_control_lane_goes_ahead_within_a_batch_too() -> None:
    class Nudging(Scribe):
        @handler
        async def note(self, message: Note) -> None:
            self._note(message.number)
            self.context.ref.tell(Tick(-message.number))

    world = World()
    async with actor_system() as system:
        ref = await system.start(Nudging(world))
        for n in (1, 2, 3):
            ref.tell(Note(n))
        assert await ref.ask(GetNotes(), within=1) == (1, -1, 2, -2, 3, -3)


# S-303
async def test_the_control_lane_is_never_full() -> None:
    world = World()
    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(Scribe(world), capacity=1)
        nursery.start_soon(lambda: ref.ask(Wait(), within=60))
        await world.entered.wait()
        assert {ref.tell(Tick(n)) for n in range(1000)} == {Delivery.ACCEPTED}
        world.gate.set()
        assert await ref.ask(GetNotes(), within=5) == tuple(range(1000))


# S-304
async def test_wakeups_that_wait_are_one() -> None:
    async with actor_system() as system:
        probe = await system.probe()
        for _ in range(5):
            assert probe.ref.tell(WakeUp()) is Delivery.ACCEPTED
        await probe.receive(WakeUp)
        assert len(probe.received) == 1
        probe.ref.tell(WakeUp())
        await probe.receive(WakeUp)


# S-310
async def test_a_wakeup_survives_a_restart() -> None:
    async with actor_system() as system:
        ref = await system.start(Scribe(), on_crash=OnCrash.RESTART)
        mailbox = ref.address.mailbox
        ref.tell(Suspend())
        await trio.testing.wait_all_tasks_blocked()
        await system.kill(ref)
        ref.tell(WakeUp())
        assert mailbox.control_waiting == 1


# S-305 S-307
async def test_drop_oldest_makes_room_by_losing_the_oldest_droppable() -> None:
    world = World()
    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(Scribe(world), capacity=3, overflow=Overflow.DROP_OLDEST)
        nursery.start_soon(lambda: ref.ask(Wait(), within=60))
        await world.entered.wait()
        sent = [Note(1), Hint(2), Hint(3), Note(4), Hint(5)]
        assert [ref.tell(message) for message in sent] == [Delivery.ACCEPTED] * 5
        assert ref.address.mailbox.statistics().dropped == 2
        world.gate.set()
        await trio.testing.wait_all_tasks_blocked()
        assert world.notes == [1, 4, 5]


# S-305
async def test_drop_oldest_refuses_when_nothing_that_waits_may_be_lost() -> None:
    world = World()
    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(Scribe(world), capacity=2, overflow=Overflow.DROP_OLDEST)
        nursery.start_soon(lambda: ref.ask(Wait(), within=60))
        await world.entered.wait()
        assert [ref.tell(m) for m in (Note(1), Note(2), Hint(3))] == [Delivery.ACCEPTED] * 2 + [Delivery.FULL]
        world.gate.set()
        assert await ref.ask(GetNotes(), within=1) == (1, 2)


# S-305
async def test_nothing_is_dropped_while_senders_wait_because_their_order_would_be_lost() -> None:
    world = World()
    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(Scribe(world), capacity=2, overflow=Overflow.DROP_OLDEST)
        ref.tell(Suspend())
        await trio.testing.wait_all_tasks_blocked()
        for number in (1, 2):
            ref.tell(Note(number))
        for number in (3, 4):  # nothing could be dropped for them: they wait
            nursery.start_soon(ref.send, Hint(number))
            await trio.testing.wait_all_tasks_blocked()
        assert ref.tell(Note(5)) is Delivery.FULL
        ref.tell(Resume())
        await trio.testing.wait_all_tasks_blocked()
        assert world.notes == [1, 2, 3, 4]


async def test_an_ask_too_makes_room_by_drop_oldest() -> None:
    world = World()
    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(Scribe(world), capacity=2, overflow=Overflow.DROP_OLDEST)
        nursery.start_soon(lambda: ref.ask(Wait(), within=60))
        await world.entered.wait()
        ref.tell(Hint(1))
        ref.tell(Note(2))

        async def open_gate() -> None:
            await trio.testing.wait_all_tasks_blocked()
            world.gate.set()

        nursery.start_soon(open_gate)
        assert await ref.ask(GetNotes(), within=1) == (2,)


# S-306 S-307
async def test_drop_newest_loses_only_droppable_messages() -> None:
    world = World()
    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(Scribe(world), capacity=1, overflow=Overflow.DROP_NEWEST)
        nursery.start_soon(lambda: ref.ask(Wait(), within=60))
        await world.entered.wait()
        ref.tell(Note(1))
        assert ref.tell(Hint(2)) is Delivery.FULL
        await ref.send(Hint(3))  # returns at once: dropped
        assert ref.address.mailbox.statistics().dropped == 2
        nursery.start_soon(ref.send, Note(4))  # waits: may not be dropped
        await trio.testing.wait_all_tasks_blocked()
        assert ref.address.mailbox.statistics().tasks_waiting_send == 1
        world.gate.set()
        assert await ref.ask(GetNotes(), within=1) == (1, 4)


# S-308
async def test_a_suspended_actor_serves_only_the_control_lane() -> None:
    world = World()
    async with actor_system() as system:
        ref = await system.start(Scribe(world))
        ref.tell(Suspend())
        ref.tell(Note(1))
        ref.tell(Tick(2))
        await trio.testing.wait_all_tasks_blocked()
        assert world.notes == [2]
        assert ref.address.inspect()["suspended"] is True
        ref.tell(Resume())
        assert await ref.ask(GetNotes(), within=1) == (2, 1)


# S-308
async def test_being_suspended_survives_a_restart() -> None:
    world = World()
    async with actor_system() as system:
        ref = await system.start(Scribe(world), on_crash=OnCrash.RESTART)
        ref.tell(Suspend())
        ref.tell(Note(1))
        await trio.testing.wait_all_tasks_blocked()
        await system.kill(ref)
        await system.up(ref, 2)
        await trio.testing.wait_all_tasks_blocked()
        assert world.notes == []
        ref.tell(Resume())
        assert await ref.ask(GetNotes(), within=1) == (1,)


# S-107
async def test_send_waits_for_room() -> None:
    world = World()
    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(Scribe(world), capacity=1)
        nursery.start_soon(lambda: ref.ask(Wait(), within=60))
        await world.entered.wait()
        await ref.send(Note(1))
        nursery.start_soon(ref.send, Note(2))
        await trio.testing.wait_all_tasks_blocked()
        assert ref.address.mailbox.statistics().tasks_waiting_send == 1
        world.gate.set()
        assert await ref.ask(GetNotes(), within=1) == (1, 2)


# S-107
async def test_a_cancelled_send_has_not_delivered() -> None:
    world = World()
    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(Scribe(world), capacity=1)
        nursery.start_soon(lambda: ref.ask(Wait(), within=60))
        await world.entered.wait()
        await ref.send(Note(1))
        with trio.CancelScope() as scope:
            nursery.start_soon(trio.testing.wait_all_tasks_blocked)
            scope.cancel()
            await ref.send(Note(2))
        assert scope.cancelled_caught
        async with trio.open_nursery() as inner:
            inner.start_soon(ref.send, Note(3))
            await trio.testing.wait_all_tasks_blocked()
            inner.cancel_scope.cancel()
        assert ref.address.mailbox.statistics().tasks_waiting_send == 0
        world.gate.set()
        assert await ref.ask(GetNotes(), within=1) == (1,)


# S-107
async def test_a_send_that_returns_has_delivered_even_if_it_is_cancelled_then() -> None:
    async with actor_system() as system:
        ref = await system.start(Scribe())
        with trio.CancelScope() as scope:
            await ref.send(Note(1))
            scope.cancel()
        assert await ref.ask(GetNotes(), within=1) == (1,)


# S-108
async def test_at_a_final_stop_each_waiting_sender_is_told_or_its_message_is_a_leftover() -> None:
    world = World()
    async with actor_system() as system:
        ref = await system.start(Scribe(world), capacity=1)
        ref.tell(Suspend())
        await ref.send(Note(0))
        told: list[int] = []

        async def send(number: int) -> None:
            try:
                await ref.send(Note(number))
            except ActorDead as error:
                assert "will not see Note" in str(error)
                told.append(number)

        async with trio.open_nursery() as nursery:
            for number in (1, 2, 3):
                nursery.start_soon(send, number)
                await trio.testing.wait_all_tasks_blocked()
            await system.stop(ref)
        (leftovers,) = world.undelivered
        numbers = [message.number for message in leftovers if isinstance(message, Note)]
        assert told  # there was no room for all of them
        assert sorted(numbers + told) == [0, 1, 2, 3]
        assert numbers == sorted(numbers)


# S-108
async def test_send_to_a_stopped_actor_raises_at_once() -> None:
    async with actor_system() as system:
        ref = await system.start(Scribe())
        await system.stop(ref)
        with pytest.raises(ActorDead, match="is dead"):
            await ref.send(Note(1))


# S-311
async def test_postponed_messages_come_back_in_order_before_those_that_wait() -> None:
    world = World()
    async with actor_system() as system:
        ref = await system.start(Scribe(world))
        for message in (Close(), Held(1), Note(2), Held(3), Open(), Note(4)):
            ref.tell(message)
        assert await ref.ask(GetNotes(), within=1) == (2, 1, 3, 4)


# S-311
async def test_a_postponed_request_is_answered_later() -> None:
    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(Scribe())
        ref.tell(Close())
        answers: list[int] = []

        async def ask() -> None:
            answers.append(await ref.ask(AskHeld(), within=5))

        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        ref.tell(Note(7))
        await trio.testing.wait_all_tasks_blocked()
        assert ref.address.inspect()["postponed"] == 1
        assert answers == []
        ref.tell(Open())
        await trio.testing.wait_all_tasks_blocked()
        assert answers == [1]


# S-311
async def test_postponed_tells_survive_a_restart_in_order() -> None:
    world = World()
    async with actor_system() as system:
        ref = await system.start(Scribe(world), on_crash=OnCrash.RESTART)
        for message in (Close(), Held(1), Held(2), Note(3), Boom(), Note(4)):
            ref.tell(message)
        await system.up(ref, 2)
        assert await ref.ask(GetNotes(), within=1) == (1, 2, 4)


# S-312
async def test_an_actor_that_postpones_without_end_crashes_instead_of_growing() -> None:
    async with actor_system() as system:
        ref = await system.start(Scribe(), capacity=2, on_crash=OnCrash.STOP)
        ref.tell(Close())
        for n in range(3):
            await ref.send(Held(n))
        exit_ = await system.exited(ref)
        assert "2 messages are postponed" in str(exit_.error)


# S-109 S-309
async def test_tells_survive_a_restart_in_order_and_the_crashed_one_is_not_redelivered() -> None:
    world = World()
    async with actor_system() as system:
        ref = await system.start(Scribe(world), on_crash=OnCrash.RESTART)
        for message in (Note(1), Boom(), Note(2), Boom(), Note(3)):
            ref.tell(message)
        await system.up(ref, 3)
        assert await ref.ask(GetNotes(), within=1) == (3,)
        assert world.notes == [1, 2, 3]
        assert [exit_.last_message for exit_ in system.exits(ref)] == ["Boom", "Boom"]


# S-309
async def test_senders_that_wait_over_a_restart_are_delivered_in_order() -> None:
    world = World()
    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(Scribe(world), capacity=2, on_crash=OnCrash.RESTART)
        ref.tell(Suspend())
        await trio.testing.wait_all_tasks_blocked()
        ref.tell(Note(1))
        ref.tell(Note(2))

        async def send_all() -> None:
            for n in (3, 4, 5):
                await ref.send(Note(n))

        nursery.start_soon(send_all)
        await trio.testing.wait_all_tasks_blocked()
        await system.kill(ref)
        await system.kill(ref)
        ref.tell(Resume())
        await trio.testing.wait_all_tasks_blocked()
        assert world.notes == [1, 2, 3, 4, 5]


# S-301
async def test_a_mailbox_has_room_for_at_least_one() -> None:
    async with actor_system() as system:
        with pytest.raises(ValueError, match="at least one"):
            await system.start(Scribe(), capacity=0)
