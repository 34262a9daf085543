"""Announcements between actors: who wants to hear of which type, and telling them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.message import Delivery, Message

if TYPE_CHECKING:
    from runtime.core.address import Address


class Topics:
    """Subscriptions of one system by message type. A subscription to a class is one to its subclasses."""

    __slots__ = ("_subscribers",)

    def __init__(self) -> None:
        self._subscribers: dict[type[Message], dict[Address, None]] = {}

    def subscribe(self, kind: type[Message], address: Address) -> None:
        """Tell the actor of each later one. Once for each actor and type."""
        self._subscribers.setdefault(kind, {})[address] = None

    def unsubscribe(self, kind: type[Message], address: Address) -> None:
        """Do so no longer; harmless if it was not subscribed."""
        found = self._subscribers.get(kind)
        if found is not None:
            found.pop(address, None)
            if not found:
                del self._subscribers[kind]

    def publish(self, message: Message) -> int:
        """Tell every subscriber, in the order of subscription; returns how many took it. Never waits, never raises.

        One whose mailbox is full does not get it: that is a dead letter of its.
        """
        subscribers: dict[Address, None] = {}
        for kind in type(message).__mro__:
            subscribers |= self._subscribers.get(kind, {})
        taken = 0
        for address in subscribers:
            if address.mailbox.put(message) is Delivery.ACCEPTED:
                taken += 1
            else:
                address.record_dead_letter(message, "it was published, and the mailbox had no room for it")
        return taken

    def count(self, kind: type[Message]) -> int:
        """How many actors have subscribed to this very type."""
        return len(self._subscribers.get(kind, ()))
