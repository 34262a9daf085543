"""What systemd is told: ready, stopping, status, and that not all beats are stale. Nothing where it is absent."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping


class Systemd:
    """The notification socket of `Type=notify`.

    Every method returns at once, on any thread, and never raises: a datagram that cannot be sent without waiting is lost,
    which is what a missed keep-alive means anyway.
    """

    def __init__(self, address: str = "", watchdog_seconds: float | None = None) -> None:
        self.watchdog_seconds = watchdog_seconds
        """Within this many seconds `alive` must be repeated, or systemd kills the unit; None if it does not watch us."""
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Systemd:
        """From NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID; silent where systemd did not start us."""
        environment = os.environ if environment is None else environment
        microseconds = environment.get("WATCHDOG_USEC", "")
        meant = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        seconds = int(microseconds) / 1e6 if microseconds.isdecimal() and int(microseconds) and meant else None
        return cls(environment.get("NOTIFY_SOCKET", ""), seconds)

    @property
    def is_there(self) -> bool:
        """Whether anybody listens."""
        return self._socket is not None

    def ready(self) -> None:
        """The service serves."""
        self._send("READY=1")

    def stopping(self) -> None:
        """The ordered shutdown has begun."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send("STATUS=" + text.replace("\n", " "))

    def extend(self, seconds: float) -> None:
        """The start or stop going on needs up to `seconds` more."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def alive(self) -> None:
        """Not all three beats are stale."""
        self._send("WATCHDOG=1")

    def close(self) -> None:
        """Say nothing any more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, text: str) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.sendto(text.encode(), self._address)
