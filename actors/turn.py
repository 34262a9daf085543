"""Whose turn it is, of several processes that could do the same work: one has it, and the others wait for it to end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from actors.pool_client import Pool
from actors.singleton import Tenure, tenure_of
from db.epochs import Epoch
from db.lease_errors import LeaseError
from db.reconcile import LostEpoch
from runtime.actor_task import ActorTask
from runtime.context import Context


@attrs.define(eq=False)
class Turn:
    """The epoch row `name`, held for as long as this actor wants it.

    For work that two may do at once without harm, only badly: while the database cannot be asked, the last answer counts,
    and before the first answer it is our turn. `ttl` seconds after the holder was last heard of it is another's turn.
    """

    context: Context
    pool: Pool
    name: str
    ttl: float
    _keeper: ActorTask | None = attrs.field(init=False, default=None)
    _ending: trio.Event = attrs.field(init=False, factory=trio.Event)
    _given: trio.Event = attrs.field(init=False, factory=trio.Event)
    _work: trio.CancelScope | None = attrs.field(init=False, default=None)
    _is_known: bool = attrs.field(init=False, default=False)

    def begin(self) -> None:
        """Ask for it from now on."""
        self._keeper = self.context.start_task(self._keep, name=f"turn {self.name}", inherit_deadline=False)

    async def end(self) -> None:
        """Leave it to the next one at once."""
        self._ending.set()
        if self._keeper is not None:
            await self._keeper.wait()

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Wait for our turn; the block is cancelled when it ends, and is left then without an error."""
        await self._given.wait()
        with trio.CancelScope() as self._work:
            yield
        self._work = None

    async def _keep(self) -> None:
        while not self._ending.is_set():
            try:
                async with tenure_of(self.pool, self.name, self.ttl) as found:
                    if isinstance(found, Tenure):
                        self._give()
                        while not self._ending.is_set():
                            await found.hold_on()
                            await self._pause(self.ttl / 8)
                        self._take(f"left by {self.context.name}")
                    else:
                        self._take(_held(found))
            except LostEpoch:
                continue  # whose turn it is now, the next question tells
            except LeaseError:
                if not self._is_known:
                    self._give()
            await self._pause(self.ttl / 8)

    async def _pause(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self._ending.wait()

    def _give(self) -> None:
        self._is_known = True
        self.context.describe(turn="ours")
        self._given.set()

    def _take(self, why: str) -> None:
        self._is_known = True
        self.context.describe(turn=why)
        if self._given.is_set():
            self._given = trio.Event()
        if self._work is not None:
            self._work.cancel()


def _held(epoch: Epoch) -> str:
    return f"waits for {epoch.holder}"
