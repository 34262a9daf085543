"""Traffic counters in pages, and which of them moved since they were last asked for."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Mapping
from typing import Final

import attrs

from vpn.agent.life import Life
from vpn.protocol import KeyUsage, Usage
from vpn.xray.api import Traffic

_SNAPSHOT_SECONDS: Final = 60.0
_DIGITS: Final = 16


@attrs.define(eq=False)
class UsageBook:
    """Counters of one life of Xray at a time.

    A first page reads Xray; the pages that follow it come from the same reading. `number` grows with every reading that
    found counters moved, and is the mark that readers come back with.
    """

    _boot_id: str = ""
    _number: int = 0
    _moved: dict[str, tuple[Traffic, int]] = attrs.field(factory=dict)  # last counters, and at which number they moved
    _names: list[str] = attrs.field(factory=list)
    _read_at: float = float("-inf")

    async def page(self, life: Life, since: str, after: str, limit: int) -> Usage:
        """A page of counters that moved after the mark `since`. Raises XrayCallFailed."""
        if not after or self._boot_id != life.boot_id or time.monotonic() - self._read_at > _SNAPSHOT_SECONDS:
            self._take(life.boot_id, await life.api.traffic())
        known = self._number_of(since)
        found: list[KeyUsage] = []
        more = False
        for name in self._names[bisect_right(self._names, after) :]:
            traffic, number = self._moved[name]
            if number <= known:
                continue
            if len(found) == limit:
                more = True
                break
            found.append(KeyUsage(name, traffic.uplink, traffic.downlink))
        return Usage(life.boot_id, tuple(found), found[-1].key_id if more else None, f"{life.boot_id}-{self._number}")

    def _take(self, boot_id: str, counters: Mapping[str, Traffic]) -> None:
        if boot_id != self._boot_id:
            self._boot_id, self._number, self._moved = boot_id, 0, {}
        moved = [name for name, traffic in counters.items() if self._moved.get(name, (None, 0))[0] != traffic]
        if moved:
            self._number += 1
            for name in moved:
                self._moved[name] = (counters[name], self._number)
            self._names = sorted(self._moved)
        self._read_at = time.monotonic()

    def _number_of(self, since: str) -> int:
        boot_id, _, number = since.rpartition("-")
        is_number = number.isascii() and number.isdecimal() and len(number) <= _DIGITS
        return int(number) if boot_id == self._boot_id and is_number else 0
