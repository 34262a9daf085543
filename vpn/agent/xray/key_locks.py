"""One lock a key, which exists only while it is held or waited for."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import attrs
import trio


@attrs.define(eq=False)
class KeyLocks:
    """Lets one task at a time work on a key. `key_id in locks`: the key's lock is held or waited for."""

    _held: dict[str, tuple[trio.Lock, int]] = attrs.field(init=False, factory=dict)

    def __contains__(self, key_id: str) -> bool:
        return key_id in self._held

    @contextlib.asynccontextmanager
    async def of(self, key_id: str) -> AsyncIterator[None]:
        """Hold the key's lock for the length of the block; first come, first served."""
        lock, users = self._held.get(key_id, (trio.Lock(), 0))
        self._held[key_id] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            lock, users = self._held[key_id]
            if users == 1:
                del self._held[key_id]
            else:
                self._held[key_id] = (lock, users - 1)
