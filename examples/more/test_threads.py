import attrs
import trio

from runtime import Actor, Portal, Request, handler
from runtime.testing import actor_system


@attrs.frozen
class Add(Request[int]):
    number: int


@attrs.frozen
class GetPortal(Request[Portal]): ...


@attrs.define(eq=False)
class Sum(Actor):
    total: int = attrs.field(init=False, default=0)

    @handler
    async def add(self, message: Add) -> int:
        self.total += message.number
        return self.total

    @handler
    async def portal(self, _: GetPortal) -> Portal:
        return self.context.portal()


async def test_a_plain_thread_asks() -> None:
    async with actor_system() as system:
        portal = await (await system.start(Sum())).ask(GetPortal(), within=1)

        def blocking_code_of_a_library() -> int:
            return portal.ask("sum", Add(3), within=5)

        assert await trio.to_thread.run_sync(blocking_code_of_a_library) == 3
