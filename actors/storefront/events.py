"""What the storefront reports, and its figures. None of them holds what a customer wrote or reads."""

from __future__ import annotations

import logging
from typing import ClassVar

import attrs

from runtime import Event
from runtime.metrics import SECONDS, counter, histogram
from runtime.wording import duration

SCREENS_SHOWN = counter(
    "atlas_storefront_screens_total", "Screens by what became of them at Telegram.", labels=("screen", "end")
)
SCREEN_SECONDS = histogram(
    "atlas_storefront_screen_seconds", "From an update's arrival to its screen at Telegram.", buckets=SECONDS
)
ANSWER_SECONDS = histogram(
    "atlas_storefront_answer_seconds", "From a press's arrival to its answer at Telegram.", buckets=SECONDS
)


@attrs.frozen
class ScreenFailed(Event):
    """A screen could not be made: a defect of ours. The customer was told that nothing is lost."""

    level: ClassVar[int] = logging.ERROR
    screen: str
    error: str

    def line(self) -> str:
        return f"the screen {self.screen} failed with {self.error}; the customer was told to press again"


@attrs.frozen
class ScreenRefused(Event):
    """Telegram did not take a screen as it was said: a defect of ours, or of a text that was laid over ours."""

    level: ClassVar[int] = logging.ERROR
    screen: str
    why: str

    def line(self) -> str:
        return f"Telegram refuses the screen {self.screen}: {self.why}"


@attrs.frozen
class StorefrontAway(Event):
    """Customers get no answers: Telegram does not answer us, or does not know the bot."""

    level: ClassVar[int] = logging.ERROR
    why: str

    def line(self) -> str:
        return f"customers get no answers: {self.why}"


@attrs.frozen
class StorefrontBack(Event):
    """Customers get answers again."""

    level: ClassVar[int] = logging.INFO
    away: float

    def line(self) -> str:
        return f"customers get answers again after {duration(self.away)}"
