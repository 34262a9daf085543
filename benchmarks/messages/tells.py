"""tell: from the sender's call to the end of the handler."""

from __future__ import annotations

import time

import trio

from benchmarks.messages.counter import Add, Counter, GetTotal
from runtime.testing import actor_system


def tell(count: int, burst: int) -> float:
    """Seconds for one message told and handled, in bursts that are waited for and that the mailbox has just room for."""
    return trio.run(_tells, count, burst)


async def _tells(count: int, burst: int) -> float:
    message = Add(1)
    async with actor_system() as system:
        ref = await system.start(Counter(), capacity=burst)
        begin = time.perf_counter()
        for _ in range(0, count, burst):
            for _ in range(burst):
                ref.tell(message)
            await ref.ask(GetTotal(), within=60)
        took = time.perf_counter() - begin
        assert await ref.ask(GetTotal(), within=60) == count
    return took / count
