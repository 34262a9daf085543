"""Fast expiry: access that has ended, or was revoked, ends on the nodes as well."""

from __future__ import annotations

from operator import attrgetter

import attrs

from actors.announcements import AccessEnded
from actors.keys.key_worker import KeySql, KeyWorker
from actors.nodes.messages import RemoveKey
from actors.pool.client import Pool
from db.access.subscriptions import expire_page
from db.errors import DatabaseBusy
from db.keys.claims import KeyClaim, Placement
from db.keys.removal import RemovalResult, claim_removals, confirm_removal, fail_removal, postpone_removal
from db.lease.queue import Lane
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

    sql = KeySql(
        "fast_expiry",
        claim=claim_removals,
        confirm=confirm_removal,
        confirmed=attrgetter("value"),
        postpone=postpone_removal,
        fail=fail_removal,
        failed=lambda failures: "lost" if failures is None else f"failed {failures} times",
        final=RemovalResult.REMOVED,
        partly=RemovalResult.PARTLY,
        announcement=AccessEnded,
    )
    lane = Lane.BATCH

    _marked_to: int = attrs.field(init=False, default=0)
    """Subscriptions up to this id were looked at; 0 at the beginning of a round."""

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

    def request_for(self, claim: KeyClaim, place: Placement) -> RemoveKey:
        return RemoveKey(claim.key_id, claim.generation)
