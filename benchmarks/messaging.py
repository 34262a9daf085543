"""What messaging costs, as ratios to plain trio in the same run: `python benchmarks/messaging.py`.

Every figure is the median of several repetitions that alternate, so that a busy machine slows both sides alike.
"""

from __future__ import annotations

import gc
import statistics
import time
import tracemalloc
from collections.abc import Awaitable, Callable

import attrs
import trio

from runtime.actor import Actor, handler
from runtime.message import Message, Request
from runtime.ref import Ref
from runtime.testing import ActorSystem, actor_system

HOPS = 20_000
BURST = 1_000
ASKS = 3_000
IDLE_ACTORS = 500
REPETITIONS = 9


@attrs.frozen
class Add(Message):
    """Count this."""

    n: int


@attrs.frozen
class GetTotal(Request[int]):
    """Answered with the count."""


@attrs.define(eq=False)
class Counter(Actor):
    """Role: does next to nothing, so that messaging is what is measured. Owns a number. On crash: starts at 0."""

    total: int = attrs.field(init=False, default=0)

    @handler
    async def add(self, message: Add) -> None:
        """Count."""
        self.total += message.n

    @handler
    async def get(self, _: GetTotal) -> int:
        """Answer."""
        return self.total


async def channel_hops(buffer: int) -> float:
    """Seconds for one message over a memory channel with that buffer, both ends awaited."""
    sender, receiver = trio.open_memory_channel[int](buffer)

    async def receive() -> None:
        for _ in range(HOPS):
            await receiver.receive()

    begin = time.perf_counter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        for n in range(HOPS):
            await sender.send(n)
    return (time.perf_counter() - begin) / HOPS


async def tells(ref: Ref) -> float:
    """Seconds for one message told and handled, in bursts of what the mailbox holds."""
    message, burst = Add(1), ref.address.mailbox.capacity
    begin = time.perf_counter()
    for _ in range(0, HOPS, burst):
        for _ in range(burst):
            ref.tell(message)
        await ref.ask(GetTotal(), within=60)
    return (time.perf_counter() - begin) / HOPS


async def ping_pongs() -> float:
    """Seconds for one round trip of two tasks over two memory channels, without a deadline."""
    to_sender, to_receiver = trio.open_memory_channel[int](1)
    back_sender, back_receiver = trio.open_memory_channel[int](1)

    async def pong() -> None:
        for _ in range(ASKS):
            await back_sender.send(await to_receiver.receive())

    begin = time.perf_counter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pong)
        for n in range(ASKS):
            await to_sender.send(n)
            await back_receiver.receive()
    return (time.perf_counter() - begin) / ASKS


async def asks(ref: Ref) -> float:
    """Seconds for one ask with its deadline, answered by an idle actor."""
    message = GetTotal()
    begin = time.perf_counter()
    for _ in range(ASKS):
        await ref.ask(message, within=60)
    return (time.perf_counter() - begin) / ASKS


async def idle_memory(system: ActorSystem) -> float:
    """Bytes per actor that is up and waits, everything included that starting it allocated."""
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for n in range(IDLE_ACTORS):
        await system.start(Counter(), name=f"idle.{n}")
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before) / IDLE_ACTORS


async def compare(base: Callable[[], Awaitable[float]], ours: Callable[[], Awaitable[float]]) -> tuple[float, float]:
    """Medians of both, measured in turns."""
    await base()
    await ours()
    bases, ourses = [], []
    for _ in range(REPETITIONS):
        bases.append(await base())
        ourses.append(await ours())
    return statistics.median(bases), statistics.median(ourses)


async def main() -> None:
    """Measure and print."""
    async with actor_system() as system:
        ref = await system.start(Counter(), name="counter", capacity=BURST)
        for buffer in (0, 64):
            hop, tell = await compare(lambda buffer=buffer: channel_hops(buffer), lambda: tells(ref))
            print(f"tell + handle     {tell * 1e6:7.2f} us   {hop / tell:5.1f} x faster than a channel hop ({hop * 1e6:.2f} us)")  # noqa: T201
        ping, asked = await compare(ping_pongs, lambda: asks(ref))
        print(f"ask round trip    {asked * 1e6:7.2f} us   {asked / ping:5.2f} x a raw ping-pong ({ping * 1e6:.2f} us)")  # noqa: T201
        print(f"idle actor        {await idle_memory(system):7.0f} bytes")  # noqa: T201


if __name__ == "__main__":
    trio.run(main)
