"""Work that one process at a time may do: an epoch row on database time, trusted here for less than it lasts."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from actors.pool_client import Pool
from db.epochs import Epoch, acquire_epoch, release_epoch, renew_epoch
from db.lease_errors import LeaseError
from db.reconcile import LostEpoch
from db.tx import Tx

_PROCESS = f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}"
"Names this process and no other, also not one with the same number after a restart of the machine."
_RELEASE_SECONDS = 1.0


@attrs.define(eq=False)
class Tenure:
    """The singleton while it is ours. `ttl` seconds on the database's clock, relied on for half of them here."""

    pool: Pool
    epoch: Epoch
    ttl: float
    trusted_until: float

    async def hold_on(self) -> None:
        """Go on only if the row is ours for certain; renews it when half of the trust is used up. Raises LostEpoch."""
        if trio.current_time() < self.trusted_until - self.ttl / 4:
            return
        asked_at = trio.current_time()
        if not await self.pool.run(f"{self.epoch.name}.renew", renew_epoch, self.epoch, self.ttl):
            raise LostEpoch(f"another process does the work of {self.epoch.name!r} now")
        self.trusted_until = asked_at + self.ttl / 2
        if trio.current_time() >= self.trusted_until:
            raise LostEpoch(f"the epoch of {self.epoch.name!r} was renewed too slowly to rely on it")


@asynccontextmanager
async def tenure_of(pool: Pool, name: str, ttl: float) -> AsyncIterator[Tenure | Epoch]:
    """The singleton for as long as the block lasts, or, if somebody else has it, who that is and until when.

    A predecessor in this very process (an incarnation that crashed) is followed at once: it is certainly dead.
    """
    asked_at = trio.current_time()
    found = await pool.run(f"{name}.acquire", _acquire, name, f"{_PROCESS}/{name}", ttl)
    if not found.is_mine:
        yield found
        return
    tenure = Tenure(pool, found, ttl, asked_at + ttl / 2)
    yield tenure
    # Only after an ordinary end: after a crash the successor takes the row over, and after a kill its time runs out.
    with trio.move_on_after(_RELEASE_SECONDS):
        try:
            await pool.run(f"{name}.release", release_epoch, found)
        except LeaseError:
            return


async def _acquire(tx: Tx, name: str, holder: str, ttl: float) -> Epoch:
    found = await acquire_epoch(tx, name, holder, ttl)
    if not found.is_mine and found.holder == holder and await release_epoch(tx, found):
        found = await acquire_epoch(tx, name, holder, ttl)
    return found
