"""Spawning: from `start_child` to an actor that serves, under a supervisor."""

from __future__ import annotations

import time

import trio

from benchmarks.messages.counter import Counter
from benchmarks.messages.supervised import supervisor
from runtime import Services


def spawn(count: int) -> float:
    """Seconds for one supervised actor, started and serving."""
    return trio.run(_spawns, count) / count


async def _spawns(count: int) -> float:
    async with supervisor(Counter, Services()) as running:
        begin = time.perf_counter()
        for n in range(count):
            await running.start_child(f"actor.{n}")
        return time.perf_counter() - begin
