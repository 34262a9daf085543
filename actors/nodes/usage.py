"""Usage: customers are told what they moved, whichever node it went through and however often that was started anew."""

from __future__ import annotations

import attrs
from attrs.validators import gt

from actors.nodes.messages import ReadUsage, node_names, node_ref
from actors.pool.client import Pool, pool_of
from db.errors import LeaseError
from db.keys.usage import note_usage
from db.lease.queue import Lane
from runtime import AskError, Budget, Iteration, PeriodicWorker, get_logger
from vpn.errors import NodeError

log = get_logger("usage")


@attrs.define(eq=False)
class UsageCollector(PeriodicWorker):
    """Reads every node's counters, and adds up what they moved since they were read last.

    Role: the figures in a subscription's answer. Owns: for each node, up to where its counters were noted; lost with it, which
    costs one longer reading. Receives: WakeUp. Sends: ReadUsage to every `node.<name>`.
    On crash: counters are absolute, so what was noted before is not added twice.
    Invariants: no lease is held while a node is asked; a node that is away costs nothing: its counters go on.
    """

    pool: str = "pool.main"
    patience: float = attrs.field(default=10.0, validator=gt(0))
    """Seconds that a node may take for one page."""
    _marks: dict[str, str] = attrs.field(init=False, factory=dict)

    async def iterate(self, budget: Budget) -> Iteration:
        pool = pool_of(self.context, self.pool, lane=Lane.BATCH)
        troubles: list[str] = []
        for name in node_names(self.context.services.registry):
            try:
                await self._read(pool, name, budget)
            except (NodeError, AskError) as error:
                troubles.append(f"node.{name}: {error}")
            except LeaseError as error:
                log.warning("the database is away; nodes go on counting", reason=str(error))
                return Iteration(done=budget.done, note="no database")
        return Iteration(done=budget.done, note="; ".join(troubles)[:200])

    async def _read(self, pool: Pool, name: str, budget: Budget) -> None:
        node, since, after, mark, boot = node_ref(self.context, name), self._marks.get(name, ""), "", "", ""
        while True:
            page = await node.ask(ReadUsage(since, after, self.page_size), within=self.patience)
            if boot and page.boot_id != boot:
                return  # started anew between two pages: the next look reads it from the beginning
            mark, boot = mark or page.mark, page.boot_id
            counters = [(user.key_id, user.uplink, user.downlink) for user in page.users]
            if counters:
                await pool.run("usage.note", note_usage, name, boot, counters)
                await budget.count(len(counters))
            if page.next is None or page.next <= after:
                break
            after = page.next
        self._marks[name] = mark
