"""A pool that stops taking requests, and an actor that meets it, for a process of their own."""

from __future__ import annotations

import attrs
import trio

from actors.pool.client import pool_of
from actors.pool.pool import PoolActor
from db.errors import LeaseRevoked, PoolCrashed
from db.tx import Tx
from runtime import Actor, Message, get_logger, handler

log = get_logger("demo")


@attrs.frozen
class Wedge(Message):
    """Never handle another message."""


@attrs.define(eq=False)
class WedgingPool(PoolActor):
    """As its base; the first incarnation can be wedged, a restart is the cure."""

    @handler
    async def wedge(self, _message: Wedge) -> None:
        if self.context.incarnation == 1:
            await trio.sleep_forever()


@attrs.define(eq=False)
class Customer(Actor):
    """Role: holds the pool's only connection, wedges the pool, and waits for another connection.

    Owns nothing. Sends: Wedge. On crash: loses nothing.
    """

    _wedged: trio.Event = attrs.field(init=False, factory=trio.Event)

    async def on_start(self) -> None:
        self.context.start_task(self._hold)
        self.context.start_task(self._wait)

    async def _hold(self) -> None:
        pool = pool_of(self.context, "pool.main")
        try:
            async with pool.lease("held", within=30, hold=600) as lease:
                await lease.execute("SELECT 1")
                self.context.lookup("pool.main").tell(Wedge())
                self._wedged.set()
                await lease.execute("SELECT pg_sleep(600)")
        except LeaseRevoked as revoked:
            log.info("holder ended", why=str(revoked))

    async def _wait(self) -> None:
        pool = pool_of(self.context, "pool.main")
        await self._wedged.wait()
        while True:
            try:
                found = await pool.run("waits", _answer, within=600)
            except PoolCrashed:
                log.info("waiter was told")
            else:
                log.info("served again", found=found)
                return


async def _answer(tx: Tx) -> int:
    found: int = await tx.fetchval("SELECT 42")
    return found
