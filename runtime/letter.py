"""A told message together with the correlation id of whoever told it.

Only a message that has such an id travels in a letter; any other lies in its lane as it is, which is what keeps the
hottest call of the system cheap.
"""

from __future__ import annotations

from runtime.correlation import correlation_id
from runtime.message import Message

current_correlation = correlation_id.get


class Letter:
    """The envelope of one told message."""

    __slots__ = ("correlation", "message")

    def __init__(self, message: Message, correlation: str) -> None:
        self.message = message
        self.correlation = correlation


def addressed(message: Message) -> Message | Letter:
    """The message as it travels: in a letter if the caller works under a correlation id."""
    correlation = current_correlation()
    return Letter(message, correlation) if correlation else message


def told(item: object) -> Message | None:
    """The told message in an item of a lane; None if the item is a request that was asked."""
    if isinstance(item, Letter):
        return item.message
    return item if isinstance(item, Message) else None
