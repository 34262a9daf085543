"""Actors that stand in for others, and one that misbehaves in every way, for tests. Names are exported by `testing`."""

from __future__ import annotations

from typing import ClassVar, TypeVar

import attrs
import trio

from runtime.core.actor import Actor, Handler, handler
from runtime.core.ref import Ref
from runtime.errors import AtlasError
from runtime.message import Inspect, Message, Request, Resume, Stop, Suspend

R = TypeVar("R")
M = TypeVar("M", bound=Message)


class Probe:
    """A place for messages: stands in for any receiver, records what it gets, and lets a test wait for it.

    Made by `ActorSystem.probe`. It takes every type of message; requests are answered as `answer` says, with None otherwise.
    """

    def __init__(self) -> None:
        self.received: list[Message] = []
        """Everything so far, oldest first."""
        self.ref: Ref
        self._answers: dict[type[Message], object] = {}
        self._seen = 0
        self._more = trio.Event()

    def answer(self, kind: type[Request[R]], value: R) -> None:
        """Answer requests of this type with this value from now on."""
        self._answers[kind] = value

    async def receive(self, kind: type[M]) -> M:
        """Wait for the next message that no `receive` has returned yet; AssertionError if it is of another type."""
        while len(self.received) <= self._seen:
            await self._more.wait()
        message = self.received[self._seen]
        self._seen += 1
        assert isinstance(message, kind), f"expected {kind.__name__} next, got {message!r}"
        return message

    def record(self, message: Message) -> object:
        """For the probe's actor: it got this; returns the reply."""
        self.received.append(message)
        self._more.set()
        self._more = trio.Event()
        return self._answers.get(type(message))


class _AnyHandler(dict[type[Message], Handler]):
    """A table that has a handler for every type of message but those that the runtime handles itself."""

    def get(self, kind: object, _: object = None) -> Handler | None:  # type: ignore[override]  # narrower on purpose
        wanted = isinstance(kind, type) and issubclass(kind, Message) and kind not in (Stop, Suspend, Resume, Inspect)
        return ProbeActor.record if wanted else None


@attrs.define(eq=False)
class ProbeActor(Actor):
    """Role: hands everything it gets to its Probe. Owns nothing. On crash: loses nothing."""

    probe: Probe

    async def record(self, message: Message) -> object:
        return self.probe.record(message)


ProbeActor.handlers = _AnyHandler()


@attrs.frozen
class Crash(Message):
    """Raise."""

    text: str = "told to crash"


@attrs.frozen
class Hang(Message):
    """Handle this for ever, until interrupted."""


@attrs.frozen
class Swallow(Message):
    """Handle this until `Failable.release`, whatever interrupts."""


@attrs.frozen
class Echo(Request[int]):
    """Answered with the same number."""

    number: int = 0


class FailableError(AtlasError):
    """What a FailableActor raises."""


@attrs.define(eq=False)
class Failable:
    """What a FailableActor does wrong by itself, and what was seen of it. Given to it as a start argument, so that it
    outlives the incarnations.
    """

    fail_starts: int = 0
    """How many of the next starts fail."""
    starts: int = attrs.field(init=False, default=0)
    running: int = attrs.field(init=False, default=0)
    """Incarnations that run now; a second one at the same time is an AssertionError."""
    handled: list[Message] = attrs.field(init=False, factory=list)
    """Over all incarnations."""
    busy: trio.Event = attrs.field(init=False, factory=trio.Event)
    """Set while it hangs or swallows."""
    _released: trio.Event = attrs.field(init=False, factory=trio.Event)

    def release(self) -> None:
        """Let Swallow end."""
        self._released.set()

    async def released(self) -> None:
        """For the actor: wait for `release`, deaf to cancellation."""
        with trio.CancelScope(shield=True):
            await self._released.wait()


@attrs.define(eq=False)
class FailableActor(Actor):
    """Role: does as it is told, all of it bad. Owns nothing. On crash: that is what it is for.

    Receives Crash, Hang, Swallow, Echo. Detonates (AssertionError) if two incarnations ever run at once.
    """

    plan: Failable = attrs.field(factory=Failable)
    twice: ClassVar[str] = "two incarnations of one actor ran at the same time"

    async def on_start(self) -> None:
        """Fail if planned."""
        self.plan.starts += 1
        assert not self.plan.running, self.twice
        if self.plan.fail_starts > 0:
            self.plan.fail_starts -= 1
            raise FailableError(f"start {self.plan.starts} was planned to fail")
        self.plan.running += 1
        self.context.start_task(self._count)

    async def _count(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.plan.running -= 1

    @handler
    async def crash(self, message: Crash) -> None:
        """Raise."""
        self.plan.handled.append(message)
        raise FailableError(message.text)

    @handler
    async def hang(self, message: Hang) -> None:
        """Wait for ever."""
        self.plan.handled.append(message)
        self.plan.busy.set()
        await trio.sleep_forever()

    @handler
    async def swallow(self, message: Swallow) -> None:
        """Wait for release only."""
        self.plan.handled.append(message)
        self.plan.busy.set()
        await self.plan.released()

    @handler
    async def echo(self, message: Echo) -> int:
        """Answer."""
        self.plan.handled.append(message)
        return message.number
