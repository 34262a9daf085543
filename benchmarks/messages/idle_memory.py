"""Memory of actors that are up and wait. Call these in a process of their own: in a used heap, new actors take room
that was free already.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable

import trio
import trio.testing

from benchmarks.messages.counter import Counter
from benchmarks.messages.resident import rss
from benchmarks.messages.supervised import supervisor
from runtime import Address, Services


def resident(count: int, *, is_supervised: bool = False) -> float:
    """Bytes of resident memory (RSS) per idle actor; its supervisor's share included if it has one."""
    return trio.run(_grown, count, is_supervised, rss)


def allocated(count: int, *, is_supervised: bool = False) -> float:
    """Bytes that Python allocated per idle actor; its supervisor's share included if it has one."""
    tracemalloc.start()
    try:
        return trio.run(_grown, count, is_supervised, lambda: tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()


async def _grown(count: int, is_supervised: bool, read: Callable[[], int]) -> float:
    services = Services()
    if is_supervised:
        async with supervisor(Counter, services) as running:
            await running.start_child("first")
            gc.collect()
            before = read()
            for n in range(count):
                await running.start_child(f"idle.{n}")
            await trio.testing.wait_all_tasks_blocked()
            gc.collect()
            return (read() - before) / count
    async with trio.open_nursery() as nursery:
        await nursery.start(Address("first", Counter, services).run, 1)
        gc.collect()
        before = read()
        for n in range(count):
            await nursery.start(Address(f"idle.{n}", Counter, services).run, 1)
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        grown = (read() - before) / count
        nursery.cancel_scope.cancel(reason="measured")
    return grown
