"""Housekeeping: what has served its time is marked or taken away, a page in a transaction, fenced by the singleton's epoch."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

import attrs

from db.access.entitlements import follow_tariffs
from db.billing.cases import open_case
from db.billing.orders import expire_orders
from db.keys.reconcile import check_epoch
from db.tx import Tx
from db.work.epochs import Epoch
from db.work.nonces import prune_nonces

NONCES_FOR = timedelta(hours=1)
"""How long nonces of signed requests are kept; their signatures are refused after 5 minutes."""
OUTBOX_AT_LEAST = timedelta(days=8)
"""Settled messages are kept at least so long: an invariant compares a week of facts with them."""

Page = Callable[[Tx, int], Awaitable[int]]
"""Handles up to so many rows and returns how many there were."""


@attrs.frozen
class Chore:
    """One thing to keep in order."""

    name: str
    page: Page


def chores(keep_messages: timedelta) -> tuple[Chore, ...]:
    """All of them, in the order in which they are done. Raises ``ValueError`` if messages are kept too short."""
    if keep_messages < OUTBOX_AT_LEAST:
        raise ValueError(f"settled messages are kept for {OUTBOX_AT_LEAST.days} days at least, not {keep_messages}")
    return (
        Chore("orders_expired", expire_orders),
        Chore("tariffs_followed", follow_tariffs),
        Chore("messages_pruned", partial(prune_messages, older_than=keep_messages)),
        Chore("nonces_pruned", lambda tx, limit: prune_nonces(tx, NONCES_FOR, limit)),
    )


async def do_page(tx: Tx, held: Epoch, chore: Chore, limit: int) -> int:
    """One page of a chore. Raises ``LostEpoch``, and nothing is written, if the singleton is somebody else's by now."""
    await check_epoch(tx, held)
    return await chore.page(tx, limit)


async def prune_messages(tx: Tx, limit: int = 1000, *, older_than: timedelta) -> int:
    """Take away up to ``limit`` messages that were settled longer ago than this, oldest first; returns how many."""
    tag = await tx.execute(
        """
        WITH old AS MATERIALIZED (
            SELECT id FROM outbox WHERE settled_at < (SELECT atlas_now()) - $1::interval
            ORDER BY settled_at LIMIT $2 FOR UPDATE SKIP LOCKED
        )
        DELETE FROM outbox USING old WHERE outbox.id = old.id
        """,
        older_than,
        limit,
    )
    return int(tag.split()[-1])


async def open_money_case(tx: Tx, held: Epoch, view: str, trouble: str) -> int:
    """Tell the operator that a money view is in trouble, and return the number of the case: one a view and day."""
    await check_epoch(tx, held)
    day = await tx.fetchval("SELECT atlas_now()::date::text")
    return await open_case(tx, "money_invariant", f"{view}:{day}", details={"trouble": trouble[:400]})
