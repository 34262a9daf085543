import attrs
import trio.testing

from runtime import Actor, Message, WakeUp, handler
from runtime.testing import actor_system


@attrs.frozen
class Typed(Message): ...


@attrs.define(eq=False)
class Editor(Actor):
    saved: list[float]

    async def on_start(self) -> None:
        self.context.every(60.0, WakeUp())  # each minute, in step

    @handler
    async def typed(self, _: Typed) -> None:
        self.context.after(2.0, WakeUp(), key="soon")  # takes the place of the one before: two seconds of quiet

    @handler
    async def save(self, _: WakeUp) -> None:
        self.saved.append(trio.current_time())


async def test_it_saves_once_it_is_quiet(mock_clock: trio.testing.MockClock) -> None:
    saved: list[float] = []
    async with actor_system() as system:
        editor = await system.start(Editor(saved))
        for seconds in (1.0, 2.0, 57.0):
            editor.tell(Typed())
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(seconds)
    assert saved == [3.0]
