"""Writing to a file descriptor when nothing may block: the last words of a watchdog, the report of a dead log writer."""

from __future__ import annotations

import os
import select
import time

CHUNK = 4096
"""A pipe that poll calls writable takes so many bytes without blocking (PIPE_BUF)."""


def write_bounded(fd: int, data: bytes, seconds: float = 0.0) -> bool:
    """Write `data` to `fd`, waiting for room no longer than `seconds` in all; whether all of it was taken.

    Takes no lock, uses no file object and never raises: it is called when everything else is in doubt. A reader that is
    gone, a closed descriptor or a full pipe means False.
    """
    deadline = time.monotonic() + seconds
    poll = select.poll()
    try:
        poll.register(fd, select.POLLOUT)
        rest = memoryview(data)
        while rest:
            wait = max(0.0, deadline - time.monotonic())
            if not any(event & select.POLLOUT for _, event in poll.poll(wait * 1000)):
                return False
            rest = rest[os.write(fd, rest[:CHUNK]) :]
    except (OSError, ValueError):
        return False
    return True
