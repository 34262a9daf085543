"""The budget of one iteration of a worker: its time, its counts, and how it shares the loop with other tasks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from runtime.core.beats import WorkerBeat
from runtime.errors import Fatal, Killed, LeaseHeldAcrossCall
from runtime.log.logs import get_logger

_log = get_logger("atlas.worker")


class Budget:
    """Given to `iterate`. The total is enforced from outside as well: past the deadline the iteration is cancelled.

    Asking `is_spent` between pages ends an iteration where it suits it; being cancelled ends it wherever it waits.
    """

    __slots__ = ("_beat", "_since_yield", "_stopped", "deadline", "done", "failed", "page_size", "yield_every")

    def __init__(self, seconds: float, page_size: int, yield_every: int, beat: WorkerBeat) -> None:
        self.deadline = trio.current_time() + seconds
        """When the iteration must have ended, on trio's clock."""
        self.page_size = page_size
        """Items to claim at a time."""
        self.yield_every = yield_every
        """Items between two turns of the loop."""
        self.done = 0
        """Items counted so far."""
        self.failed = 0
        """Items that failed inside `isolate`."""
        self._beat = beat
        self._since_yield = 0
        self._stopped = False

    @property
    def remaining(self) -> float:
        """Seconds left, never negative; 0 once the worker was asked to stop."""
        return 0.0 if self._stopped else max(0.0, self.deadline - trio.current_time())

    @property
    def is_spent(self) -> bool:
        """Whether it is time to end: no time is left, or the worker was asked to stop. Ask between pages."""
        return self.remaining == 0.0

    def stop(self) -> None:
        """The worker was asked to stop: `is_spent` from now on."""
        self._stopped = True

    def progress(self) -> None:
        """Show that the iteration goes on, without counting an item: the worker's beat stays fresh."""
        self._beat.progress()

    async def count(self, items: int = 1) -> None:
        """Count finished items, keep the worker's beat fresh, and let other tasks run after every `yield_every` of them."""
        self.done += items
        self._since_yield += items
        self._beat.progress()
        if self._since_yield >= self.yield_every:
            self._since_yield = 0
            await trio.lowlevel.checkpoint()

    @contextmanager
    def isolate(self, item: str) -> Iterator[None]:
        """An exception inside is this item's alone: logged with `item`'s name, counted in `failed`, and swallowed.

        Let through: cancellation, `Fatal`, a failpoint's kill, and a lease held across a call, which is a bug in the
        worker and not in the item.
        """
        try:
            yield
        except (Fatal, Killed, LeaseHeldAcrossCall):
            raise
        except Exception as error:  # noqa: BLE001  one item's failure must not spoil the batch
            self.failed += 1
            _log.error("an item failed, the others go on", worker=self._beat.name, item=item, error=error)
