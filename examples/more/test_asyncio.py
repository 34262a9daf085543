import asyncio

import attrs

from runtime import Actor, AsyncioThread, Request, handler
from runtime.testing import actor_system


class Library:
    """Stands for a client that knows asyncio alone."""

    async def square(self, number: int) -> int:
        await asyncio.sleep(0.001)
        return number * number


@attrs.frozen
class Square(Request[int]):
    number: int


@attrs.define(eq=False)
class Bridge(Actor):
    loop: AsyncioThread = attrs.field(init=False)
    library: Library = attrs.field(init=False, factory=Library)

    async def on_start(self) -> None:
        self.loop = self.context.asyncio_thread()  # ends with this incarnation

    @handler
    async def square(self, message: Square) -> int:
        return await self.loop.run(self.library.square, message.number)  # the asker's deadline cancels it there, too


async def test_an_asyncio_library_serves_an_actor() -> None:
    async with actor_system() as system:
        assert await (await system.start(Bridge())).ask(Square(7), within=5) == 49
