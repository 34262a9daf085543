"""Events of the system as a whole: start, stop, reload."""

from __future__ import annotations

import logging
from typing import ClassVar

import attrs

from runtime.events import Event
from runtime.wording import duration


@attrs.frozen
class SystemStarted(Event):
    """Every child serves."""

    pid: int
    children: int
    took: float

    def line(self) -> str:
        """How many children serve, and how long it took."""
        return f"{self.actor} is up: {self.children} children in {duration(self.took)} (pid {self.pid})"


@attrs.frozen
class SystemStopping(Event):
    """The system was asked to stop."""

    why: str
    drain: bool
    budget: float

    def line(self) -> str:
        """Who asked, and how long it may take."""
        verb = "drains and stops" if self.drain else "stops"
        return f"{self.actor} {verb} within {self.budget:g} s: {self.why}"


@attrs.frozen
class SystemStopped(Event):
    """The tree is down; the process leaves."""

    exit_code: int
    after: float

    def line(self) -> str:
        """With which exit code, after how long."""
        return f"{self.actor} stopped after {duration(self.after)}, exit code {self.exit_code}"


@attrs.frozen
class ConfigReloaded(Event):
    """SIGHUP or `atlas reload`: what was applied and what waits for a restart of the process."""

    level: ClassVar[int] = logging.WARNING

    applied: tuple[str, ...]
    waiting: tuple[str, ...]

    def line(self) -> str:
        """Both lists."""
        applied = ", ".join(self.applied) or "nothing"
        waiting = f"; needs a restart of the process: {', '.join(self.waiting)}" if self.waiting else ""
        return f"configuration reloaded: applied {applied}{waiting}"


@attrs.frozen
class ReloadRefused(Event):
    """The configuration on disk is wrong; the running one stays."""

    level: ClassVar[int] = logging.ERROR

    errors: str

    def line(self) -> str:
        """All errors."""
        return f"configuration not reloaded, the running one stays: {self.errors}"
