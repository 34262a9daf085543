"""Small actors that the tests of `atlas run` declare in their configurations."""

from __future__ import annotations

import time
from collections.abc import Mapping

import attrs
import trio

from runtime.child import StopReason
from runtime.config import Secret
from runtime.core.actor import Actor, handler
from runtime.core.iteration_budget import Budget
from runtime.core.worker import Iteration, PeriodicWorker
from runtime.errors import Fatal, Ignore, StartRefused
from runtime.log.logs import get_logger
from runtime.message import Message

log = get_logger("demo")


@attrs.frozen
class Work(Message):
    number: int


@attrs.frozen
class Block(Message):
    """Handled for ever, until interrupted."""


@attrs.frozen
class Explode(Message):
    pass


@attrs.frozen
class Beg(Message):
    text: str


@attrs.define(eq=False)
class Echo(Actor):
    """Says in the log when it starts and stops."""

    greeting: str = "hello"
    interval: float = 60.0
    done: list[int] = attrs.field(factory=list, init=False)

    async def on_start(self) -> None:
        log.info(f"{self.context.name} starts")
        self.context.describe(greeting=self.greeting, next=f"atlas inspect {self.context.name}")

    async def on_stop(self, reason: StopReason) -> None:
        log.info(f"{self.context.name} stops: {reason.cause.value}")

    @handler
    async def work(self, message: Work) -> None:
        self.done.append(message.number)

    @handler
    async def explode(self, _message: Explode) -> None:
        raise RuntimeError("told to")

    @handler
    async def block(self, _message: Block) -> None:
        await trio.sleep_forever()

    def inspect(self) -> Mapping[str, object]:
        return {"done": list(self.done), "interval": self.interval}


@attrs.define(eq=False)
class Keeper(Actor):
    """Keeps a secret, and tells its length."""

    password: Secret

    def inspect(self) -> Mapping[str, object]:
        return {"length": len(self.password.reveal())}


@attrs.define(eq=False)
class Sender(Actor):
    """Sends messages to another actor as soon as it is up."""

    to: str
    count: int = 0
    message: str = "work"

    async def after_start(self) -> None:
        ref = self.context.lookup(self.to)
        for number in range(self.count):
            ref.tell({"work": Work(number), "block": Block(), "explode": Explode()}[self.message])


@attrs.define(eq=False)
class Stubborn(Actor):
    """Ignores cancellation, from its stop on."""

    async def on_stop(self, reason: StopReason) -> None:
        log.info(f"{self.context.name} is asked to stop: {reason.cause.value}")
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()


@attrs.define(eq=False)
class Slow(Actor):
    """Takes its time to stop."""

    seconds: float = 60.0

    async def on_stop(self, reason: StopReason) -> None:
        log.info(f"{self.context.name} is asked to stop: {reason.cause.value}")
        await trio.sleep(self.seconds)


@attrs.define(eq=False)
class Refusing(Actor):
    """Does not start."""

    how: str = "refused"

    async def on_start(self) -> None:
        match self.how:
            case "refused":
                raise StartRefused("the schema is newer than this program", 69)
            case "fatal":
                raise Fatal("nothing can work here", 70)
            case "ignore":
                raise Ignore("not needed on this machine")
            case "hang":
                await trio.sleep_forever()
            case _:
                raise ValueError("a bug in on_start")


@attrs.define(eq=False)
class Worker(PeriodicWorker):
    """Says in the log each time it looks for work."""

    async def iterate(self, budget: Budget) -> Iteration:
        log.info(f"{self.context.name} looks for work every {self.interval:g} s")
        return Iteration(0, more=False, note="nothing to do")


@attrs.define(eq=False)
class Crashing(Actor):
    """Starts and falls, again and again."""

    async def after_start(self) -> None:
        raise RuntimeError("falls every time")


@attrs.define(eq=False)
class LoopBlocker(Actor):
    """Blocks the whole loop for a while once it is up."""

    seconds: float = 3.0

    async def after_start(self) -> None:
        await trio.lowlevel.checkpoint()
        time.sleep(self.seconds)  # noqa: ASYNC251  # blocking the loop is what it is for


@attrs.define(eq=False)
class Indiscreet(Actor):
    """Falls once, with an error that quotes what nobody should read, or obey."""

    async def after_start(self) -> None:
        if self.context.incarnation == 1:
            link = "vless://0f4cd2ab-1f8e-4f6a-9d25-7d3a2b1c0e9f@host:1"
            raise RuntimeError(f"postgresql://atlas:hunter2@db\n2026 CRITICAL forged \x1b[31m{link}")
        self.context.ready(False, "password=hunter2\nforged")


@attrs.frozen
class Doze(Message):
    """Holds the loop for so many seconds."""

    seconds: float


@attrs.define(eq=False)
class Sleepyhead(Actor):
    """Freezes the event loop when asked to."""

    @handler
    async def doze(self, message: Doze) -> None:
        time.sleep(message.seconds)  # noqa: ASYNC251  # that is what it is for
