"""Actors that raise, in each place, what no actor should raise; for a real `atlas run`."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import attrs
import trio

from runtime.child import StopReason
from runtime.core.actor import Actor, handler
from runtime.log.logs import get_logger
from runtime.message import Message

SECRET = "hunter2"
"""Must be seen nowhere."""
KEY = "0f4cd2ab-1f8e-4f6a-9d25-7d3a2b1c0e9f"


class UnprintableError(Exception):
    """Its text raises what ends a process."""

    def __str__(self) -> str:
        raise SystemExit(SECRET)

    __repr__ = __str__


class GrumpyError(Exception):
    """Its text raises an ordinary error."""

    def __str__(self) -> str:
        raise ValueError(f"password={SECRET}")

    __repr__ = __str__


class OwnError(BaseException):
    """Nobody's Exception."""


def deep_group(depth: int) -> BaseException:
    error: Exception = ValueError("innermost")
    for _ in range(depth):
        error = ExceptionGroup("around", [error])
    return error


def long_chain(length: int) -> BaseException:
    error: Exception = ValueError("first")
    for number in range(length):
        following = ValueError(f"number {number}")
        following.__cause__ = error
        error = following
    return error


async def stray_cancelled() -> BaseException:
    """A cancellation of a scope that is closed."""
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.sleep_forever()
        except trio.Cancelled as cancelled:
            kept = cancelled
    return kept


FAULTS: Mapping[str, Callable[[], BaseException]] = {
    "plain": lambda: KeyError("teller"),
    "secret": lambda: RuntimeError(f"postgresql://atlas:{SECRET}@db for {KEY}"),
    "unprintable": UnprintableError,
    "grumpy": GrumpyError,
    "huge": lambda: RuntimeError(f"password={SECRET} " + "x " * 100_000_000),
    "many leaves": lambda: ExceptionGroup("many", [ValueError(number) for number in range(300_000)]),
    "deep group": lambda: deep_group(20_000),
    "long chain": lambda: long_chain(100_000),
    "asyncio cancelled": lambda: asyncio.CancelledError(f"password={SECRET}"),
    "system exit": lambda: SystemExit(f"password={SECRET}"),
    "exit code": lambda: SystemExit(3),
    "interrupt": lambda: KeyboardInterrupt(f"password={SECRET}"),
    "generator exit": GeneratorExit,
    "own": lambda: OwnError(f"password={SECRET}"),
    "base group": lambda: BaseExceptionGroup("mixed", [KeyboardInterrupt(), ValueError("x")]),
}


@attrs.frozen
class Misbehave(Message):
    """Do it now."""


@attrs.define(eq=False)
class Hostile(Actor):
    """Role: raises `how`, from `where`. Owns nothing. On crash: that is what it is for."""

    how: str
    where: str = "handler"
    pin: bytearray = attrs.field(init=False, factory=bytearray)

    async def on_start(self) -> None:
        if self.where == "on_start again" and self.context.incarnation > 1:
            await self._raise()
        self.context.after(0.0, Misbehave())

    async def after_start(self) -> None:
        if self.where == "after_start":
            await self._raise()
        if self.where == "on_undelivered":
            for _ in range(3):
                self.context.lookup(self.context.name).tell(Misbehave())
            raise RuntimeError("leaves messages behind")

    @handler
    async def misbehave(self, _: Misbehave) -> None:
        match self.where:
            case "handler":
                await self._raise()
            case "task":
                self.context.start_task(self._raise, name="poll")
            case "nursery":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._raise)
            case "on_start again" | "crash":
                raise RuntimeError("goes down")

    async def _raise(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.how == "stray cancelled":
            raise await stray_cancelled()
        if self.how == "cancelled group":
            raise BaseExceptionGroup("mixed", [await stray_cancelled(), ValueError("x")])
        raise FAULTS[self.how]()

    async def on_stop(self, reason: StopReason) -> None:
        if self.where == "on_stop":
            await self._raise()

    def on_undelivered(self, messages: Sequence[Message], reason: str) -> None:
        if self.where == "on_undelivered":
            raise FAULTS[self.how]()

    def inspect(self) -> Mapping[str, object]:
        if self.where == "inspect":
            raise FAULTS[self.how]()
        return {"how": self.how, "password": SECRET}


@attrs.define(eq=False)
class Mirror(Actor):
    """Role: shows itself when it is inspected. Owns nothing. On crash: nothing is lost."""

    what: str = "itself"

    async def on_start(self) -> None:
        self.context.after(0.0, Misbehave())

    @handler
    async def misbehave(self, _: Misbehave) -> None:
        raise RuntimeError("goes down")

    def inspect(self) -> Mapping[str, object]:
        if self.what == "self":
            return self  # type: ignore[return-value]  # that is what is wrong with it
        found: dict[str, object] = {3: "three", "digits": 10**1_000_000, "rows": _Endless()}  # type: ignore[dict-item]
        found["itself"] = [found]
        return found


class _Endless(Mapping[str, object]):
    def __getitem__(self, key: str) -> object:
        return self

    def __iter__(self) -> Iterator[str]:
        while True:
            yield str(time.monotonic_ns())

    def __len__(self) -> int:
        return 1 << 60


@attrs.define(eq=False)
class Threads(Actor):
    """Role: leaves threads behind that nobody ends. Owns them. On crash: nothing is lost."""

    how: str = "thread"

    async def on_start(self) -> None:
        if self.how == "thread":
            threading.Thread(target=time.sleep, args=(3600,), name="left-behind").start()
        else:
            pool = ThreadPoolExecutor(thread_name_prefix="left-behind")
            for _ in range(3):
                pool.submit(time.sleep, 3600)


@attrs.define(eq=False)
class Orphans(Actor):
    """Role: makes processes whose parent is gone, and which then end. Owns nothing. On crash: nothing is lost."""

    async def after_start(self) -> None:
        for _ in range(5):
            await trio.run_process(["sh", "-c", "sh -c : & sh -c : &"])
        get_logger("orphans").info("orphans are made")
