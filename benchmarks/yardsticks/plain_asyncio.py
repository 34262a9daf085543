"""Plain asyncio. Called in a process of its own only."""

from __future__ import annotations

import asyncio
import time


def queue_hop(count: int) -> float:
    """Seconds for one message over an asyncio.Queue of one place, both ends awaited."""
    return asyncio.run(_queue_hops(count)) / count


async def _queue_hops(count: int) -> float:
    queue: asyncio.Queue[int] = asyncio.Queue(1)

    async def receive() -> None:
        for _ in range(count):
            await queue.get()

    begin = time.perf_counter()
    receiver = asyncio.create_task(receive())
    for n in range(count):
        await queue.put(n)
    await receiver
    return time.perf_counter() - begin


def future_ping_pong(count: int) -> float:
    """Seconds for one round trip: a request with a future through a queue, the future awaited, without a deadline."""
    return asyncio.run(_future_ping_pongs(count)) / count


async def _future_ping_pongs(count: int) -> float:
    queue: asyncio.Queue[asyncio.Future[int]] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    async def pong() -> None:
        for n in range(count):
            (await queue.get()).set_result(n)

    begin = time.perf_counter()
    answering = asyncio.create_task(pong())
    for _ in range(count):
        future: asyncio.Future[int] = loop.create_future()
        queue.put_nowait(future)
        await future
    await answering
    return time.perf_counter() - begin
