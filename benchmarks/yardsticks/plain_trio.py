"""Plain trio: what messaging costs without actors."""

from __future__ import annotations

import time

import trio


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
