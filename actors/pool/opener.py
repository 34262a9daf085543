"""Opens the connections that a pool lacks, one at a time, and backs off while the database does not answer."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import NoReturn

import attrs
import trio

from actors.pool.state import PoolState
from db.driver.connection import Connection
from db.errors import DatabaseUnreachable, DatabaseUnusable

FIRST_DELAY = 0.05
"""Seconds, at most, before the second attempt."""
LONGEST_DELAY = 5.0
"""Seconds, at most, between two attempts, however long the outage."""


@attrs.define(eq=False)
class Opener:
    """Keeps the pool full. A failure is noted in the pool's state and tried again; it never ends the actor.

    The delay before each attempt is drawn from 0 to a bound that doubles with each failure, so that the pools of a fleet do
    not all connect at the same moment. DatabaseUnusable before the first success is raised: a configuration to correct, not
    an outage.
    """

    state: PoolState
    open: Callable[[], Awaitable[Connection]]
    chance: random.Random = attrs.field(factory=random.Random)
    _needed: trio.Event = attrs.field(init=False, factory=trio.Event)
    _failures: int = attrs.field(init=False, default=0)

    def wake(self) -> None:
        """Connections are missing."""
        self._needed.set()

    async def run(self) -> NoReturn:
        """Fill for ever."""
        while True:
            while self.state.missing > 0:
                await self._try()
            self._needed = trio.Event()
            await self._needed.wait()

    async def _try(self) -> None:
        try:
            connection = await self.open()
        except (DatabaseUnreachable, DatabaseUnusable) as error:
            self._failures += 1
            self.state.open_failed(str(error))
            bound = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(self._failures - 1, 16))
            await trio.sleep(self.chance.uniform(0, bound))
        else:
            self._failures = 0
            self.state.add_connection(connection)
