"""The defect of the old system, as an actor of ATLAS: metrics behind a lock that is taken twice, on the event loop."""

from __future__ import annotations

import threading

import attrs

from runtime import Actor, Message, handler


@attrs.frozen
class RemoveKeys(Message):
    """Count keys that were removed."""

    count: int = 1


class MetricsOfRemovals(Actor):
    """Role: a defect. Owns: a lock. Receives: RemoveKeys. Sends: nothing. On crash: it cannot even crash. Invariants: none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # lock-ok: it is the defect
        self._removed = 0

    @handler
    async def remove_keys(self, message: RemoveKeys) -> None:
        with self._lock:  # lock-ok: it is the defect
            for _ in range(message.count):
                self._count()

    def _count(self) -> None:
        with self._lock:  # lock-ok: it is the defect
            self._removed += 1
