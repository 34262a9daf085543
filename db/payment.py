"""The words of a payment: what comes in, where it can end, and why."""

from datetime import datetime
from enum import StrEnum
from typing import Literal

import attrs

from db.money import Money


class Result(StrEnum):
    """Where a captured payment ended."""

    ENTITLEMENT = "entitlement"
    BALANCE_CREDIT = "balance_credit"
    CASE = "case"


Problem = Literal["", "late", "duplicate", "amount", "payer", "orphan"]


@attrs.frozen
class FinalizePurchase:
    """A charge that a provider says it has captured."""

    provider: str
    """Lower-case name, such as ``telegram`` or ``manual``."""
    charge_id: str
    """The provider's own key of the charge: what makes a repetition the same."""
    amount: Money
    """Exactly what was captured, in the provider's asset."""
    order_id: int | None
    """The order that the payment names; ``None`` if it names none."""
    telegram_id: int | None = None
    """Who paid, if the provider says so."""
    actor: str = "provider"
    """Who reports it, for the audit trail."""


@attrs.frozen
class PurchaseOutcome:
    """What the payment led to, now or (``replayed``) when it was reported first."""

    result: Result
    money_in_id: int
    replayed: bool = False
    problem: Problem = ""
    """Why it is not what was ordered; not told again on a replay."""
    order_id: int | None = None
    customer_id: int | None = None
    subscription_id: int | None = None
    expires_at: datetime | None = None
    key_id: str | None = None
    credited: Money | None = None
    case_id: int | None = None
