"""Fast expiry: access that has ended, or was revoked, ends on the nodes as well."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from actors.keys.key_worker import KeyWorker
from actors.nodes.messages import RemoveKey
from actors.pool.client import Pool
from db.access.subscriptions import expire_page
from db.errors import DatabaseBusy
from db.keys.claims import KeyClaim, NodeConfirmation, Placement
from db.keys.removal import claim_removals, confirm_removal, fail_removal, postpone_removal
from db.lease.queue import Lane
from db.work.claims import Claimer
from runtime import Budget, WakeUp, get_logger

log = get_logger("keys")

_BUSY_RETRY = 5.0


@attrs.define(eq=False)
class FastExpiry(KeyWorker):
    """Marks subscriptions whose end has passed, then takes every unwanted key off its nodes and cuts its connections.

    Role: the end of access, whatever ended it. Owns, receives, sends, on crash: see KeyWorker.
    Invariants: marking takes no more than half of the budget, so that removals always have their turn, and goes on where it
    stopped; marked in the database first, removed on the node after, confirmed last; who renewed meanwhile keeps the key,
    because the node refuses a removal that is older than what it has.
    """

    lane = Lane.BATCH

    _marked_to: int = attrs.field(init=False, default=0)
    "Subscriptions up to this id were looked at; 0 at the beginning of a round."

    async def prepare(self, pool: Pool, budget: Budget) -> bool:
        kept_for_removals = budget.remaining / 2
        while True:
            try:
                page = await pool.run("fast_expiry.expire", expire_page, self._marked_to, self.page_size)
            except DatabaseBusy as error:
                log.warning("a page of ended subscriptions is left for a moment", error=str(error))
                self.context.after(_BUSY_RETRY, WakeUp())
                self._marked_to = 0
                return False
            self._marked_to = page.last_id if page.more else 0
            self.context.failpoint("expired")
            await budget.count(len(page.subscription_ids))
            if not page.more or budget.remaining <= kept_for_removals:
                return page.more

    async def claim(self, pool: Pool, owner: Claimer) -> list[KeyClaim]:
        return await pool.run("fast_expiry.claim", claim_removals, owner, self.page_size, self.claim_seconds)

    async def tell(self, claim: KeyClaim, place: Placement) -> NodeConfirmation:
        await self.ask_node(place, RemoveKey(claim.key_id, claim.generation))
        return NodeConfirmation(place.node)

    async def confirm(self, pool: Pool, claim: KeyClaim, applied: Sequence[NodeConfirmation]) -> str:
        return (await pool.run("fast_expiry.confirm", confirm_removal, claim, applied)).value

    async def postpone(self, pool: Pool, claim: KeyClaim, delay: float, why: str) -> bool:
        return await pool.run("fast_expiry.postpone", postpone_removal, claim, delay, why)

    async def fail(self, pool: Pool, claim: KeyClaim, why: str, known_generation: int) -> str:
        failures = await pool.run("fast_expiry.fail", fail_removal, claim, why, known_generation)
        return "lost" if failures is None else f"failed {failures} times"
