"""ask: from the call to the reply, with a deadline."""

from __future__ import annotations

import time

import trio

from benchmarks.messages.counter import Counter, GetTotal
from runtime.testing import actor_system


def ask(count: int) -> float:
    """Seconds for one ask with its deadline, answered by an idle actor."""
    return trio.run(_asks, count)


async def _asks(count: int) -> float:
    message = GetTotal()
    async with actor_system() as system:
        ref = await system.start(Counter())
        begin = time.perf_counter()
        for _ in range(count):
            await ref.ask(message, within=60)
        return (time.perf_counter() - begin) / count
