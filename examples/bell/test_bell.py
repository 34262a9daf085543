from __future__ import annotations

import trio.testing

from examples.bell.bell import Bell, CountRings, Ring
from runtime.testing import OnCrash, actor_system


async def test_it_rings_when_told_and_on_time(mock_clock: trio.testing.MockClock) -> None:
    async with actor_system() as system:
        bell = await system.start(Bell(every=10.0))
        bell.tell(Ring())
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(10.0)
        await trio.testing.wait_all_tasks_blocked()
        assert await bell.ask(CountRings(), within=1) == 2


async def test_a_new_incarnation_begins_anew_and_answers_the_same_ref() -> None:
    async with actor_system() as system:
        bell = await system.start(Bell(), on_crash=OnCrash.RESTART)
        bell.tell(Ring())
        await system.kill(bell)
        await system.up(bell, incarnation=2)
        bell.tell(Ring())
        assert await bell.ask(CountRings(), within=1) == 1
