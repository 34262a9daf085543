"""Actors for the desk's tests: one that crashes with markup in its words, one that waits, many that idle, one that talks."""

from __future__ import annotations

import attrs
import trio

from runtime import Actor, Event, Message, handler

MARKUP = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>"


@attrs.frozen
class Crash(Message):
    """Crash."""


@attrs.frozen
class Wait(Message):
    """Wait for ever."""


@attrs.frozen
class Said(Event):
    """Something with markup in it."""

    text: str

    def line(self) -> str:
        return f"{self.text}"


@attrs.define(eq=False)
class Rogue(Actor):
    """Has markup in everything that it says, and crashes soon after its first start, once."""

    crashes: bool = False
    words: str = MARKUP

    async def on_start(self) -> None:
        self.context.describe(note=self.words)
        self.context.emit(Said(self.context.name, self.words))
        if self.crashes and self.context.incarnation == 1:
            self.context.after(0.2, Crash())

    @handler
    async def crash(self, message: Crash) -> None:
        raise ConnectionError(f"it broke: {self.words}")

    def inspect(self) -> dict[str, object]:
        return {"inside": self.words}


@attrs.define(eq=False)
class Stuck(Actor):
    """Handles one message for ever."""

    async def on_start(self) -> None:
        self.context.ref.tell(Wait())

    @handler
    async def wait(self, message: Wait) -> None:
        await trio.sleep_forever()


@attrs.define(eq=False)
class Idle(Actor):
    """Does nothing."""


@attrs.frozen
class Next(Message):
    """Say more."""


@attrs.define(eq=False)
class Talker(Actor):
    """Emits `events` events, `at_once` at a time, from when it is first told to."""

    events: int = 10_000
    at_once: int = 250
    _said: int = attrs.field(init=False, default=0)

    async def on_start(self) -> None:
        self.context.after(3.0, Next())

    @handler
    async def speak(self, message: Next) -> None:
        for _ in range(self.at_once):
            self._said += 1
            self.context.emit(Said(self.context.name, f"number {self._said}"))
        if self._said < self.events:
            self.context.after(0.02, Next())
