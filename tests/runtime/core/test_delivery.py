"""Promises about refs, dead letters and mailboxes that no other test proves."""

from __future__ import annotations

import itertools

import attrs
import pytest
import trio
import trio.testing

from runtime.child import ChildSpec, ExitReason, StopCause, StopReason
from runtime.core.actor import handler
from runtime.core.address import Address
from runtime.core.deadletters import KEPT_DEAD_LETTERS, DeadLetters
from runtime.core.ref import AddressState, Ref
from runtime.core.services import Services
from runtime.errors import UnknownActor
from runtime.events import Event
from runtime.message import Delivery, Down, Message, Resume, Stop, Suspend, WakeUp
from runtime.supervision.events import ChildRestarting
from runtime.supervision.supervisor import Supervisor
from runtime.testing.system import OnCrash, actor_system
from tests.runtime.messages import Boom, GetNotes, Note, Scribe, World


@attrs.frozen
class Letter(Message):
    """Nobody handles this."""

    text: str


# S-103
async def test_a_ref_leads_to_whichever_incarnation_runs() -> None:
    async with actor_system() as system:
        ref = await system.start(Scribe(), name="scribe", on_crash=OnCrash.RESTART)
        other = await system.start(Scribe(), name="other")
        found = system.services.registry.lookup("scribe")
        assert (found == ref, hash(found) == hash(ref), ref == other) == (True, True, False)
        assert ref.incarnation == 1
        ref.tell(Boom())
        await system.up(ref, 2)
        assert (ref.incarnation, found.incarnation) == (2, 2)
        ref.tell(Note(1))
        assert await found.ask(GetNotes(), within=1) == (1,)
        assert Address("new", Scribe, system.services).ref.incarnation == 0


# S-104
async def test_an_unknown_name_raises_with_the_nearest_one() -> None:
    async with actor_system() as system:
        await system.start(Scribe(), name="pool.main")
        with pytest.raises(UnknownActor, match=r"'pool\.mian'; did you mean 'pool\.main'\?"):
            system.services.registry.lookup("pool.mian")
        with pytest.raises(UnknownActor, match="no actor is named 'zebra' ") as raised:
            system.services.registry.lookup("zebra")
        assert raised.value.nearest is None


# S-110 S-111
async def test_a_message_without_a_handler_is_a_dead_letter_and_harms_nobody() -> None:
    async with actor_system() as system:
        ref = await system.start(Scribe(), name="scribe")
        assert ref.tell(Letter("the content")) is Delivery.ACCEPTED
        ref.tell(Note(1))
        assert await ref.ask(GetNotes(), within=1) == (1,)
        assert ref.incarnation == 1
        letters = system.services.deadletters
        [letter] = letters.recent()
        assert (letter.actor, letter.message, letter.reason) == ("scribe", "Letter", "Scribe has no handler for it")
        assert "the content" not in repr(letter)
        assert letters.counts() == {("scribe", "Letter"): 1}


# S-111
def test_the_last_1000_dead_letters_are_kept_and_all_are_counted() -> None:
    letters = DeadLetters(clock=lambda: 7.0)
    for number in range(KEPT_DEAD_LETTERS + 5):
        letters.record("a", f"M{number}", "why")
    assert (KEPT_DEAD_LETTERS, letters.total, len(letters.recent())) == (1000, 1005, 1000)
    assert (letters.recent()[0].message, letters.recent(2)[-1].message) == ("M5", "M1004")


# S-112
async def test_what_is_told_while_no_incarnation_runs_is_handled_by_the_next() -> None:
    world = World()
    address = Address("scribe", lambda: Scribe(world), Services())
    assert address.ref.tell(Note(1)) is Delivery.ACCEPTED
    between: list[Delivery] = []

    def emit(event: Event) -> None:
        if isinstance(event, ChildRestarting):
            assert address.state is AddressState.DOWN
            between.append(address.ref.tell(Note(2)))

    supervisor = Supervisor("top", [ChildSpec("scribe", lambda: address)], emit=emit)
    async with trio.open_nursery() as nursery:
        await nursery.start(run, supervisor)
        await trio.testing.wait_all_tasks_blocked()
        assert world.notes == [1]
        address.ref.tell(Boom())
        await trio.testing.wait_all_tasks_blocked()
        assert (address.incarnation, between, world.notes) == (2, [Delivery.ACCEPTED], [1, 2])
        supervisor.request_stop(StopReason(StopCause.SHUTDOWN))


async def run(supervisor: Supervisor, *, task_status: trio.TaskStatus[None]) -> None:
    await supervisor.run(task_status=task_status)


@attrs.define(eq=False)
class Doubtful(Scribe):
    """Sends itself a Stop amid the message that it dies of."""

    @handler
    async def boom(self, _: Boom) -> None:
        self.context.ref.tell(Stop("never mind"))
        raise ValueError("boom")


# S-310
async def test_a_stop_that_the_old_incarnation_did_not_see_does_not_reach_the_next_one() -> None:
    world = World()
    async with actor_system() as system:
        ref = await system.start(Doubtful(world), on_crash=OnCrash.RESTART)
        ref.tell(Boom())
        await trio.testing.wait_all_tasks_blocked()
        assert [exit_.reason for exit_ in system.exits(ref)] == [ExitReason.CRASHED]
        ref.tell(Note(2))
        assert await ref.ask(GetNotes(), within=1) == (2,)
        assert world.stops == []


@attrs.define(eq=False)
class Surprised(Scribe):
    """Watches another, and dies of a Wait after its gate was opened; notes what of its control lane it got to see."""

    watched: Ref = attrs.field(kw_only=True)
    seen: list[tuple[int, str]] = attrs.field(kw_only=True)

    async def on_start(self) -> None:
        if self.context.incarnation == 1:
            self.context.monitor(self.watched)

    @handler
    async def boom(self, _: Boom) -> None:
        self.world.entered.set()
        await self.world.gate.wait()
        raise ValueError("boom")

    @handler
    async def woken(self, _: WakeUp) -> None:
        self.seen.append((self.context.incarnation, "woken"))

    @handler
    async def down(self, _: Down) -> None:
        self.seen.append((self.context.incarnation, "down"))


# S-310
async def test_a_waiting_wakeup_reaches_the_next_incarnation_after_a_crash_a_down_does_not() -> None:
    world, seen = World(), list[tuple[int, str]]()
    async with actor_system() as system:
        watched = await system.start(Scribe(), name="watched", on_crash=OnCrash.STOP)
        ref = await system.start(Surprised(world, watched=watched, seen=seen), on_crash=OnCrash.RESTART)
        ref.tell(Boom())
        await world.entered.wait()
        ref.tell(WakeUp())
        await system.kill(watched)
        assert ref.address.mailbox.statistics().control_buffer_used == 2
        world.gate.set()
        await system.up(ref, 2)
        await trio.testing.wait_all_tasks_blocked()
        assert seen == [(2, "woken")]


# S-313
async def test_an_actor_lets_others_run_after_64_messages_at_the_latest() -> None:
    world = World()
    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(Scribe(world), capacity=1000)
        seen = [0]

        async def look() -> None:
            while seen[-1] < 640:
                await trio.lowlevel.checkpoint()
                seen.append(len(world.notes))

        ref.tell(Suspend())
        await trio.testing.wait_all_tasks_blocked()
        for number in range(640):
            ref.tell(Note(number))
        nursery.start_soon(look)
        ref.tell(Resume())
    steps = [after - before for before, after in itertools.pairwise(seen)]
    # In one turn of the loop trio may run the actor first or last: two batches can follow each other.
    assert max(steps) <= 2 * 64
    assert sum(steps) == 640
