"""Locks that another session holds, and a pool that does not wait long for them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Final

import trio

from actors.pool.client import Pool
from db.settings import DatabaseSettings

IMPATIENT: Final = DatabaseSettings(purpose="test", lock_timeout=0.2)


@contextlib.asynccontextmanager
async def locked(pool: Pool, statement: str) -> AsyncIterator[None]:
    """Another session keeps locked whatever the statement locks, until the block ends."""
    is_locked, done = trio.Event(), trio.Event()

    async def hold() -> None:
        async with pool.lease("hold", hold=60.0) as lease:
            await lease.execute(f"BEGIN; {statement}")
            is_locked.set()
            await done.wait()
            await lease.execute("ROLLBACK")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold)
        await is_locked.wait()
        try:
            yield
        finally:
            done.set()
