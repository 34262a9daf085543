"""Restarts: from the raise in a handler to the first message that the next incarnation handles, without backoff."""

from __future__ import annotations

import os
import time

import attrs
import trio

from benchmarks.messages.supervised import supervisor
from runtime import Actor, Message, Services, handler, log


class CrashOnPurpose(Exception):
    """What the actor dies of."""


@attrs.define(eq=False)
class Stopwatch:
    """Outlives the incarnations."""

    crashed_at: float = 0.0
    seconds: list[float] = attrs.field(factory=list)
    served: trio.Event = attrs.field(factory=trio.Event)


@attrs.frozen
class Crash(Message):
    """Raise."""


@attrs.frozen
class Mark(Message):
    """Note the time."""


@attrs.define(eq=False)
class Fragile(Actor):
    """Role: crashes when told to. Owns nothing. On crash: that is what is measured."""

    watch: Stopwatch

    @handler
    async def crash(self, _: Crash) -> None:
        """Raise."""
        self.watch.crashed_at = time.perf_counter()
        raise CrashOnPurpose

    @handler
    async def mark(self, _: Mark) -> None:
        """Note the time."""
        self.watch.seconds.append(time.perf_counter() - self.watch.crashed_at)
        self.watch.served.set()


def restarts(count: int) -> list[float]:
    """Seconds of each restart, events and their log lines included. Starts the process's log: call it in one of its own."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    log.start(out=nowhere, err=nowhere)
    try:
        return trio.run(_restarts, count)
    finally:
        log.stop()
        os.close(nowhere)


async def _restarts(count: int) -> list[float]:
    services, watch = Services(), Stopwatch()
    async with supervisor(lambda: Fragile(watch), services) as running:
        await running.start_child("fragile")
        ref = services.registry.lookup("fragile")
        for _ in range(count):
            watch.served = trio.Event()
            ref.tell(Crash())
            ref.tell(Mark())
            await watch.served.wait()
    assert ref.incarnation == count + 1
    return watch.seconds
