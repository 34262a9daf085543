"""When a key's time is over. It is decided on the node alone, so that it holds while the backend is away.

Here are the node's clock, the queue of ends, the last contact of the backend with the grace that follows its silence,
and the file that remembers it across restarts.
"""

from __future__ import annotations

import heapq
import math
import os
import time
from pathlib import Path
from typing import Final

import attrs

from runtime import get_logger
from vpn.agent.config.settings import ExpirySettings
from vpn.agent.state import files
from vpn.protocol import KeySpec


@attrs.define
class NodeClock:
    """The node's clock in Unix seconds: real time, shifted by `offset` seconds. `offset` None: real time, which cannot
    be moved.
    """

    offset: float | None = None

    def now(self) -> float:
        """The node's time: what customers' ends are compared with."""
        return time.time() + (self.offset or 0.0)

    def real_now(self) -> float:
        """Real time, whatever the offset: for everything that is not about customers' time."""
        return time.time()

    def move(self, offset: float) -> bool:
        """Set the distance to real time; False if that is not allowed."""
        if self.offset is None:
            return False
        self.offset = offset
        return True


@attrs.define
class BackendContact:
    """The backend's last contact, and the grace that keys get while it is silent. All times are real Unix seconds.

    While the backend makes contact at least every `silence` seconds (15 minutes) a key ends exactly at its time. A
    silent backend cannot extend keys, so keys then live `grace` seconds longer (a day): a dead backend must not switch
    off people who pay. The grace lasts until `settle` seconds (5 minutes) after the next contact, the backend's time to
    catch up.
    """

    last_contact: float
    grace: float = 86_400.0
    silence: float = 900.0
    settle: float = 300.0
    settled_at: float = attrs.field(init=False, default=float("-inf"))

    def note_contact(self, now: float) -> bool:
        """The backend made contact at `now`. True if that ended a silence: the grace now has an end."""
        was_silent = now - self.last_contact >= self.silence
        if was_silent:
            self.settled_at = now + self.settle
        self.last_contact = max(now, self.last_contact)
        return was_silent

    def grace_at(self, now: float) -> float:
        """Seconds that a key lives beyond its time right now."""
        silent = now - self.last_contact >= self.silence
        return self.grace if silent or now < self.settled_at else 0.0

    def next_change(self, now: float) -> float:
        """The next time at which the grace changes if the backend makes no contact before; infinity if never."""
        if now < self.settled_at:
            return self.settled_at
        silent_at = self.last_contact + self.silence
        return silent_at if now < silent_at else math.inf


class ExpiryQueue:
    """Keys by the end of their time. Entries of keys that changed since are skipped when they come up."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, str]] = []

    def add(self, spec: KeySpec) -> None:
        """Watch this key; keys without an end need no watching."""
        if spec.expires_at is not None:
            heapq.heappush(self._heap, (spec.expires_at.timestamp(), spec.key_id))

    def pop_due(self, now: float, grace: float) -> list[tuple[str, float]]:
        """Take out all entries whose time, with the grace, is over: (key id, end)."""
        due = []
        while self._heap and self._heap[0][0] + grace <= now:
            end, key_id = heapq.heappop(self._heap)
            due.append((key_id, end))
        return due

    def next_end(self) -> float | None:
        """The earliest end being watched."""
        return self._heap[0][0] if self._heap else None


def is_over(spec: KeySpec, now: float, grace: float, ended_upto: float = float("-inf")) -> bool:
    """Whether the key's time, with the grace, is over. Keys that had their end at `ended_upto` were ended before: a grace that
    began later does not bring them back, only a clock that was wrong does."""
    if spec.expires_at is None:
        return False
    end = spec.expires_at.timestamp()
    return end + grace <= now or end <= min(ended_upto, now)


log = get_logger(__name__)

_TOUCH_SECONDS: Final = 60.0


@attrs.define(eq=False)
class LastContactFile:
    """The file `heard` in the data directory, which remembers the backend's last contact across restarts.

    Its time of change is the last contact, to a minute; its content is until when the grace lasts after a silence.
    Without the file the backend counts as just having made contact.
    """

    directory: Path
    _touched: float = attrs.field(init=False, default=float("-inf"))
    _kept: float = attrs.field(init=False, default=float("-inf"))
    _tried: float = attrs.field(init=False, default=float("-inf"))

    @property
    def path(self) -> Path:
        """The file; its name is what nodes of earlier versions have on disk."""
        return self.directory / "heard"

    def load(self, expiry: ExpirySettings, now: float) -> BackendContact:
        """What is remembered, as of `now` in real Unix seconds. A clock that was set back since makes no grace longer.
        A file that cannot be read is logged and counts as missing.
        """
        contact = BackendContact(now, expiry.grace, expiry.silence, expiry.settle)
        try:
            contact.last_contact = min(now, self.path.stat().st_mtime)
            settled_at = _number(self.path.read_text() or "-inf")
            self._kept = self._tried = settled_at
            contact.settled_at = min(now + expiry.settle, settled_at)
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            log.warning(
                "cannot tell for certain when the backend made contact last", file=self.path.name, reason=str(error)
            )
        return contact

    def remember(self, contact: BackendContact, now: float) -> None:
        """Write it down: at once if a silence has just ended, otherwise at most once a minute. A full disk is logged,
        not raised: it must not keep the backend from asking.
        """
        if contact.settled_at == self._tried and abs(now - self._touched) <= _TOUCH_SECONDS:
            return
        self._touched, self._tried = now, contact.settled_at
        try:
            if contact.settled_at != self._kept:
                files.replace(self.path, b"%.3f" % contact.settled_at)
                self._kept = contact.settled_at
            else:
                self.path.touch(mode=0o600)
            os.utime(self.path, (now, now))
        except OSError as error:  # a full disk must not keep the backend from asking
            log.warning("cannot remember when the backend made contact", file=self.path.name, reason=error.strerror)


def _number(text: str) -> float:
    number = float(text)
    if math.isnan(number):
        raise ValueError("it holds no number")
    return number
