"""Plain trio: what messaging costs without actors."""

from __future__ import annotations

import gc
import time

import trio
import trio.testing

from benchmarks.messages.resident import rss
from benchmarks.rounds import percentile


def channel_hop(count: int, buffer: int) -> float:
    """Seconds for one message over a memory channel with that buffer, both ends awaited."""
    return trio.run(_channel_hops, count, buffer) / count


async def _channel_hops(count: int, buffer: int) -> float:
    sender, receiver = trio.open_memory_channel[int](buffer)

    async def receive() -> None:
        for _ in range(count):
            await receiver.receive()

    begin = time.perf_counter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        for n in range(count):
            await sender.send(n)
    return time.perf_counter() - begin


def ping_pong(count: int) -> float:
    """Seconds for one round trip of two tasks over two memory channels, without a deadline."""
    return trio.run(_ping_pongs, count) / count


async def _ping_pongs(count: int) -> float:
    to_sender, to_receiver = trio.open_memory_channel[int](1)
    back_sender, back_receiver = trio.open_memory_channel[int](1)

    async def pong() -> None:
        for _ in range(count):
            await back_sender.send(await to_receiver.receive())

    begin = time.perf_counter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pong)
        for n in range(count):
            await to_sender.send(n)
            await back_receiver.receive()
    return time.perf_counter() - begin


def task_start(count: int) -> float:
    """Seconds for one task that is started with `nursery.start` and then waits."""
    return trio.run(_task_starts, count) / count


async def _task_starts(count: int) -> float:
    async def serve(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        begin = time.perf_counter()
        for _ in range(count):
            await nursery.start(serve)
        took = time.perf_counter() - begin
        nursery.cancel_scope.cancel(reason="measured")
    return took


def idle_task_memory(count: int) -> float:
    """Bytes of resident memory per task that waits for a memory channel of its own."""
    return trio.run(_idle_tasks, count)


async def _idle_tasks(count: int) -> float:
    ends = []

    async def serve(receiver: trio.MemoryReceiveChannel[int]) -> None:
        await receiver.receive()

    async with trio.open_nursery() as nursery:

        def start(number: int) -> None:
            for _ in range(number):
                sender, receiver = trio.open_memory_channel[int](64)
                ends.append(sender)
                nursery.start_soon(serve, receiver)

        start(1)
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        before = rss()
        start(count)
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        grown = (rss() - before) / count
        nursery.cancel_scope.cancel(reason="measured")
    return grown


def restart_p99(count: int) -> float:
    """p99 of the seconds from the raise in a task to its successor that has a message of its channel."""
    return trio.run(_restarts, count)


async def _restarts(count: int) -> float:
    sender, receiver = trio.open_memory_channel[str](4)
    crashed_at, seconds = 0.0, []
    served = trio.Event()

    async def serve() -> None:
        nonlocal crashed_at
        while await receiver.receive() != "crash":
            seconds.append(time.perf_counter() - crashed_at)
            served.set()
        crashed_at = time.perf_counter()
        raise ValueError("on purpose")

    async def supervise() -> None:
        while True:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(serve)
            except* ValueError:
                pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervise)
        for _ in range(count):
            served = trio.Event()
            await sender.send("crash")
            await sender.send("mark")
            await served.wait()
        nursery.cancel_scope.cancel(reason="measured")
    return percentile(seconds, 0.99)


def lateness_p99(tasks: int, watched: float, nap: float) -> float:
    """p99 of the seconds by which a sleep overslept beside so many tasks that never rest, watched for so many seconds."""
    return trio.run(_lateness, tasks, watched, nap)


async def _lateness(tasks: int, watched: float, nap: float) -> float:
    async def busy() -> None:
        while True:
            await trio.lowlevel.checkpoint()

    late = []
    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(busy)
        end = trio.current_time() + watched
        while (now := trio.current_time()) < end:
            await trio.sleep_until(now + nap)
            late.append(trio.current_time() - now - nap)
        nursery.cancel_scope.cancel(reason="measured")
    return percentile(late, 0.99)
