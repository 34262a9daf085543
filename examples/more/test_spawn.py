import attrs

from runtime import Actor, Ref, Request, handler
from runtime.testing import actor_system


@attrs.frozen
class Open(Request[Ref]):
    customer: str


@attrs.frozen
class Close(Request[None]):
    session: Ref


@attrs.define(eq=False)
class Session(Actor):
    customer: str


@attrs.define(eq=False)
class Desk(Actor):
    @handler
    async def open(self, message: Open) -> Ref:
        return await self.context.spawn(Session(message.customer), name=message.customer, max_children=100)

    @handler
    async def close(self, message: Close) -> None:
        await self.context.stop(message.session)  # returns when it is gone


async def test_a_session_lives_below_its_desk_until_it_is_closed() -> None:
    async with actor_system() as system:
        desk = await system.start(Desk())
        anna = await desk.ask(Open("anna"), within=1)
        assert system.services.registry.lookup("desk.anna") == anna
        await desk.ask(Close(anna), within=1)
        assert "desk.anna" not in system.services.registry
