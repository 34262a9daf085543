"""The chores of housekeeping: what is marked or taken away, in which order, a page a transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Final

import attrs

from db.access.entitlements import follow_tariffs
from db.billing.orders import expire_orders
from db.billing.referrals import set_hold_days
from db.billing.withdrawals import seal_destinations
from db.settings import ReferralSettings
from db.tx import Tx
from db.work.leader_leases import Epoch, check_epoch
from db.work.nonces import prune_nonces
from db.work.outbox import prune_messages
from db.work.sealing import Seal, SealError
from runtime import get_logger

_log = get_logger("housekeeping")

NONCES_FOR: Final = timedelta(hours=1)
"""How long nonces of signed requests are kept; their signatures are refused after 5 minutes."""
OUTBOX_AT_LEAST: Final = timedelta(days=8)
"""Settled messages are kept at least so long: an invariant compares a week of facts with them."""

Page = Callable[[Tx, int], Awaitable[int]]
"""Handles up to so many rows and returns how many there were."""


@attrs.frozen
class Chore:
    """One thing to keep in order."""

    name: str
    page: Page


def chores(keep_messages: timedelta, seal: Callable[[], Seal]) -> tuple[Chore, ...]:
    """All of them, in the order in which they are done. Raises ValueError if messages are kept too short.

    `seal` is asked for the key only when a destination lies in clear.
    """
    if keep_messages < OUTBOX_AT_LEAST:
        raise ValueError(f"settled messages are kept for {OUTBOX_AT_LEAST.days} days at least, not {keep_messages}")
    return (
        Chore("orders_expired", expire_orders),
        Chore("tariffs_followed", follow_tariffs),
        Chore("messages_pruned", partial(prune_messages, older_than=keep_messages)),
        Chore("nonces_pruned", lambda tx, limit: prune_nonces(tx, NONCES_FOR, limit)),
        Chore("destinations_sealed", partial(_seal_page, seal)),
    )


async def _seal_page(seal: Callable[[], Seal], tx: Tx, limit: int) -> int:
    try:
        return await seal_destinations(tx, seal, limit)
    except SealError as error:
        _log.error("destinations stay in clear", why=str(error))  # the other chores are not to wait for a file
        return 0


async def apply_rules(tx: Tx, epoch: Epoch, referral: ReferralSettings) -> bool:
    """Write rules of money that the configuration sets into the database, where every program reads them; `False`: they
    stood there. Raises LostEpoch as `do_page` does."""
    await check_epoch(tx, epoch)
    return await set_hold_days(tx, referral.hold_days)


async def do_page(tx: Tx, epoch: Epoch, chore: Chore, limit: int) -> int:
    """One page of a chore. Raises LostEpoch, and nothing is written, if another process leads by now."""
    await check_epoch(tx, epoch)
    return await chore.page(tx, limit)
