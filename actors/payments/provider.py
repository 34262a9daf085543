"""What the gateway and the watcher know of a payment provider, and its errors."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Address
from typing import Any, ClassVar, Literal

import attrs
import httpx

from actors.payments.quotes import FROM_TABLE, PricedIn, quote_in
from db.billing.invoices import Invoice
from db.billing.orders import Quote
from db.billing.payment_facts import Captured, InvoiceClosed, ProviderFact
from db.billing.pricing import Rate, find_rate
from db.billing.provider_events import StoredEvent
from db.billing.provider_refunds import ProviderRefund, RefundAnswer
from db.errors import BusinessError
from db.money import Money
from db.tx import Tx
from runtime import AtlasError


class PaymentError(AtlasError):
    """Base of what can go wrong between us and a provider."""


class NotAuthentic(PaymentError):
    """The delivery did not come from the provider. `status` is the answer; nothing is stored."""

    def __init__(self, provider: str, why: str, status: int = 401) -> None:
        super().__init__(f"a delivery in the name of {provider} was refused: {why}")
        self.provider = provider
        self.why = why
        self.status = status


class NotUnderstood(PaymentError):
    """Authentic, but not as documented: no repetition cures it, a human has to look at it."""


class ProviderUnavailable(PaymentError):
    """The provider did not answer, or says that it cannot for now. What it has done is unknown; ask again."""


class NotYet(PaymentError):
    """The provider's own answer is behind what we know from it; ask again a little later."""


class ProviderRefused(BusinessError):
    """The provider refuses a request of ours for good: wrong credentials, a wrong amount, a closed shop."""

    exit_code: ClassVar[int] = 69


@attrs.frozen
class WebhookDelivery:
    """A request to a provider's path, as it came."""

    body: bytes = attrs.field(repr=False)
    headers: Mapping[str, str] = attrs.field(repr=False)
    """Names in lower case."""
    source: IPv4Address | IPv6Address
    """The sender's address: that of the peer, or the one that our own proxy names."""


@attrs.frozen
class NewInvoice:
    """A provider's answer to the wish for an invoice."""

    invoice_id: str
    pay_url: str = attrs.field(repr=False)
    lives: float = 0.0
    """Seconds from now for which the page can be paid, if the provider says so."""


@attrs.frozen
class Statement:
    """A page of a provider's own list of what happened."""

    facts: tuple[ProviderFact, ...]
    position: int
    """How many entries of the list have been read with it."""
    is_last: bool
    unreadable: tuple[tuple[int, str], ...] = ()
    """Entries that say nothing we understand, by their number in the list, and why."""


@attrs.frozen
class StillOpen:
    """The provider's answer to `look_up`: the invoice can still be paid."""


def half_configured(provider: str, key: str, wanted: str) -> str:
    """The sentence about a provider that has its credentials, and lacks a setting without which payments would get lost."""
    return (
        f"payments.{provider} has credentials, but payments.{provider}.{key} is not usable: it needs {wanted}; "
        "without it payments could come in that nobody hears of"
    )


class Provider(ABC):
    """A payment provider, as the gateway and the watcher know it.

    An adapter is this with `name`, `open`, `authenticate`, `understand`, `create_invoice` and `look_up`; the rest has defaults
    that fit a provider which waits for no verdict, gives nothing back and has no statement. Methods that talk to it raise
    ProviderUnavailable and ProviderRefused, and hold no lease.
    """

    __slots__ = ()

    name: ClassVar[str]
    """Its name in `money_in`, in events and in the path `/payments/<name>`."""
    is_watched: ClassVar[bool] = True
    """Whether `look_up` can be asked about an invoice."""
    shortest_page: ClassVar[float] = 0.0
    """Seconds below which it lets no pay page end; `invoice.seconds_left` is never less."""
    refunds: ClassVar[Literal["", "whole", "parts"]] = ""
    """Whether `refund` can be asked for: of whole charges, or of parts of them too."""
    settings: PricedIn
    client: httpx.AsyncClient

    @classmethod
    @abstractmethod
    def open(cls, settings: Any) -> Provider | None:
        """Return the adapter with an HTTP client of its own, which `aclose` closes; None without credentials: it is off.

        `settings` are its own table, which has nothing to say against itself: with credentials alone payments could come in of
        which no message reaches us, so its `check_configuration` refuses that.
        """

    @property
    def assets(self) -> tuple[str, ...]:
        """What an invoice can be quoted in."""
        return (self.settings.asset,)

    def quote(self, price: Money, found: Rate | None = None) -> Quote:
        """Return what it would charge for a price in roubles; `found` is its asset's newest rate in the database.

        Raises RateMissing, RateTooOld, RateOutOfBounds, QuoteTooCoarse: then nothing can be sold through it now.
        """
        return quote_in(price, self.settings, f"payments.{self.name}", found)

    async def quote_now(self, tx: Tx, price: Money) -> Quote:
        """The same, with the rate that the database has now."""
        is_asked = self.settings.rate == FROM_TABLE
        return self.quote(price, await find_rate(tx, self.settings.asset) if is_asked else None)

    async def exchange_rates(self) -> Mapping[str, Decimal]:
        """Ask for roubles for one whole unit of each asset that it knows; by default it knows none."""
        return {}

    @abstractmethod
    def authenticate(self, delivery: WebhookDelivery) -> str:
        """Return the event's id, if it is authentic. Raises NotAuthentic, or NotUnderstood for an authentic body without one."""

    @abstractmethod
    async def understand(self, body: bytes) -> ProviderFact:
        """Return what an authentic body says. Raises NotUnderstood, and NotYet or ProviderUnavailable if it had to ask."""

    async def follow_up(self, body: bytes, event: StoredEvent) -> None:
        """Do what the provider waits for after the event was settled; by default nothing. Repeated with each replay of it."""
        return

    def judge_within(self, body: bytes) -> float:
        """Return the seconds in which the event must be judged, because the provider waits for a verdict; by default infinity:
        it does not."""
        return math.inf

    async def refuse_unjudged(self, body: bytes) -> None:
        """Tell the provider what it must hear if the event cannot be judged now, or not at all; by default nothing."""
        return

    @abstractmethod
    async def create_invoice(self, invoice: Invoice) -> NewInvoice:
        """Open an invoice under `invoice.request_key`: with the same key, where the provider has keys, it is the same one."""

    @abstractmethod
    async def look_up(self, invoice: Invoice) -> Captured | InvoiceClosed | StillOpen:
        """Return how the provider sees an open invoice. Raises NotYet if it does not know it: it may be asked with a wrong key,
        and only its own last word closes an invoice."""

    @property
    def has_statement(self) -> bool:
        """Whether `read_statement` can be asked, for payments that no message told of; by default it cannot."""
        return False

    async def read_statement(self, position: int) -> Statement:
        """Return what happened after the first `position` entries, oldest first."""
        return Statement((), position, is_last=True)

    async def refund(self, refund: ProviderRefund) -> RefundAnswer:
        """Give money back under `refund.request_key`, or say what became of it: of one that has a reference, or that may have
        been asked for before, it is never asked for twice. Raises ProviderUnavailable if that is not known now."""
        raise ProviderRefused(
            f"{self.name} has no way to give money back from here: pay it back by hand, and record it with `atlas refund`"
        )

    async def aclose(self) -> None:
        """Close the connections to the provider; calls that are on their way fail."""
        await self.client.aclose()
