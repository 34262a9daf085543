"""Watching another actor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runtime.message import Down

if TYPE_CHECKING:
    from runtime.address import Address


class Monitor:
    """Tells its watcher once, through the control lane, that the watched incarnation is gone.

    Placed on an actor of which nothing runs, it reports at once. It dies with the incarnation that placed it.
    """

    __slots__ = ("_watched", "_watcher")

    def __init__(self, watcher: Address, watched: Address) -> None:
        self._watcher = watcher
        self._watched = watched

    def place(self) -> None:
        """Start watching."""
        if self._watched.is_up:
            self._watched.monitors[self] = None
        else:
            self.report("dead")

    def report(self, reason: str) -> None:
        """Tell the watcher; the monitor is spent."""
        self._watched.monitors.pop(self, None)
        self._watcher.mailbox.put(Down(self._watched.name, self._watched.incarnation, reason))

    def cancel(self) -> None:
        """Stop watching. A Down that is already in the mailbox still comes."""
        self._watched.monitors.pop(self, None)
