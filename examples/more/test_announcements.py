import attrs

from actors.announcements import KeyActive
from runtime import Actor, Request, handler
from runtime.testing import actor_system


@attrs.frozen
class CountWelcomes(Request[int]): ...


@attrs.define(eq=False)
class Welcome(Actor):
    said: int = attrs.field(init=False, default=0)

    async def on_start(self) -> None:
        self.context.subscribe(KeyActive)  # ends with this incarnation

    @handler
    async def key_active(self, message: KeyActive) -> None:
        self.said += 1  # a hint: whom we have welcomed is a row, or it is said twice after a crash

    @handler
    async def count(self, _: CountWelcomes) -> int:
        return self.said


async def test_it_hears_of_keys_that_went_live() -> None:
    async with actor_system() as system:
        welcome = await system.start(Welcome())
        assert system.services.topics.publish(KeyActive("key-1", 1, 1)) == 1  # in an actor: self.context.publish(…)
        assert await welcome.ask(CountWelcomes(), within=1) == 1
