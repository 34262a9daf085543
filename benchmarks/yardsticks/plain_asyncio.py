"""Plain asyncio. Called in a process of its own only."""

from __future__ import annotations

import asyncio
import gc
import time

from benchmarks.messages.resident import rss
from benchmarks.rounds import percentile


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


def task_start(count: int) -> float:
    """Seconds for one task that is created, says that it serves, and then waits."""
    return asyncio.run(_task_starts(count)) / count


async def _task_starts(count: int) -> float:
    loop = asyncio.get_running_loop()

    async def serve(started: asyncio.Future[None]) -> None:
        started.set_result(None)
        await loop.create_future()

    tasks = []
    begin = time.perf_counter()
    for _ in range(count):
        started: asyncio.Future[None] = loop.create_future()
        tasks.append(asyncio.create_task(serve(started)))
        await started
    took = time.perf_counter() - begin
    for task in tasks:
        task.cancel()
    return took


def idle_task_memory(count: int) -> float:
    """Bytes of resident memory per task that waits for its own queue."""
    return asyncio.run(_idle_tasks(count))


async def _idle_tasks(count: int) -> float:
    async def serve(queue: asyncio.Queue[int]) -> None:
        await queue.get()

    def start(number: int) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(serve(asyncio.Queue(64))) for _ in range(number)]

    tasks = start(1)
    await asyncio.sleep(0)
    gc.collect()
    before = rss()
    tasks += start(count)
    await asyncio.sleep(0)
    gc.collect()
    grown = (rss() - before) / count
    for task in tasks:
        task.cancel()
    return grown


def restart_p99(count: int) -> float:
    """p99 of the seconds from the raise in a task to its successor that has a message of its queue."""
    return asyncio.run(_restarts(count))


async def _restarts(count: int) -> float:
    queue: asyncio.Queue[str] = asyncio.Queue()
    crashed_at, seconds = 0.0, []
    served = asyncio.Event()

    async def serve() -> None:
        nonlocal crashed_at
        while await queue.get() != "crash":
            seconds.append(time.perf_counter() - crashed_at)
            served.set()
        crashed_at = time.perf_counter()
        raise ValueError("on purpose")

    async def supervise() -> None:
        while True:
            task = asyncio.create_task(serve())
            await asyncio.wait([task])
            task.exception()

    supervising = asyncio.create_task(supervise())
    for _ in range(count):
        served = asyncio.Event()
        queue.put_nowait("crash")
        queue.put_nowait("mark")
        await served.wait()
    supervising.cancel()
    return percentile(seconds, 0.99)


def lateness_p99(tasks: int, watched: float, nap: float) -> float:
    """p99 of the seconds by which a sleep overslept beside so many tasks that never rest, watched for so many seconds."""
    return asyncio.run(_lateness(tasks, watched, nap))


async def _lateness(tasks: int, watched: float, nap: float) -> float:
    async def busy() -> None:
        while True:  # noqa: ASYNC110  it waits for nothing on purpose
            await asyncio.sleep(0)

    others = [asyncio.create_task(busy()) for _ in range(tasks)]
    late, end = [], time.perf_counter() + watched
    while (now := time.perf_counter()) < end:
        await asyncio.sleep(nap)
        late.append(time.perf_counter() - now - nap)
    for task in others:
        task.cancel()
    return percentile(late, 0.99)
