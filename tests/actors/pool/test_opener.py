"""How often a pool knocks at a server that does not answer."""

from __future__ import annotations

import random
from itertools import pairwise

import trio
import trio.testing

from actors.pool.opener import LONGEST_DELAY, Opener
from actors.pool.settings import PoolSettings
from actors.pool.state import PoolState
from db.driver.connection import Connection
from db.errors import DatabaseUnreachable


async def _attempts(seconds: float, seed: int) -> list[float]:
    """When it tried, on a clock that needs no time to pass."""
    began = trio.current_time()
    tried: list[float] = []

    async def refuse() -> Connection:
        tried.append(trio.current_time() - began)
        await trio.lowlevel.checkpoint()
        raise DatabaseUnreachable("nobody answers")

    def ignore(_: object) -> None:
        pass

    state = PoolState(
        "pool.main",
        PoolSettings(),
        10,
        emit=ignore,
        spike=ignore,
        needed=lambda: None,
        dirty=ignore,
        watch=ignore,
        token=0,
    )
    with trio.move_on_after(seconds):
        await Opener(state, refuse, random.Random(seed)).run()
    return tried


async def test_an_outage_is_probed_often_at_first_and_then_about_every_few_seconds(
    autojump_clock: trio.testing.MockClock,
) -> None:
    tried = await _attempts(600.0, 1)
    assert sum(at < 1 for at in tried) <= 20
    assert 200 < len(tried) < 320, "a mean of half the longest delay"
    pauses = [after - before for before, after in pairwise(tried)]
    assert max(pauses) <= LONGEST_DELAY


async def test_pools_that_lost_the_same_server_do_not_knock_together(autojump_clock: trio.testing.MockClock) -> None:
    first, second = [await _attempts(60.0, seed) for seed in (1, 2)]
    assert not set(first[1:]) & set(second[1:])
