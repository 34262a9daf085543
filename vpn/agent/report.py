"""What the agent tells about itself: state, usage, metrics, and that the backend was heard."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import attrs

from vpn.agent import metrics
from vpn.agent.clock import NodeClock
from vpn.agent.heard import HeardFile
from vpn.agent.node import Node
from vpn.agent.usage import UsageBook
from vpn.cut import Way
from vpn.protocol import CAN_BATCH, CAN_CUT, CAN_LIST, CAN_MOVE_CLOCK, CAN_SYNC, NodeState, Usage
from vpn.version import version

VERSION: Final = version()


@attrs.define(eq=False)
class Reporter:
    """Reports on one node."""

    agent_id: str
    node: Node
    clock: NodeClock
    heard_file: HeardFile
    _usage: UsageBook = attrs.field(init=False, factory=UsageBook)

    def heard(self) -> None:
        """Somebody who can extend keys spoke. It is as if not, while no change can be written down: what was paid for then
        cannot reach this node either."""
        if self.node.store.failure:
            return
        now = self.clock.real()
        if self.node.contact.heard(now):
            self.node.grace_changed()
        self.heard_file.remember(self.node.contact, now)

    def state(self) -> NodeState:
        """The node at a glance."""
        node, life = self.node, self.node.keeper.current
        serving, expired, pending = node.counts()
        capabilities = {CAN_LIST, CAN_SYNC, CAN_BATCH, "usage", "kick", "expiry"}
        if life is not None and life.cutter.way is not Way.NONE:
            capabilities |= {CAN_CUT, life.cutter.way.value}
        if self.clock.offset is not None:
            capabilities.add(CAN_MOVE_CLOCK)
        return NodeState(
            agent_id=self.agent_id,
            boot_id="" if life is None else life.boot_id,
            agent_version=VERSION,
            xray_version="" if life is None else life.version,
            ready=life is not None,
            why=node.keeper.why_down or node.store.failure,
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
        )

    async def usage(self, since: str, after: str, limit: int) -> Usage:
        """A page of counters. Raises XrayDown or XrayCallFailed."""
        return await self._usage.page(await self.node.keeper.life(), since, after, limit)

    def measure(self) -> None:
        """Bring the gauges up to date."""
        for state, value in zip(("serving", "expired", "pending"), self.node.counts(), strict=True):
            metrics.KEYS.labels(state).set(value)
        life = self.node.keeper.current
        metrics.READY.set(life is not None)
        metrics.STARTS.set(self.node.keeper.starts)
        metrics.CONNECTIONS.set(0 if life is None else len(life.connections))
        metrics.CUSTOMERS.set(0 if life is None else life.connections.customers)
        now = self.clock.real()
        metrics.SILENCE.set(max(0.0, now - self.node.contact.last_heard))
        metrics.GRACE.set(self.node.contact.grace_at(now))
        metrics.REFUSING.set(bool(self.node.store.failure))
        if life is not None:
            metrics.INFO.labels(VERSION, life.version).set(1)
