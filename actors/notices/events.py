"""What happened to notices, as events and figures. None of them holds a text, an address or a chat."""

from __future__ import annotations

import logging
from typing import ClassVar

import attrs

from runtime import Event
from runtime.metrics import SECONDS, counter, histogram
from runtime.wording import duration

NOTICES = counter("atlas_notices_total", "Notices by what became of them at an attempt.", labels=("end",))
NOTICE_SECONDS = histogram(
    "atlas_notice_seconds", "From a notice's being written down to its being sent.", buckets=SECONDS
)


@attrs.frozen
class NoticeSent(Event):
    """Telegram took a notice."""

    level: ClassVar[int] = logging.DEBUG
    message: int
    notice: str
    took: float
    """Seconds since it was written down."""

    def line(self) -> str:
        return f"notice {self.message} ({self.notice}) sent after {self.took:.3f} s"


@attrs.frozen
class NoticeUndeliverable(Event):
    """A notice will not be sent any more."""

    level: ClassVar[int] = logging.WARNING
    message: int
    notice: str
    why: str

    def line(self) -> str:
        return f"notice {self.message} ({self.notice}) is given up: {self.why}"


@attrs.frozen
class NoticeRetried(Event):
    """A notice could not be sent, or may have been: it is tried again."""

    level: ClassVar[int] = logging.WARNING
    message: int
    notice: str
    retry_in: float
    why: str

    def line(self) -> str:
        return f"notice {self.message} ({self.notice}) is tried again in {duration(self.retry_in)}: {self.why}"


@attrs.frozen
class NoticeUntellable(Event):
    """There is no text for a notice: a defect of ours, not of the customer. It waits for a version that has one."""

    level: ClassVar[int] = logging.ERROR
    message: int
    why: str

    def line(self) -> str:
        return f"notice {self.message} waits for a text: {self.why}"


@attrs.frozen
class TelegramAway(Event):
    """No notice can be sent."""

    level: ClassVar[int] = logging.ERROR
    why: str

    def line(self) -> str:
        return f"notices wait: {self.why}"


@attrs.frozen
class TelegramBack(Event):
    """Notices are sent again."""

    level: ClassVar[int] = logging.INFO
    away: float

    def line(self) -> str:
        return f"notices are sent again after {duration(self.away)}"


@attrs.frozen
class TelegramTooFast(Event):
    """Telegram told us to slow down."""

    level: ClassVar[int] = logging.WARNING
    seconds: float
    everything: bool

    def line(self) -> str:
        what = "everything" if self.everything else "one chat"
        return f"Telegram closed {what} for {duration(self.seconds)}; lower telegram.rate or telegram.chat_rate if this recurs"


@attrs.frozen
class OperatorChatMoved(Event):
    """The operator's group has become a supergroup, with another id."""

    level: ClassVar[int] = logging.WARNING
    chat: int

    def line(self) -> str:
        return f"the operator's group has a new id, {self.chat}: set telegram.operator_chat_id to it"
