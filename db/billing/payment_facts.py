"""What a payment is, in records: facts of a provider's events, the command to book a charge, and where a charge ends.

`db.billing.provider_events` books the facts, `db.billing.purchases` the command.
"""

import re
from datetime import datetime
from enum import StrEnum
from typing import Literal

import attrs

from db.errors import BusinessError
from db.money import Money

PROVIDER = re.compile(r"[a-z][a-z0-9_]{0,31}")
"""What a provider may be called; the table `money_in` demands the same."""


class PaymentResult(StrEnum):
    """Which of the three ends a captured payment has."""

    ENTITLEMENT = "entitlement"
    BALANCE_CREDIT = "balance_credit"
    CASE = "case"


PaymentProblem = Literal["", "late", "duplicate", "amount", "payer", "orphan"]


@attrs.frozen
class FinalizePurchase:
    """A charge that a provider says it has captured.

    Building one raises `BusinessError` when the amount is not more than zero, the charge has no id, or the provider's
    name is none: nothing was captured then, or the charge could not be told from another one.
    """

    provider: str
    """Lower-case name, such as `telegram` or `manual`."""
    charge_id: str
    """The provider's own key of the charge: what makes a repetition the same."""
    amount: Money
    """Exactly what was captured, in the provider's asset."""
    order_id: int | None
    """The order that the payment names; `None` if it names none."""
    telegram_id: int | None = None
    """Who paid, if the provider says so."""
    actor: str = "provider"
    """Who reports it, for the audit trail."""

    def __attrs_post_init__(self) -> None:
        if self.amount.amount <= 0:
            raise BusinessError(f"a captured charge is of more than zero, not {self.amount}; nothing was recorded")
        if not self.charge_id.strip() or "\0" in self.charge_id:
            raise BusinessError(
                f"a {self.provider} charge needs the provider's id, not {self.charge_id!r}: only that tells a repetition "
                "from another payment; nothing was recorded"
            )
        if PROVIDER.fullmatch(self.provider) is None:
            raise BusinessError(
                f"a provider's name is a small letter and then small letters, digits or _, such as manual, at most 32 in "
                f"all, not {self.provider!r}; nothing was recorded"
            )


@attrs.frozen
class PurchaseOutcome:
    """What the payment led to, now or (`replayed`) when it was reported first."""

    result: PaymentResult
    money_in_id: int
    replayed: bool = False
    problem: PaymentProblem = ""
    """Why it is not what was ordered; not told again on a replay."""
    order_id: int | None = None
    customer_id: int | None = None
    subscription_id: int | None = None
    expires_at: datetime | None = None
    key_id: str | None = None
    credited: Money | None = None
    case_id: int | None = None


@attrs.frozen
class Contact:
    """A person wrote to us: a customer from now on, who can be reached again."""

    telegram_id: int
    language: str
    referrer_telegram_id: int | None = None
    """Who invited him, if he came by an invitation link."""


@attrs.frozen
class Captured:
    """A provider says that it captured money."""

    command: FinalizePurchase
    invoice_id: str = ""
    """The provider's invoice that it pays, if the event names one."""
    contact: Contact | None = None


@attrs.frozen
class Reversed:
    """Money went back, or is about to, without us: a refund or a dispute at the provider. A human looks at it."""

    charge_id: str
    what: str
    """`refund` or `dispute`."""
    reference: str
    """The provider's name of this very refund or dispute."""
    amount: str
    """As the provider says it."""


@attrs.frozen
class Checkout:
    """A customer is about to pay, and the provider asks whether he may."""

    order_id: int | None
    telegram_id: int
    amount: Money | None
    """`None`: in a currency that we do not know."""
    contact: Contact


@attrs.frozen
class InvoiceClosed:
    """A provider says that an invoice cannot be paid any more."""

    invoice_id: str
    why: str


@attrs.frozen
class NothingToBook:
    """An authentic event that means nothing for money here."""

    why: str
    contact: Contact | None = None


ProviderFact = Captured | Reversed | Checkout | InvoiceClosed | NothingToBook
