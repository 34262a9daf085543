"""How the process is asked to end, and how it leaves.

The first TERM or INT drains and stops in order, the second shortens, the third leaves at once. HUP reloads, unless the process
has lost the terminal that it started with: then it is the first TERM.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import NoReturn

import trio

from runtime.control.command import OperableSystem
from runtime.log import logs
from runtime.log.writer import write_bounded
from runtime.redaction import redact, some_lines

LEAVE_FLUSH_SECONDS = 2.0
"""Seconds that the log may take to be written before the process leaves all the same."""


def print_last_words(text: str) -> None:
    """Write a line to stderr after everything logged so far, past the log: for what an operator must see at the end."""
    logs.flush(LEAVE_FLUSH_SECONDS)
    write_bounded(2, some_lines(redact(text)).encode("utf-8", "backslashreplace") + b"\n", LEAVE_FLUSH_SECONDS)


def leave(code: int) -> NoReturn:
    """Flush the log and end the process now: no finally blocks, no exit handlers, no waiting for tasks or threads."""
    logs.stop(LEAVE_FLUSH_SECONDS)
    os._exit(code)


_TAKEN = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Signals:
    """Acts on the signals of this process while `watch_signals` is open."""

    def __init__(self, received: AsyncIterator[int], *, has_terminal: bool = False) -> None:
        self._received = received
        self._has_terminal = has_terminal

    async def serve(self, system: OperableSystem) -> None:
        """Act on each signal as it comes."""
        asked = 0
        async for number in self._received:
            name = signal.Signals(number).name
            if number == signal.SIGHUP:
                if not self._has_terminal or has_controlling_terminal():
                    system.reloader.reload(name)
                elif asked == 0:
                    # The kernel and the shell both tell; the second one is no second request.
                    asked = 1
                    system.stop(f"{name}, the terminal is gone", drain=True)
                continue
            asked += 1
            if asked == 1:
                system.stop(name, drain=True)
            elif asked == 2:
                system.stop(f"a second {name}", within=system.config.supervisor.second_signal_budget)
            else:
                system.leave_now(f"a third {name}")


def has_controlling_terminal() -> bool:
    """Whether the process has one now; one that was closed is none any more."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        return False
    return True


@contextmanager
def watch_signals(*, for_good: bool = False) -> Iterator[Signals]:
    """Take over TERM, INT and HUP; only on the main thread. Elsewhere (in tests) the signals stay as they are.

    `for_good` says that the process ends with the system: what comes later, while the log is written, is asked already.
    """
    if threading.current_thread() is not threading.main_thread():
        yield Signals(_Never())
        return
    early: list[int] = []
    before = {number: signal.signal(number, lambda number, _: early.append(number)) for number in _TAKEN}
    # What was told to ignore it (nohup) is to outlive its terminal.
    has_terminal = before[signal.SIGHUP] is not signal.SIG_IGN and has_controlling_terminal()
    try:
        # Closed, the receiver hands on what it has not read to the handler that was there before: in the end, to nobody.
        with trio.open_signal_receiver(*_TAKEN) as received:
            for number in early:
                signal.raise_signal(number)
            yield Signals(received, has_terminal=has_terminal)
    finally:
        if not for_good:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Never(AsyncIterator[int]):
    async def __anext__(self) -> int:
        await trio.sleep_forever()
        raise AssertionError
