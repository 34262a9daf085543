"""What the service's actors announce to all that subscribe, after the commit that made it true.

    self.context.subscribe(KeyActive)      # in on_start; then a @handler for it

An announcement is a hint to look: it is lost with the process, to an actor that is between two incarnations or whose mailbox is
full, and what another process did (a command, a second supervisor) is not announced in this one. The rows are the truth.
"""

from __future__ import annotations

from typing import ClassVar

import attrs

from runtime import Message


@attrs.frozen
class Announcement(Message):
    """Base of all of them: subscribing to it means every one."""

    droppable: ClassVar[bool] = True


@attrs.frozen
class PurchaseFinal(Announcement):
    """A payment was captured and booked, or the balance paid. Once for each, not for its repetitions."""

    paid_with: str
    """The provider's name, or "balance"."""
    result: str
    """What it led to: "entitlement", "balance_credit", or "case"."""
    money_in: int | None = None
    """The row of `money_in`, where money came from outside."""
    order_id: int | None = None
    """The order, where one was known."""


@attrs.frozen
class KeyActive(Announcement):
    """Every node that the key belongs on has confirmed it: its customer can connect."""

    key_id: str
    subscription_id: int
    customer_id: int


@attrs.frozen
class AccessEnded(Announcement):
    """The key is off every node, whatever ended it (its time, a revocation, a replacement by another key)."""

    key_id: str
    subscription_id: int
    customer_id: int
