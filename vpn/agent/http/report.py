"""What the agent reports about itself (state, traffic counters in pages, metrics), and noting that the backend made
contact.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import attrs

from vpn.agent.config import metrics
from vpn.agent.state.clock import ClockFile, NodeClock
from vpn.agent.state.owner import Ownership
from vpn.agent.xray.instance import XrayInstance
from vpn.agent.xray.node import AgentNode
from vpn.protocol import (
    CAN_BATCH,
    CAN_CUT,
    CAN_LIST,
    CAN_LIST_EXPIRED,
    CAN_MOVE_CLOCK,
    CAN_OWN,
    CAN_SYNC,
    KeyUsage,
    NodeState,
    UsagePage,
)
from vpn.xray.api import Traffic
from vpn.xray.cutter import CutMethod


def version() -> str:
    """The installed version, "0" if it runs from a copied directory that was never installed."""
    # asked once, and not by the process that becomes Xray: finding it takes a tenth of a second
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("atlas")
    except PackageNotFoundError:
        return "0"


_SNAPSHOT_SECONDS: Final = 60.0
_DIGITS: Final = 16


@attrs.define(eq=False)
class UsagePages:
    """Traffic counters of one Xray instance at a time, in pages.

    A first page reads Xray; the pages that follow it come from the same reading, for at most 60 seconds. `number` grows
    with every reading that found counters moved, and is the mark that readers come back with.
    """

    _boot_id: str = ""
    _number: int = 0
    _moved: dict[str, tuple[Traffic, int]] = attrs.field(factory=dict)  # last counters, and at which number they moved
    _names: list[str] = attrs.field(factory=list)
    _read_at: float = float("-inf")

    async def page(self, instance: XrayInstance, since: str, after: str, limit: int) -> UsagePage:
        """At most `limit` counters that moved after the mark `since` (empty: all), of keys that follow `after`, in
        order of key id. A mark of another instance counts as none. Raises XrayCallFailed.
        """
        if not after or self._boot_id != instance.boot_id or time.monotonic() - self._read_at > _SNAPSHOT_SECONDS:
            self._take(instance.boot_id, await instance.api.traffic())
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
        return UsagePage(
            instance.boot_id, tuple(found), found[-1].key_id if more else None, f"{instance.boot_id}-{self._number}"
        )

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


VERSION: Final = version()


@attrs.define(eq=False)
class Reporter:
    """What one node reports: `state` and `usage` for its clients, `measure` for the metrics.

    Every contact of a backend that can extend keys is noted here too, and remembered in `clock_file`.
    """

    agent_id: str
    node: AgentNode
    clock: NodeClock
    clock_file: ClockFile
    ownership: Ownership
    _usage: UsagePages = attrs.field(init=False, factory=UsagePages)

    def note_backend_contact(self, said: float | None) -> None:
        """A backend that can extend keys made contact; `said` is what it says that the time is, None if it is too old to say.

        While no change can be written down this is no contact: what was paid for then cannot reach this node either.
        """
        moved = said is not None and self.clock.hear(said)
        if moved:
            self.node.clock_changed()
        if not self.node.store.failure:
            if self.node.contact.note_contact(self.clock.elapsed()) or self.node.held:
                self.node.contact_made()
        elif not moved:
            return
        self.clock_file.remember(self.node.contact, self.clock, at_once=moved)

    def state(self) -> NodeState:
        """The node at a glance. Never raises: while Xray is down it says so."""
        node, instance = self.node, self.node.xray.current
        serving, expired, pending = node.counts()
        capabilities = {CAN_LIST, CAN_LIST_EXPIRED, CAN_OWN, CAN_SYNC, CAN_BATCH, "usage", "kick", "expiry"}
        if instance is not None and instance.cutter.method is not CutMethod.NONE:
            capabilities |= {CAN_CUT, instance.cutter.method.value}
        if self.clock.offset is not None:
            capabilities.add(CAN_MOVE_CLOCK)
        return NodeState(
            agent_id=self.agent_id,
            boot_id="" if instance is None else instance.boot_id,
            agent_version=VERSION,
            xray_version="" if instance is None else instance.version,
            ready=instance is not None,
            why=node.xray.why_down or node.store.failure,
            count=len(node.store.desired),
            serving=serving,
            expired=expired,
            pending=pending,
            digest=node.store.desired.digest,
            last_generation=node.store.desired.last_generation,
            sequence=node.store.desired.sequence,
            capabilities=frozenset(capabilities),
            inbounds=(node.facts,),
            now=datetime.fromtimestamp(self.clock.now(), UTC),
            time_source=self.clock.source.value,
            wall_skew=round(self.clock.skew, 3),
            ends_held=node.held,
            why_held=node.why_held,
            owner=self.ownership.owner.database_id,
            xray_ends=node.xray.ends,
            xray_ends_in_a_row=node.xray.ends_in_a_row,
            xray_last_end=node.xray.last_end,
        )

    async def usage(self, since: str, after: str, limit: int) -> UsagePage:
        """A page of counters, as `UsagePages.page`. Raises XrayDown or XrayCallFailed."""
        return await self._usage.page(await self.node.xray.instance(), since, after, limit)

    def measure(self) -> None:
        """Bring the gauges up to date; called before each reading of the metrics."""
        for state, value in zip(("serving", "expired", "pending"), self.node.counts(), strict=True):
            metrics.KEYS.labels(state).set(value)
        instance = self.node.xray.current
        metrics.READY.set(instance is not None)
        metrics.STARTS.set(self.node.xray.starts)
        metrics.ENDS.set(self.node.xray.ends)
        metrics.REFUSED.set(self.node.xray.is_refused)
        metrics.CONNECTIONS.set(0 if instance is None else len(instance.connections))
        metrics.CUSTOMERS.set(0 if instance is None else instance.connections.customers)
        metrics.SILENCE.set(max(0.0, self.clock.elapsed() - self.node.contact.last_contact))
        metrics.GRACE.set(self.node.grace())
        metrics.WALL_SKEW.set(self.clock.skew)
        metrics.HELD.set(self.node.held)
        metrics.REFUSING.set(bool(self.node.store.failure))
        if instance is not None:
            metrics.INFO.labels(VERSION, instance.version).set(1)
