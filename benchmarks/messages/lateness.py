"""How late the loop wakes a task while actors keep it busy."""

from __future__ import annotations

import time

import attrs
import trio

from benchmarks.rounds import percentile
from runtime import Actor, Message, handler
from runtime.testing import actor_system

NAP = 0.002
"""Seconds that the watching task asks to sleep for, again and again."""
IN_FLIGHT = 32
"""Messages that each actor always has waiting."""


@attrs.frozen
class Work(Message):
    """Compute, and send it to yourself again."""


@attrs.define(eq=False)
class Busy(Actor):
    """Role: never idle. Owns nothing. On crash: nothing is lost."""

    seconds: float
    """What one message costs beside messaging."""

    @handler
    async def work(self, message: Work) -> None:
        """Compute, and go on."""
        if self.seconds:
            end = time.perf_counter() + self.seconds
            while time.perf_counter() < end:
                pass
        self.context.ref.tell(message)


def lateness(actors: int, handler_seconds: float, watched: float) -> float:
    """p99 of the seconds by which a sleep overslept, beside so many busy actors, watched for so many seconds."""
    return trio.run(_lateness, actors, handler_seconds, watched)


async def _lateness(actors: int, handler_seconds: float, watched: float) -> float:
    late = []
    async with actor_system() as system:
        for n in range(actors):
            ref = await system.start(Busy(handler_seconds), name=f"busy.{n}")
            for _ in range(IN_FLIGHT):
                ref.tell(Work())
        end = trio.current_time() + watched
        while (now := trio.current_time()) < end:
            await trio.sleep_until(now + NAP)
            late.append(trio.current_time() - now - NAP)
    return percentile(late, 0.99)
