"""What happened to customers' renewals, as events and figures."""

from __future__ import annotations

import logging
from typing import ClassVar

import attrs

from runtime.events import Event
from runtime.metrics import counter

RENEWALS = counter("atlas_renewals_total", "Renewals that were tried, by how the try ended.", labels=("outcome",))


@attrs.frozen
class Renewed(Event):
    """A subscription was paid for from the balance."""

    level: ClassVar[int] = logging.INFO
    subscription: int
    price: str
    until: str

    def line(self) -> str:
        return f"subscription {self.subscription} is renewed for {self.price}, until {self.until}"


@attrs.frozen
class RenewalLacksFunds(Event):
    """A balance does not cover a renewal."""

    level: ClassVar[int] = logging.INFO
    subscription: int
    price: str
    next_try: str

    def line(self) -> str:
        return f"subscription {self.subscription} is not renewed: its balance lacks {self.price}; tried again {self.next_try}"


@attrs.frozen
class RenewalPostponed(Event):
    """The database could not do it now, as when somebody keeps the customer's row locked; no failure was counted."""

    level: ClassVar[int] = logging.WARNING
    subscription: int
    retry_in: float
    why: str

    def line(self) -> str:
        return f"the renewal of subscription {self.subscription} waits {self.retry_in:.0f} s: {self.why}"


@attrs.frozen
class RenewalFailed(Event):
    """A renewal ended in an error of ours; nothing was debited."""

    level: ClassVar[int] = logging.ERROR
    subscription: int
    failures: int
    is_final: bool
    why: str

    def line(self) -> str:
        what = "a case is open for it (`atlas cases`)" if self.is_final else "it is tried again"
        return f"the renewal of subscription {self.subscription} failed {self.failures} times, {what}: {self.why}"
