"""What happened to providers' events and invoices, as events and figures. Bodies and links are in the database alone."""

from __future__ import annotations

import logging
from typing import ClassVar

import attrs

from runtime import Event
from runtime.metrics import SECONDS, counter, histogram

DELIVERIES = counter(
    "atlas_provider_events_total",
    "Providers' events by what they led to: processed, ignored, failed, replayed, refused, postponed.",
    labels=("provider", "outcome"),
)
EVENT_SETTLE_SECONDS = histogram(
    "atlas_provider_event_seconds",
    "From the arrival of a provider's event to its booking, where that was done at once.",
    buckets=SECONDS,
    labels=("provider",),
)
INVOICES = counter(
    "atlas_invoices_total",
    "Invoices by what became of them: opened, refused, unavailable, settled, closed, open, unknown, questioned.",
    labels=("provider", "outcome"),
)


REFUNDS = counter(
    "atlas_provider_refunds_total",
    "Refunds that providers were asked for, by what they said: done, pending, refused, unknown.",
    labels=("provider", "outcome"),
)


@attrs.frozen
class RefundMade(Event):
    """A provider said what became of a refund that we asked for."""

    level: ClassVar[int] = logging.WARNING
    provider: str
    number: int
    state: str
    why: str = ""

    def line(self) -> str:
        reason = f": {self.why}" if self.why else ""
        return f"{self.provider}: refund {self.number} at the provider is {self.state}{reason}"


@attrs.frozen
class EventSettled(Event):
    """A provider's event was booked."""

    provider: str
    number: int
    result: str
    problem: str = ""

    def line(self) -> str:
        why = f" ({self.problem})" if self.problem else ""
        return f"{self.provider} event {self.number}: {self.result}{why}"


@attrs.frozen
class EventPostponed(Event):
    """A provider's event is stored, and waits to be booked."""

    level: ClassVar[int] = logging.WARNING
    provider: str
    number: int
    why: str

    def line(self) -> str:
        return f"{self.provider} event {self.number} is stored and waits for the payment watcher: {self.why}"


@attrs.frozen
class EventFailed(Event):
    """A provider's event cannot be booked by repeating it; a case is open."""

    level: ClassVar[int] = logging.ERROR
    provider: str
    number: int
    why: str

    def line(self) -> str:
        return f"{self.provider} event {self.number} cannot be booked: {self.why}; a case is open, see `atlas cases`"


@attrs.frozen
class DeliveryRefused(Event):
    """Something came in a provider's name that is not authentic; nothing was stored."""

    level: ClassVar[int] = logging.WARNING
    provider: str
    source: str
    why: str
    left_out: int = 0
    """Deliveries of this source that were refused since the last such line; there is one a minute at most."""

    def line(self) -> str:
        others = f" ({self.left_out} more of this source since the last such line)" if self.left_out else ""
        return f"{self.provider}: a delivery from {self.source} was refused: {self.why}{others}"


@attrs.frozen
class DeliveryUnread(Event):
    """Something authentic came that cannot be stored: the provider was told so, or a case is open."""

    level: ClassVar[int] = logging.ERROR
    provider: str
    why: str

    def line(self) -> str:
        return f"{self.provider} sent what cannot be stored: {self.why}"


@attrs.frozen
class LatePayment(Event):
    """The watcher found a payment that no event had told of."""

    level: ClassVar[int] = logging.WARNING
    provider: str
    order: int
    result: str

    def line(self) -> str:
        return f"{self.provider}: the payment of order {self.order} was found by asking, not told: {self.result}"


@attrs.frozen
class ProviderAway(Event):
    """A provider does not answer, or refuses us."""

    level: ClassVar[int] = logging.WARNING
    provider: str
    why: str

    def line(self) -> str:
        return f"{self.provider}: {self.why}"
