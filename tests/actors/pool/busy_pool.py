"""Who holds the only connection of a pool, and who waits for it, for a process of their own."""

from __future__ import annotations

import attrs
import trio

from actors.pool.client import pool_of
from db.errors import LeaseTimeout
from db.tx import Tx
from runtime import Actor


@attrs.define(eq=False)
class Hoarder(Actor):
    """Role: holds the pool's only connection, and many of its tasks wait for another. Owns nothing. On crash: loses nothing."""

    async def on_start(self) -> None:
        holding = trio.Event()
        self.context.start_task(self._hold, holding)
        for _ in range(20):
            self.context.start_task(self._wait, holding)

    async def _hold(self, holding: trio.Event) -> None:
        async with pool_of(self.context, "pool.main").lease("hoard", within=30, hold=600) as lease:
            holding.set()
            await lease.execute("SELECT pg_sleep(600)")

    async def _wait(self, holding: trio.Event) -> None:
        await holding.wait()
        try:
            await pool_of(self.context, "pool.main").run("debit", _answer, within=600)
        except LeaseTimeout:
            await trio.sleep_forever()


async def _answer(tx: Tx) -> int:
    found: int = await tx.fetchval("SELECT 42")
    return found
