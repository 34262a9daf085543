"""What is to be written down about a message, so that it can be written again when the database was away."""

from __future__ import annotations

import enum

import attrs

from db.outbox import Message, mark_sent, mark_undeliverable, postpone_message, retry_message
from db.tx import Tx


class End(enum.Enum):
    """How an attempt ended."""

    SENT = "sent"
    UNDELIVERABLE = "undeliverable"
    RETRY = "retried"
    POSTPONED = "postponed"


@attrs.frozen
class Verdict:
    """What became of a message at this attempt."""

    message: Message
    end: End
    why: str = ""
    delay: float = 0.0
    "Seconds until the next attempt, for RETRY and POSTPONED."
    is_unreachable: bool = False
    holds_up: bool = False
    "Whether what waits for the same chat waits as well, to keep its order."

    async def write(self, tx: Tx) -> bool:
        """Write it down. Writing again changes nothing. ``False``: somebody else has the message now, or it is settled."""
        match self.end:
            case End.SENT:
                return await mark_sent(tx, self.message)
            case End.UNDELIVERABLE:
                return await mark_undeliverable(tx, self.message, self.why, is_unreachable=self.is_unreachable)
            case End.RETRY:
                return await retry_message(tx, self.message, self.delay, self.why)
            case End.POSTPONED:
                return await postpone_message(tx, self.message, self.delay, self.why)
