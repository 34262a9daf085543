"""One process at a time: a leader lease is an epoch row on database time, relied on here for half as long as it lasts.

`hold_leader_lease` is for work that two must never do at once: it is given up when in doubt. `LeaderElection` is for
work that two may do at once without harm, only badly: while the database cannot be asked, the last answer counts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from actors.leadership.process_identity import ProcessIdentity
from actors.pool.client import Pool
from db.errors import LeaseError
from db.tx import Tx
from db.work.leader_leases import Epoch, LostEpoch, acquire_epoch, release_epoch, renew_epoch
from runtime import ActorTask, Context

_RELEASE_SECONDS = 1.0


@attrs.define(eq=False)
class LeaderLease:
    """The lease while this process is the leader: `ttl` seconds on the database's clock, relied on for half of them here."""

    pool: Pool
    epoch: Epoch
    ttl: float
    trusted_until: float

    async def ensure_held(self) -> None:
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
async def hold_leader_lease(pool: Pool, name: str, ttl: float) -> AsyncIterator[LeaderLease | Epoch]:
    """Hold the lease `name` for as long as the block lasts, or get the row of the process that leads, and until when.

    A predecessor in this very process (an incarnation that crashed) is followed at once: it is certainly dead.
    """
    asked_at = trio.current_time()
    found = await pool.run(f"{name}.acquire", _acquire, name, f"{ProcessIdentity.own()}/{name}", ttl)
    if not found.is_mine:
        yield found
        return
    lease = LeaderLease(pool, found, ttl, asked_at + ttl / 2)
    yield lease
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


@attrs.define(eq=False)
class LeaderElection:
    """The epoch row `name`, held for as long as this actor wants it.

    For work that two may do at once without harm, only badly: while the database cannot be asked, the last answer counts,
    and before the first answer it is our turn. `ttl` seconds after the holder was last heard of it is another's turn.
    """

    context: Context
    pool: Pool
    name: str
    ttl: float
    _renewal: ActorTask | None = attrs.field(init=False, default=None)
    _stopping: trio.Event = attrs.field(init=False, factory=trio.Event)
    _is_leader: trio.Event = attrs.field(init=False, factory=trio.Event)
    _work: trio.CancelScope | None = attrs.field(init=False, default=None)
    _is_known: bool = attrs.field(init=False, default=False)

    def start(self) -> None:
        """Try to become the leader from now on."""
        self._renewal = self.context.start_task(self._renew_for_ever, name=f"turn {self.name}", inherit_deadline=False)

    async def stop(self) -> None:
        """Give the lease up, so that another process leads at once."""
        self._stopping.set()
        if self._renewal is not None:
            await self._renewal.wait()

    @asynccontextmanager
    async def leading(self) -> AsyncIterator[None]:
        """Wait until this process leads; the block is cancelled when that ends, and is left then without an error."""
        await self._is_leader.wait()
        with trio.CancelScope() as self._work:
            yield
        self._work = None

    async def _renew_for_ever(self) -> None:
        while not self._stopping.is_set():
            try:
                async with hold_leader_lease(self.pool, self.name, self.ttl) as found:
                    if isinstance(found, LeaderLease):
                        self._lead()
                        while not self._stopping.is_set():
                            await found.ensure_held()
                            await self._pause(self.ttl / 8)
                        self._follow(f"left by {self.context.name}")
                    else:
                        self._follow(_waits_for(found))
            except LostEpoch:
                continue  # whose turn it is now, the next question tells
            except LeaseError:
                if not self._is_known:
                    self._lead()
            await self._pause(self.ttl / 8)

    async def _pause(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self._stopping.wait()

    def _lead(self) -> None:
        self._is_known = True
        self.context.describe(turn="ours")
        self._is_leader.set()

    def _follow(self, why: str) -> None:
        self._is_known = True
        self.context.describe(turn=why)
        if self._is_leader.is_set():
            self._is_leader = trio.Event()
        if self._work is not None:
            self._work.cancel()


def _waits_for(epoch: Epoch) -> str:
    return f"waits for {epoch.holder}"
