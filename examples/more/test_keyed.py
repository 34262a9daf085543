import attrs

from runtime import Actor, Keyed, Request, handler
from runtime.testing import actor_system


@attrs.frozen
class Visit(Request[int]):
    customer: int


@attrs.define(eq=False)
class Visits(Actor):
    count: int = attrs.field(init=False, default=0)

    @handler
    async def visit(self, _: Visit) -> int:
        self.count += 1
        return self.count


@attrs.define(eq=False)
class Shop(Actor):
    customers: Keyed[int] = attrs.field(init=False)

    async def on_start(self) -> None:
        self.customers = self.context.keyed(lambda _: Visits(), idle=300.0)

    @handler
    async def visit(self, message: Visit) -> int:
        return await self.customers.ask(message.customer, message, within=1)


async def test_each_customer_has_an_actor_from_the_first_visit_on() -> None:
    async with actor_system() as system:
        shop = await system.start(Shop())
        assert [await shop.ask(Visit(customer), within=1) for customer in (7, 8, 7)] == [1, 1, 2]
