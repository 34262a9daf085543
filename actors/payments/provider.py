"""What the gateway and the watcher know of a payment provider, its errors, and a price in its asset."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from ipaddress import IPv4Address, IPv6Address
from typing import ClassVar, Protocol

import attrs
import httpx

from db.billing.invoices import Invoice
from db.billing.orders import Quote
from db.billing.payment_facts import Captured, InvoiceClosed, ProviderFact
from db.billing.provider_events import StoredEvent
from db.errors import BusinessError
from db.money import DIGITS, Money
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


@attrs.frozen
class StillOpen:
    """The provider's answer to `look_up`: the invoice can still be paid."""


class PricedIn(Protocol):
    """Settings that say in what an invoice is paid."""

    @property
    def asset(self) -> str:
        """What an invoice is quoted in, such as RUB or USDT."""
        ...

    @property
    def rate(self) -> str:
        """Roubles for one whole unit of it; empty if none is set, or none is needed."""
        ...


class Provider(ABC):
    """A payment provider, as the gateway and the watcher know it.

    An adapter is this with `name`, `authenticate`, `understand`, `create_invoice` and `look_up`; the rest has defaults that
    fit a provider which waits for no verdict. Methods that talk to it raise ProviderUnavailable and ProviderRefused, and hold
    no lease.
    """

    __slots__ = ()

    name: ClassVar[str]
    """Its name in `money_in`, in events and in the path `/payments/<name>`."""
    is_watched: ClassVar[bool] = True
    """Whether `look_up` can be asked about an invoice."""
    settings: PricedIn
    client: httpx.AsyncClient

    @property
    def assets(self) -> tuple[str, ...]:
        """What an invoice can be quoted in."""
        return (self.settings.asset,)

    def quote(self, price: Money) -> Quote:
        """Return what it would charge for a price in roubles. Raises BusinessError without a configured rate."""
        return quote_in(price, self.settings.asset, self.settings.rate, f"payments.{self.name}.rate")

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

    async def aclose(self) -> None:
        """Close the connections to the provider; calls that are on their way fail."""
        await self.client.aclose()


_SHOWN_DIGITS = 2
"""Crypto amounts are rounded up to as many decimals as people read."""


def quote_in(price: Money, asset: str, rate: str, setting: str) -> Quote:
    """`price` in `asset` at `rate` roubles for one whole unit, rounded up. Raises BusinessError without a usable rate."""
    if asset == price.currency:
        return Quote(price, Decimal(1))
    if asset not in DIGITS:
        raise BusinessError(
            f"{setting.rpartition('.')[0]}.asset = {asset!r} is no known asset; known are {', '.join(DIGITS)}"
        )
    try:
        value = Decimal(rate)
    except InvalidOperation:
        value = Decimal(0)
    if not value.is_finite() or value <= 0:
        raise BusinessError(
            f'there is no rate for {asset}: set {setting} to the roubles for one whole unit, such as "92.50"'
        )
    whole = Decimal(price.amount).scaleb(-DIGITS[price.currency]) / value
    digits = min(DIGITS[asset], _SHOWN_DIGITS)
    return Quote(Money.parse(whole.quantize(Decimal(1).scaleb(-digits), ROUND_CEILING), asset), value)
