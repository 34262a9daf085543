"""Messages and a small actor that the tests of messaging share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import trio

from runtime.child import StopReason
from runtime.core.actor import Actor, handler
from runtime.core.ask import Deferred
from runtime.core.ref import Ref
from runtime.message import POSTPONE, Control, Message, Postponed, Request


@attrs.frozen
class Note(Message):
    """Remember this."""

    number: int


@attrs.frozen
class Hint(Message):
    """As Note, but an overflowing mailbox may lose it."""

    droppable = True
    number: int = 0


@attrs.frozen
class Tick(Control):
    """As Note, in the control lane."""

    number: int


@attrs.frozen
class GetNotes(Request[tuple[int, ...]]):
    """What this incarnation has handled, in order."""


@attrs.frozen
class Wait(Request[str]):
    """Handled until the gate opens."""


@attrs.frozen
class Later(Request[str]):
    """Answered by `Open`, later."""


@attrs.frozen
class Boom(Message):
    """The handler raises."""


@attrs.frozen
class AskBoom(Request[int]):
    """The handler raises."""


@attrs.frozen
class AskOther(Request[str]):
    """The handler asks another actor `message` and answers what happened."""

    other: Ref
    message: Request[str]
    within: float = 5.0


@attrs.frozen
class Close(Message):
    """Postpone every Held from now on."""


@attrs.frozen
class Open(Message):
    """Handle what was postponed."""


@attrs.frozen
class Held(Message):
    """A Note that waits for `Open`."""

    number: int


@attrs.frozen
class AskHeld(Request[int]):
    """A Held that is asked."""


@attrs.define(eq=False)
class World:
    """What tests and incarnations share: a gate, and what was seen."""

    gate: trio.Event = attrs.field(factory=trio.Event)
    entered: trio.Event = attrs.field(factory=trio.Event)
    """A handler waits at the gate."""
    undelivered: list[tuple[Message, ...]] = attrs.field(factory=list)
    stops: list[StopReason] = attrs.field(factory=list)
    notes: list[int] = attrs.field(factory=list)
    """Over all incarnations."""
    cancelled: int = 0
    """Handlers interrupted at the gate."""
    deadlines: list[float] = attrs.field(factory=list)


@attrs.define(eq=False)
class Scribe(Actor):
    """Role: handles every message of the tests. Owns notes. On crash: forgets them."""

    world: World = attrs.field(factory=World)
    notes: list[int] = attrs.field(init=False, factory=list)
    closed: bool = attrs.field(init=False, default=False)
    owed: list[Deferred[str]] = attrs.field(init=False, factory=list)

    def _note(self, number: int) -> None:
        self.notes.append(number)
        self.world.notes.append(number)

    @handler
    async def note(self, message: Note) -> None:
        self._note(message.number)

    @handler
    async def hint(self, message: Hint) -> None:
        self._note(message.number)

    @handler
    async def tick(self, message: Tick) -> None:
        self._note(message.number)

    @handler
    async def get(self, _: GetNotes) -> tuple[int, ...]:
        return tuple(self.notes)

    @handler
    async def wait(self, _: Wait) -> str:
        self.world.entered.set()
        try:
            await self.world.gate.wait()
        except trio.Cancelled:
            self.world.cancelled += 1
            raise
        return "waited"

    @handler
    async def later(self, message: Later) -> Deferred[str]:
        deferred = self.context.defer(message)
        self.owed.append(deferred)
        self.world.entered.set()
        return deferred

    @handler
    async def boom(self, _: Boom) -> None:
        raise ValueError("boom")

    @handler
    async def ask_boom(self, _: AskBoom) -> int:
        raise ValueError("boom")

    @handler
    async def ask_other(self, message: AskOther) -> str:
        return await message.other.ask(message.message, within=message.within)

    @handler
    async def close(self, _: Close) -> None:
        self.closed = True

    @handler
    async def open(self, _: Open) -> None:
        self.closed = False
        self.context.unpostpone()
        for deferred in self.owed:
            deferred.reply("later")
        self.owed.clear()

    @handler
    async def held(self, message: Held) -> Postponed | None:
        if self.closed:
            return POSTPONE
        self._note(message.number)
        return None

    @handler
    async def ask_held(self, _: AskHeld) -> int | Postponed:
        return POSTPONE if self.closed else len(self.notes)

    async def on_stop(self, reason: StopReason) -> None:
        self.world.stops.append(reason)

    def on_undelivered(self, messages: Sequence[Message], reason: str) -> None:
        del reason
        self.world.undelivered.append(tuple(messages))

    def inspect(self) -> Mapping[str, object]:
        return {"notes": list(self.notes)}
