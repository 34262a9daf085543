"""Cancels at a chosen step of the loop, so that a test can cancel at every one of them in turn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope before the n-th step that any task takes."""

    def __init__(self, n: int, scope: trio.CancelScope) -> None:
        self.left = n
        """Steps to go; zero or less once it has cancelled."""
        self.scope = scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self.scope.cancel()


@contextmanager
def cancel_at_step(n: int, scope: trio.CancelScope) -> Iterator[CancelAtStep]:
    """Cancel `scope` before the n-th step from now, if the block lasts that long."""
    instrument = CancelAtStep(n, scope)
    trio.lowlevel.add_instrument(instrument)
    try:
        yield instrument
    finally:
        trio.lowlevel.remove_instrument(instrument)
