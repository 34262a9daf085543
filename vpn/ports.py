"""Choosing TCP ports: one that is likely to be free again after a restart, or any that is free now."""

from __future__ import annotations

import random
import socket
from pathlib import Path
from typing import Final

_LOW: Final = 10_000
_TRIES: Final = 200


def is_free(host: str, port: int) -> bool:
    """Whether a listener could be opened there right now. Raises OSError for a host that is not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            if error.errno in (98, 13):  # EADDRINUSE, EACCES
                return False
            raise
    return True


def choose_lasting(host: str) -> int:
    """A free port that is likely to be free again after a restart: outside the range that the kernel gives to outgoing
    connections. Raises OSError if none was found."""
    chooser = random.SystemRandom()
    low, high = _ephemeral()
    for _ in range(_TRIES):
        port = chooser.randint(_LOW, 65_535)
        if not low <= port <= high and is_free(host, port):
            return port
    raise OSError(f"no free port found on {host} in {_TRIES} tries")


def choose_passing(host: str = "127.0.0.1") -> int:
    """A port that is free now, as the kernel chooses it."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        port = probe.getsockname()[1]
    assert isinstance(port, int)
    return port


def _ephemeral() -> tuple[int, int]:
    try:
        low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
        return int(low), int(high)
    except (OSError, ValueError):
        return 32_768, 60_999
