"""Limits a customer: how much of something may be asked for within a time, enforced in the transaction that does it.

The caller holds the customer's row, so that two processes cannot exceed a limit together. A captured payment is never
held to one.
"""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import ClassVar

import attrs

from db.customers import Customer
from db.errors import BusinessError
from db.settings import LimitSettings
from db.tx import Tx
from db.work.audit import record_audit
from runtime.wording import duration


class LimitReached(BusinessError):
    """A customer has had as much of something as the limits allow for now. The same again succeeds later."""

    exit_code: ClassVar[int] = 75

    def __init__(self, text: str, retry_after: timedelta) -> None:
        super().__init__(text)
        self.retry_seconds = max(1, math.ceil(retry_after.total_seconds()))
        """After so many whole seconds the same succeeds, if nothing else happens meanwhile."""


@attrs.frozen
class Allowance:
    """The limits that one request is held to, and who asks."""

    limits: LimitSettings
    actor: str
    may_exceed: bool = False
    """An operator has said so explicitly: what goes beyond a limit is done and audited."""


@attrs.frozen
class Limit:
    """One limit: at most `most` of `what` at once."""

    what: str
    setting: str
    most: int
    advice: str = ""
    """What else helps than to wait, beginning with a comma."""


async def hold_to(
    tx: Tx, asked: Allowance, limit: Limit, customer: Customer, since: Sequence[datetime], ends: Sequence[datetime]
) -> None:
    """Raise `LimitReached` if one more would be beyond the limit; or write down that an operator goes beyond it.

    `since` has when each of those that count began, the oldest first, and `ends` when each stops counting, the soonest first.
    """
    count = len(ends)
    if count < limit.most:
        return
    if asked.may_exceed:
        await record_audit(
            tx,
            asked.actor,
            "limit_exceeded",
            customer_id=customer.id,
            subject=limit.setting,
            details={"count": count, "most": limit.most},
        )
        return
    now: datetime = await tx.fetchval("SELECT atlas_now()")
    again = ends[count - limit.most]
    wait = max(again - now, timedelta(seconds=1))
    raise LimitReached(
        f"the customer with Telegram id {customer.telegram_id} has {count} {limit.what}, and {limit.most} are allowed "
        f"(setting {limit.setting}); the first of them is from {since[0]:%Y-%m-%d %H:%M:%S} UTC. Again from "
        f"{again:%Y-%m-%d %H:%M:%S} UTC on, in {duration(wait.total_seconds())}{limit.advice}; nothing was changed",
        wait,
    )


async def hold_to_rate(
    tx: Tx, asked: Allowance, limit: Limit, customer: Customer, times: Sequence[datetime], window: timedelta
) -> None:
    """As `hold_to`, for what counts for `window` from its time on; `times` are those within it, the oldest first."""
    await hold_to(tx, asked, limit, customer, times, [at + window for at in times])
