"""Remembering across restarts when the backend was heard, and until when the grace after a silence lasts."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

import attrs

from runtime.logs import get_logger
from vpn.agent import files
from vpn.agent.expiry import BackendContact
from vpn.agent.settings import ExpirySettings

log = get_logger(__name__)

_TOUCH_SECONDS: Final = 60.0


@attrs.define(eq=False)
class HeardFile:
    """The file `heard`: its time of change is when the backend was last heard, to a minute; its content, until when the
    grace lasts after a silence. Without it the backend counts as just heard."""

    directory: Path
    _touched: float = attrs.field(init=False, default=float("-inf"))
    _kept: float = attrs.field(init=False, default=float("-inf"))
    _tried: float = attrs.field(init=False, default=float("-inf"))

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.directory / "heard"

    def load(self, expiry: ExpirySettings, now: float) -> BackendContact:
        """What is remembered. A clock that was set back since makes no grace longer."""
        contact = BackendContact(now, expiry.grace, expiry.silence, expiry.settle)
        try:
            contact.last_heard = min(now, self.path.stat().st_mtime)
            settled_at = _number(self.path.read_text() or "-inf")
            self._kept = self._tried = settled_at
            contact.settled_at = min(now + expiry.settle, settled_at)
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            log.warning("cannot tell for certain when the backend was heard", file=self.path.name, reason=str(error))
        return contact

    def remember(self, contact: BackendContact, now: float) -> None:
        """Keep it: at once if a silence has just ended, otherwise at most once a minute."""
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
            log.warning("cannot remember when the backend was heard", file=self.path.name, reason=error.strerror)


def _number(text: str) -> float:
    number = float(text)
    if math.isnan(number):
        raise ValueError("it holds no number")
    return number
