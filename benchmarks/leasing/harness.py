"""A pool actor in this process, full and ready, for as long as a block lasts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal

import attrs
import trio

from actors.pool.client import Pool, gate_of, pool_of
from actors.pool.pool import PoolActor
from actors.pool.settings import PoolSettings
from benchmarks.leasing.workload import CONNECTIONS
from db.embedded import EmbeddedSettings
from db.settings import DatabaseSettings
from runtime import Actor, Context
from runtime.config import Secret
from runtime.testing import actor_system


@attrs.define(eq=False)
class _Client(Actor):
    """Role: lends its context to the benchmark. Owns nothing. On crash: loses nothing."""

    tell: Callable[[Context], None]

    async def on_start(self) -> None:
        self.tell(self.context)


@asynccontextmanager
async def pool_on(dsn: str, bridge: str = "inline", *, monitor: bool = True) -> AsyncIterator[Pool]:
    """A pool of `CONNECTIONS` connections, with all its measurements on unless told otherwise; every one of them is open."""
    async with actor_system() as system:
        chosen: Literal["inline", "plain"] = "plain" if bridge == "plain" else "inline"
        settings = PoolSettings(size=CONNECTIONS, reserved=0, bridge=chosen, monitor=monitor)
        database = DatabaseSettings(dsn=Secret(dsn), purpose="test")
        ref = await system.start(PoolActor(database, settings, EmbeddedSettings(), migrate=False), name="pool.main")
        contexts: list[Context] = []
        await system.start(_Client(contexts.append), name="client")
        state = gate_of(ref).state
        assert state is not None
        while len(state.idle) < CONNECTIONS:  # noqa: ASYNC110  the pool tells its own actor alone
            await trio.sleep(0.01)
        yield pool_of(contexts[0], "pool.main")
