from __future__ import annotations

from collections.abc import Sequence

import attrs
import trio
import trio.testing

from runtime.core.actor import Actor, handler
from runtime.core.mailbox import Overflow
from runtime.core.ref import Ref
from runtime.correlation import correlated, correlation_id, new_correlation_id
from runtime.events import Event
from runtime.message import POSTPONE, Control, Delivery, Message, Postponed, Request, Resume, Suspend, WakeUp
from runtime.redaction import redact
from runtime.testing.system import OnCrash, actor_system


def test_an_id_is_carried_inside_and_gone_outside() -> None:
    with correlated("outer") as outer:
        assert outer == correlation_id.get() == "outer"
        with correlated() as inner:
            assert correlation_id.get() == inner != "outer"
        assert correlation_id.get() == "outer"
    assert correlation_id.get() == ""


async def test_tasks_started_inside_inherit_it() -> None:
    seen: list[str] = []

    async def child() -> None:
        seen.append(correlation_id.get())

    async with trio.open_nursery() as nursery:
        with correlated("c1"):
            nursery.start_soon(child)
    assert seen == ["c1"]


def test_ids_differ_and_redaction_leaves_them_alone() -> None:
    first, second = new_correlation_id(), new_correlation_id()
    assert first != second
    assert redact(f"correlation={first}") == f"correlation={first}"


@attrs.frozen
class Hear(Message):
    """Say under which correlation id this is handled; passed on to `then`, if anybody."""

    then: Ref | None = None
    droppable = True


@attrs.frozen
class HearAsked(Request[str]):
    """The same, asked."""


@attrs.frozen
class HearUrgent(Control):
    """The same, in the control lane."""


@attrs.frozen
class Heard(Event):
    """What an actor emits amid a handler."""


@attrs.define(eq=False)
class Listener(Actor):
    """Notes the correlation id of everything that it handles."""

    heard: list[str]
    left: list[Message]
    is_open: bool = True

    def _note(self) -> None:
        self.heard.append(correlation_id.get())
        self.context.emit(Heard(self.context.name))

    @handler
    async def hear(self, message: Hear) -> Postponed | None:
        if not self.is_open and self.context.incarnation == 1:
            return POSTPONE
        self._note()
        if message.then is not None:
            message.then.tell(Hear())
        return None

    @handler
    async def hear_urgent(self, _: HearUrgent) -> None:
        await trio.lowlevel.checkpoint()
        self._note()

    @handler
    async def hear_asked(self, _: HearAsked) -> str:
        task = self.context.start_task(self.later)
        await task.wait()
        self.context.after(0, Hear())
        return correlation_id.get()

    async def later(self) -> None:
        self._note()

    @handler
    async def wake_up(self, _: WakeUp) -> None:
        self._note()

    def on_undelivered(self, messages: Sequence[Message], reason: str) -> None:
        self.left.extend(messages)


def listener(**settings: bool) -> Listener:
    return Listener([], [], **settings)


# S-315
async def test_a_message_sent_under_a_correlation_id_is_handled_under_it_and_passes_it_on() -> None:
    first, second = listener(), listener()
    async with actor_system() as system:
        one, two = await system.start(first, name="one"), await system.start(second, name="two")
        one.tell(Hear())
        with correlated("c1"):
            one.tell(Hear(then=two))
            one.tell(HearUrgent())
            await one.send(Hear())
        await trio.testing.wait_all_tasks_blocked()
        with correlated("c2"):
            assert await two.ask(HearAsked(), within=1) == "c2"
        one.tell(Hear())
        assert await one.ask(HearAsked(), within=1) == ""
        await trio.testing.wait_all_tasks_blocked()
    assert first.heard == ["c1", "", "c1", "c1", "", "", ""], "the control lane first; a timer carries none"
    assert second.heard == ["c1", "c2", ""], "its task inherited the id, its timer did not"


# S-315
async def test_events_inside_a_handler_carry_the_id_of_its_message() -> None:
    async with actor_system() as system:
        ref = await system.start(listener())
        with correlated("c1"):
            ref.tell(Hear())
        ref.tell(Hear())
        await trio.testing.wait_all_tasks_blocked()
        records = system.services.events.records()
    assert [record.correlation for record in records if isinstance(record.event, Heard)] == ["c1", ""]


# S-315
async def test_the_id_survives_a_postponement_a_restart_and_a_wait_for_room() -> None:
    actor = listener(is_open=False)
    async with actor_system() as system:
        ref = await system.start(actor, capacity=2, on_crash=OnCrash.RESTART)
        for number in (1, 2):
            with correlated(f"c{number}"):
                ref.tell(Hear())
        await trio.testing.wait_all_tasks_blocked()
        ref.tell(Suspend())
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            for number in (3, 4, 5):
                with correlated(f"c{number}"):
                    nursery.start_soon(ref.send, Hear())
                await trio.testing.wait_all_tasks_blocked()
            assert actor.heard == []
            await system.kill(ref)
            ref.tell(Resume())
        await trio.testing.wait_all_tasks_blocked()
    assert actor.heard == ["c1", "c2", "c3", "c4", "c5"]


async def test_a_wake_up_that_may_stand_for_several_belongs_to_nobodys_request() -> None:
    actor = listener()
    async with actor_system() as system:
        ref = await system.start(actor)
        with correlated("c1"):
            ref.tell(WakeUp())
            ref.tell(WakeUp())
        await trio.testing.wait_all_tasks_blocked()
    assert actor.heard == [""]


async def test_an_incarnation_begins_without_a_correlation_id_whoever_started_it() -> None:
    actor = listener()
    async with actor_system() as system:
        with correlated("c1"):
            ref = await system.start(actor)
        ref.tell(Hear())
        await trio.testing.wait_all_tasks_blocked()
    assert actor.heard == [""]


async def test_what_is_dropped_or_left_over_is_the_message_itself() -> None:
    actor = listener()
    async with actor_system() as system:
        ref = await system.start(actor, capacity=2, overflow=Overflow.DROP_OLDEST)
        ref.tell(Suspend())
        await trio.testing.wait_all_tasks_blocked()
        with correlated("c1"):
            told = [Hear(), Hear(then=ref), Hear()]
            assert [ref.tell(message) for message in told] == [Delivery.ACCEPTED] * 3
        assert ref.address.mailbox.dropped == 1
        await system.stop(ref)
        assert [letter.message for letter in system.services.deadletters.recent()] == ["Hear", "Hear"]
    assert actor.left == told[1:]
