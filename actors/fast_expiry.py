"""Fast expiry: access that has ended, or was revoked, ends on the nodes as well."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from actors.key_worker import KeyWorker
from actors.node_messages import RemoveKey
from actors.pool_client import Pool
from db.keys import (
    Applied,
    KeyClaim,
    Owner,
    Placement,
    claim_removals,
    confirm_removal,
    fail_removal,
    postpone_removal,
)
from db.lease_queue import Lane
from db.subscriptions import expire_page
from runtime.worker import Budget


@attrs.define(eq=False)
class FastExpiry(KeyWorker):
    """Marks subscriptions whose end has passed, then takes every unwanted key off its nodes and cuts its connections.

    Role: the end of access, whatever ended it. Owns, receives, sends, on crash: see KeyWorker.
    Invariants: marked in the database first, removed on the node after, confirmed last; who renewed meanwhile keeps the key,
    because the node refuses a removal that is older than what it has.
    """

    lane = Lane.BATCH

    async def prepare(self, pool: Pool, budget: Budget) -> None:
        after = 0
        while True:
            page = await pool.run("fast_expiry.expire", expire_page, after, self.page_size)
            budget.progress()
            if not page.more:
                return
            after = page.last_id
            self.context.failpoint("expired")

    async def claim(self, pool: Pool, owner: Owner) -> list[KeyClaim]:
        return await pool.run("fast_expiry.claim", claim_removals, owner, self.page_size, self.claim_seconds)

    async def tell(self, claim: KeyClaim, place: Placement) -> Applied:
        await self.ask_node(place, RemoveKey(claim.key_id, claim.generation))
        return Applied(place.node)

    async def confirm(self, pool: Pool, claim: KeyClaim, applied: Sequence[Applied]) -> str:
        return (await pool.run("fast_expiry.confirm", confirm_removal, claim, applied)).value

    async def postpone(self, pool: Pool, claim: KeyClaim, delay: float, why: str) -> bool:
        return await pool.run("fast_expiry.postpone", postpone_removal, claim, delay, why)

    async def fail(self, pool: Pool, claim: KeyClaim, why: str, known_generation: int) -> str:
        failures = await pool.run("fast_expiry.fail", fail_removal, claim, why, known_generation)
        return "lost" if failures is None else f"failed {failures} times"
