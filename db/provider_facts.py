"""What a provider's event says, once its adapter has read it: facts that `db.provider_events` can book."""

import attrs

from db.money import Money
from db.payment import FinalizePurchase


@attrs.frozen
class Contact:
    """Somebody wrote to us: he is known from now on, and can be reached again."""

    telegram_id: int
    language: str
    referrer_telegram_id: int | None = None
    """Who invited him, if he came by an invitation link."""


@attrs.frozen
class Captured:
    """Money was captured."""

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
    """An invoice cannot be paid any more."""

    invoice_id: str
    why: str


@attrs.frozen
class Nothing:
    """Authentic, and no business of ours."""

    why: str
    contact: Contact | None = None


Fact = Captured | Reversed | Checkout | InvoiceClosed | Nothing
