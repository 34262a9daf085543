"""Plain threads that tell and ask actors, and an asyncio library inside an actor."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import attrs
import pytest
import trio

from runtime.core.actor import Actor, handler
from runtime.core.context import Context
from runtime.core.threads import AsyncioThread, Portal
from runtime.errors import AtlasError, PortalClosed, UnknownActor
from runtime.message import Delivery, Message, Request
from runtime.testing.system import OnCrash, actor_system


@attrs.frozen
class Add(Message):
    number: int


@attrs.frozen
class Total(Request[int]):
    """What was added."""


@attrs.frozen
class Do(Request[object]):
    what: Callable[[Context, AsyncioThread], Awaitable[object]]


@attrs.define(eq=False)
class Counter(Actor):
    total: int = attrs.field(init=False, default=0)
    library: AsyncioThread = attrs.field(init=False)

    async def on_start(self) -> None:
        self.library = self.context.asyncio_thread()

    @handler
    async def add(self, message: Add) -> None:
        self.total += message.number

    @handler
    async def get_total(self, _: Total) -> int:
        return self.total

    @handler
    async def do(self, message: Do) -> object:
        return await message.what(self.context, self.library)


async def portal_of(context: Context, _: AsyncioThread) -> object:
    return context.portal()


async def library_of(_: Context, library: AsyncioThread) -> object:
    return library


# S-1213
async def test_a_plain_thread_tells_and_asks_through_a_portal() -> None:
    async with actor_system() as system:
        counter = await system.start(Counter())
        portal = await counter.ask(Do(portal_of), within=1)
        assert isinstance(portal, Portal)

        def in_a_thread() -> tuple[Delivery, int]:
            told = portal.tell("counter", Add(2))
            portal.tell(counter, Add(3))
            with pytest.raises(UnknownActor, match="did you mean 'counter'"):
                portal.tell("conter", Add(1))
            return told, portal.ask("counter", Total(), within=5)

        assert await trio.to_thread.run_sync(in_a_thread) == (Delivery.ACCEPTED, 5)


# S-1213
def test_a_portal_whose_loop_has_ended_says_so() -> None:
    kept: list[Portal] = []

    async def main() -> None:
        async with actor_system() as system:
            portal = await (await system.start(Counter())).ask(Do(portal_of), within=1)
            assert isinstance(portal, Portal)
            kept.append(portal)

    trio.run(main)
    with pytest.raises(PortalClosed, match="has ended"):
        kept[0].tell("counter", Add(1))
    with pytest.raises(PortalClosed, match="has ended"):
        kept[0].ask("counter", Total(), within=1)


# S-1214
async def test_an_asyncio_library_is_awaited_from_a_handler() -> None:
    async with actor_system() as system:
        counter = await system.start(Counter())

        async def use(_: Context, library: AsyncioThread) -> object:
            async def double(number: int) -> int:
                await asyncio.sleep(0)
                if number < 0:
                    raise LookupError("negative")
                return 2 * number

            with pytest.raises(LookupError, match="negative"):
                await library.run(double, -1)
            return await library.run(double, 4)

        assert await counter.ask(Do(use), within=5) == 8


# S-1214
async def test_a_cancelled_call_is_cancelled_in_asyncio_and_has_ended() -> None:
    seen: list[str] = []
    async with actor_system() as system:
        counter = await system.start(Counter())

        async def use(_: Context, library: AsyncioThread) -> object:
            async def long() -> None:
                try:
                    began.set()
                    await asyncio.sleep(3600)
                except asyncio.CancelledError:
                    seen.append("cancelled")
                    raise

            began = threading.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(library.run, long)
                await trio.to_thread.run_sync(began.wait)
                nursery.cancel_scope.cancel()

            async def by_itself() -> None:
                raise asyncio.CancelledError

            with pytest.raises(AtlasError, match="cancelled this call by itself"):
                await library.run(by_itself)
            return list(seen)

        assert await counter.ask(Do(use), within=5) == ["cancelled"]


# S-1214
async def test_the_thread_ends_with_its_actors_incarnation() -> None:
    async with actor_system() as system:
        counter = await system.start(Counter(), on_crash=OnCrash.RESTART)
        library = await counter.ask(Do(library_of), within=1)
        assert isinstance(library, AsyncioThread)
        await system.kill(counter)
        await system.up(counter, 2)
        with pytest.raises(AtlasError, match="ended with its incarnation"):
            await library.run(asyncio.sleep, 0)
        assert [thread.name for thread in threading.enumerate()].count("counter/asyncio") == 1
    assert [thread.name for thread in threading.enumerate()].count("counter/asyncio") == 0
