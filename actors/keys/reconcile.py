"""Reconcile: nodes have what the database believes of them, whatever happened behind its back."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import trio
from attrs.validators import ge, gt

from actors.keys.events import RECONCILE_PASSES, PassStopped
from actors.keys.reconcile_pass import Implausible, NodePass, PassLimits
from actors.leadership.leader_lease import LeaderLease, hold_leader_lease
from actors.nodes.messages import node_names
from actors.pool.client import Pool, pool_of
from actors.pool.database_worker import DatabaseWorker
from db.errors import LeaseError
from db.keys.nodes import retire_nodes
from db.keys.reconcile import give_up_pass
from db.lease.queue import Lane
from db.work.leader_leases import LostEpoch
from runtime import AskError, Budget, Iteration, Message, Timer, WakeUp, get_logger, handler
from vpn.errors import BreakerOpen, NodeError, NodeReadOnly, NodeUnavailable, NodeUnreachable

log = get_logger("reconcile")


@attrs.frozen
class CompareAgain(Message):
    """To itself: look at the nodes that could not be compared, or are not settled."""


@attrs.define(eq=False)
class Reconcile(DatabaseWorker):
    """Compares every node with the database, and puts right what differs, both ways.

    Role: the net under activation and expiry, node by node. Keys that a node lost are put back at once, all of them, also those
    that another node has still to get; keys that the database knows as removed go at once as well. Strangers are quarantined and
    removed only after a second sighting, older than `grace`, after a second look on both sides, at most `removals` a pass. Owns:
    nothing that may not die with it: how far a pass has come is a row.
    Receives: WakeUp, also from a node that was started anew. Sends: requests to every `node.<name>`.
    On crash: the next incarnation goes on where the pass stood.
    Invariants: one process at a time does this, by the epoch row "reconcile", relied on for half of `ttl` and checked before each
    removal; no lease is held while a node is asked; an error is never an empty list: a list that fails, or contradicts what the
    node says of itself, stops that node's pass before anything was done, and a surplus that is too large removes nothing.
    """

    log_name = "reconcile"
    waiting = ""
    cause_field = "reason"
    retry_seconds = 5.0

    ttl: float = attrs.field(default=30.0, validator=gt(0))
    """Seconds on the database's clock after which the row of a dead process is free."""
    grace: float = attrs.field(default=120.0, validator=ge(0))
    """Seconds that a stranger must have been in quarantine before it is removed."""
    removals: int = attrs.field(default=100, validator=ge(0))
    """Strangers that one pass may remove from a node."""
    surplus_floor: int = attrs.field(default=20, validator=ge(0))
    """So many strangers on a node are always believed."""
    surplus_share: float = attrs.field(default=0.05, validator=[ge(0)])
    """More than the floor are believed up to this share of the keys that the node lists; beyond, nothing is removed."""
    restore_from: int = attrs.field(default=500, validator=ge(1))
    """From so many missing keys on, they are put back in one request."""
    retire_after: float = attrs.field(default=600.0, validator=gt(0))
    """Seconds after which a node is retired that is not configured any more, and was not seen by any process."""
    patience: float = attrs.field(default=10.0, validator=gt(0))
    """Seconds that a node may take for one answer."""
    retry_troubled: float = attrs.field(default=10.0, validator=gt(0))
    """Seconds after which a node that could not be compared is looked at again."""
    cooldown: float = attrs.field(default=300.0, validator=gt(0))
    """Seconds between two alerts about a node that cannot be compared."""
    _are_all_due: bool = attrs.field(init=False, default=True)
    _all_at: float = attrs.field(init=False, default=float("-inf"))
    """When all nodes are due, not only those that are open or in trouble."""
    _open: set[str] = attrs.field(init=False, factory=set)
    """Nodes whose look is not over."""
    _soon: Timer | None = attrs.field(init=False, default=None)
    _unsettled: set[str] = attrs.field(init=False, factory=set)
    _said_at: dict[str, float] = attrs.field(init=False, factory=dict)
    _verdicts: dict[str, str] = attrs.field(init=False, factory=dict)
    _troubles: dict[str, str] = attrs.field(init=False, factory=dict)

    @handler
    async def wake_up(self, message: WakeUp) -> None:
        self._are_all_due = True
        await super().wake_up(message)

    @handler
    async def look_again(self, message: CompareAgain) -> None:
        await super().wake_up(WakeUp())

    async def iterate(self, budget: Budget) -> Iteration:
        pool = pool_of(self.context, self.pool, lane=Lane.BATCH)
        try:
            async with hold_leader_lease(pool, "reconcile", self.ttl) as lease:
                if not isinstance(lease, LeaderLease):
                    return self._wait_for(lease.holder)
                return await self._reconcile(pool, lease, budget)
        except LeaseError as error:
            self._are_all_due = True
            return self.without_database(error)
        except LostEpoch as error:
            self._are_all_due = True
            log.warning("stopped, and undid nothing", reason=str(error))
            return Iteration(note="another process took over")

    def inspect(self) -> Mapping[str, object]:
        return {**super().inspect(), "verdicts": dict(self._verdicts), "troubles": dict(self._troubles)}

    async def _reconcile(self, pool: Pool, lease: LeaderLease, budget: Budget) -> Iteration:
        names = node_names(self.context.services.registry)
        for retired in await pool.run("reconcile.retire", retire_nodes, names, self.retire_after):
            # a warning was given when keys began to wait for it
            log.info("a node is not configured any more; nothing waits for it from now on", node=retired)
        now = trio.current_time()
        if self._are_all_due or now >= self._all_at:
            self._open |= set(names)
            self._are_all_due, self._all_at = False, now + self.interval * (1 - self.tick_jitter)
        lost: list[Exception] = []
        async with trio.open_nursery() as nursery:
            for name in names:
                if name in self._open or name in self._troubles:
                    nursery.start_soon(self._look_at, name, lease, budget, lost)
        for name in names:
            why = self._troubles.get(name, "")
            self.context.trouble("comparing", f"{name}: {why}" if why else "", about=f"nodes.{name}")
        self._look_again_soon()
        if lost:
            raise lost[0]
        return Iteration(
            done=budget.done,
            more=bool(self._open - self._unsettled),
            note=", ".join(f"{name} {self._verdicts.get(name, '')}" for name in names),
        )

    async def _look_at(self, name: str, lease: LeaderLease, budget: Budget, lost: list[Exception]) -> None:
        limits = PassLimits(
            grace=self.grace,
            removals=self.removals,
            surplus_floor=self.surplus_floor,
            surplus_share=self.surplus_share,
            page_size=self.page_size,
            restore_from=self.restore_from,
            patience=self.patience,
        )
        self._unsettled.discard(name)
        try:
            looked = NodePass(self.context, lease, name, limits, budget)
            verdict = await looked.run()
            self._troubles.pop(name, None)
            if not looked.is_settled:
                self._unsettled.add(name)
            if verdict in ("drifted", "told again"):
                # what is in quarantine is looked at again once it may be removed
                self.context.after(self.grace + 1.0, WakeUp())
        except Implausible as error:
            verdict = "implausible"
            self._stop(name, str(error))
            await self._give_up(lease, name, str(error), lost)
        except NodeReadOnly as error:
            verdict = "failed"
            self._stop(name, str(error))
        except (NodeUnreachable, NodeUnavailable, BreakerOpen) as error:
            # the node's own actor says that it is away, and wakes this one when it is back
            verdict = "away"
            log.info("a node is away", node=name, reason=str(error))
        except (NodeError, AskError) as error:
            verdict = "failed"
            self._stop(name, str(error))
        except (LeaseError, LostEpoch) as error:
            verdict = "interrupted"
            lost.append(error)
        if verdict != "unfinished" and name not in self._unsettled:
            self._open.discard(name)
        self._verdicts[name] = verdict
        RECONCILE_PASSES.labels(name, verdict).inc()

    def _stop(self, name: str, why: str) -> None:
        """Note that a node could not be compared, and say so: when it begins, and once a `cooldown` while it lasts."""
        now = trio.current_time()
        if name not in self._troubles or now - self._said_at[name] >= self.cooldown:
            self._said_at[name] = now
            self.context.emit(PassStopped(actor=self.context.name, node=name, why=why))
        self._troubles[name] = why

    def _look_again_soon(self) -> None:
        """What could not be compared, or is not settled, is looked at again at once and not at the next tick: it may be cured."""
        if self._soon is not None:
            self._soon.cancel()
        is_due = self._troubles or self._unsettled
        seconds = self.retry_seconds if self._unsettled else self.retry_troubled
        self._soon = self.context.after(seconds, CompareAgain()) if is_due else None

    async def _give_up(self, lease: LeaderLease, name: str, why: str, lost: list[Exception]) -> None:
        try:
            await lease.pool.run("reconcile.give_up", give_up_pass, lease.epoch, name, why)
        except (LeaseError, LostEpoch) as error:
            lost.append(error)

    def _wait_for(self, holder: str) -> Iteration:
        self.context.after(self.ttl, WakeUp())
        return Iteration(note=f"done by {holder}")
