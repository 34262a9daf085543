"""What a payment is, in records: facts of a provider's events, the command to book a charge, and where a charge ends.

`db.billing.provider_events` books the facts, `db.billing.purchases` the command.
"""

import re
from datetime import datetime
from enum import StrEnum
from typing import Literal

import attrs

from db.errors import BusinessError
from db.money import UNVALUED, Money

PROVIDER = re.compile(r"[a-z][a-z0-9_]{0,31}")
"""What a provider may be called; the table `money_in` demands the same."""
LONGEST_NAME = 200
"""Characters of the names that providers give to charges, events and invoices. Theirs have at most 128."""


def is_name(text: str) -> bool:
    """Whether PostgreSQL can keep the text as a name: not blank, not too long, no NUL, no half of a character."""
    return bool(text.strip()) and len(text) <= LONGEST_NAME and "\0" not in text and not _HALF.search(text)


_HALF = re.compile("[\ud800-\udfff]")


def _refuse_bad_names(*names: str) -> None:
    if not all(is_name(name) for name in names):
        raise BusinessError(
            f"a name in it is empty, has more than {LONGEST_NAME} characters or some that cannot be kept; nothing was recorded"
        )


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
    stated: str = ""
    """What came in the provider's words, such as `76.00 KZT`, where `amount` is one unit of `UNVALUED`."""

    def __attrs_post_init__(self) -> None:
        if self.amount.amount <= 0:
            raise BusinessError(f"a captured charge is of more than zero, not {self.amount}; nothing was recorded")
        if not is_name(self.charge_id):
            raise BusinessError(
                f"a {self.provider} charge needs the provider's id, at most {LONGEST_NAME} characters that can be kept, not "
                f"{self.charge_id[:40]!r}: only that tells a repetition from another payment; nothing was recorded"
            )
        if (self.amount.currency == UNVALUED) != bool(self.stated):
            raise BusinessError(
                f"{self.provider} charge {self.charge_id!r} is of {self.amount} and stated as {self.stated!r}: a charge "
                "without a value, and no other, is kept in its provider's words; nothing was recorded"
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

    def __attrs_post_init__(self) -> None:
        _refuse_bad_names(self.invoice_id or "-")


ReversalStage = Literal["told", "withdrawn", "reinstated", "won", "lost", "failed", "cancelled"]


@attrs.frozen
class Reversed:
    """Money went back at the provider, or is about to, or does not after all: a refund or a dispute.

    Building one raises `BusinessError` when a name in it cannot be kept.
    """

    charge_id: str
    what: Literal["refund", "dispute"]
    reference: str
    """The provider's name of this very refund or dispute."""
    amount: str
    """As the provider says it."""
    stage: ReversalStage = "told"
    """`told`: it was begun, or made. A dispute's money is `withdrawn` or `reinstated`, and it ends `won` or `lost` for us; a
    refund is `failed` or `cancelled` where its money stayed at the provider."""
    in_all: Money | None = None
    """All that has been refunded of the charge so far, if that is what the provider tells."""
    request_key: str = ""
    """The key under which we asked for it, if the provider repeats that."""

    def __attrs_post_init__(self) -> None:
        _refuse_bad_names(self.charge_id, self.reference, self.amount)


@attrs.frozen
class Held:
    """Money of a customer is authorised at the provider and waits to be captured, which we never ask for.

    Building one raises `BusinessError` when a name in it cannot be kept.
    """

    charge_id: str
    order_id: int | None
    amount: str
    """As the provider says it."""
    until: str
    """When it lets it go by itself, as it says it; empty if it does not."""

    def __attrs_post_init__(self) -> None:
        _refuse_bad_names(self.charge_id, self.amount, self.until or "-")


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

    def __attrs_post_init__(self) -> None:
        _refuse_bad_names(self.invoice_id, self.why)


@attrs.frozen
class NothingToBook:
    """An authentic event that means nothing for money here."""

    why: str
    contact: Contact | None = None


ProviderFact = Captured | Reversed | Held | Checkout | InvoiceClosed | NothingToBook
