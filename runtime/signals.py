"""Signals: the first TERM or INT drains and stops in order, the second shortens, the third leaves. HUP reloads."""

from __future__ import annotations

import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from runtime.system import System


class Signals:
    """Acts on the signals of this process while `watch_signals` is open."""

    def __init__(self, received: AsyncIterator[int]) -> None:
        self._received = received

    async def serve(self, system: System) -> None:
        """Act on each signal as it comes."""
        asked = 0
        async for number in self._received:
            name = signal.Signals(number).name
            if number == signal.SIGHUP:
                system.reloader.reload(name)
                continue
            asked += 1
            if asked == 1:
                system.stop(name, drain=True)
            elif asked == 2:
                system.stop(f"a second {name}", within=system.config.supervisor.second_signal_budget)
            else:
                system.leave_now(f"a third {name}")


@contextmanager
def watch_signals() -> Iterator[Signals]:
    """Take over TERM, INT and HUP; only on the main thread. Elsewhere (in tests) the signals stay as they are."""
    if threading.current_thread() is not threading.main_thread():
        yield Signals(_Never())
        return
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
        yield Signals(received)


class _Never(AsyncIterator[int]):
    async def __anext__(self) -> int:
        await trio.sleep_forever()
        raise AssertionError
