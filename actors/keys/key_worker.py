"""What activation and fast expiry have in common: rows are claimed, nodes are told, results are confirmed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar, TypeVar, TypeVarTuple

import attrs
import trio
from attrs.validators import ge, gt

from actors.announcements import AccessEnded, KeyActive
from actors.keys.events import (
    KEY_SETTLE_SECONDS,
    KEYS_SETTLED,
    KeyFailed,
    KeyPostponed,
    KeySettled,
    KeysOverdue,
    KeysWait,
)
from actors.nodes.messages import node_ref
from actors.pool.client import Pool, pool_of
from actors.pool.database_worker import ClaimingWorker, outage_delay
from db.errors import DatabaseBusy, LeaseError
from db.keys.claims import KeyClaim, NodeConfirmation, Placement, longest_retry
from db.lease.queue import Lane
from db.tx import Tx
from db.work.claims import Claimer
from runtime import (
    ActorCrashed,
    ActorRestarting,
    AskError,
    AskTimeout,
    Budget,
    Iteration,
    Request,
    UnknownActor,
    WakeUp,
)
from vpn.errors import NodeConflict, NodeError, NodeRefused, NodeUnauthorized


@attrs.define(eq=False)
class OverdueKeys:
    """The keys of one iteration that have waited too long, or failed too often, and are not settled."""

    after: float
    """Seconds that are too long."""
    attempts: int
    """Failures that are too many."""
    count: int = 0
    oldest: KeyClaim | None = None
    waited: float = 0.0
    why: str = ""

    def note(self, claim: KeyClaim, waited: float, attempts: int, why: str) -> None:
        """Take in a key that was not settled: so many seconds after it was wanted, with so many failures."""
        if waited < self.after and attempts < self.attempts:
            return
        self.count += 1
        if self.oldest is None or waited > self.waited:
            self.oldest, self.waited, self.why = attrs.evolve(claim, attempts=attempts), waited, why


@attrs.define(eq=False)
class KeyRound:
    """What the keys of one iteration share."""

    budget: Budget
    overdue: OverdueKeys
    pool: Pool
    db_limiter: trio.CapacityLimiter
    """Keys whose outcome may be written down at the same time."""
    scope: trio.CancelScope
    """Of all the tasks of the iteration: cancelled at the first sign that the database is away."""
    claimed_at: float = attrs.field(factory=trio.current_time)
    """On trio's clock: what the claims know of the database's clock was so at this moment."""
    lost: LeaseError | None = None
    """How it showed that the database is away."""
    all_claims_settled: bool = True
    """Every claim was used up or given back."""
    waits: dict[str, tuple[int, str]] = attrs.field(factory=dict)
    """How many keys wait for what (a node, a locked row), and why the first of them does."""
    timed_out_nodes: dict[str, Exception] = attrs.field(factory=dict)
    """Nodes that did not answer in time, and how that looked."""
    _limiters: dict[str, trio.CapacityLimiter] = attrs.field(factory=dict)

    def note_wait(self, subject: str, why: str) -> None:
        """One more key waits for this."""
        count, first = self.waits.get(subject, (0, why))
        self.waits[subject] = (count + 1, first)

    def waited(self, claim: KeyClaim) -> float:
        """Seconds since the key has been wanted so, by the database's clock."""
        return claim.wait_seconds + trio.current_time() - self.claimed_at

    def limiter_of(self, node: str, concurrency: int) -> trio.CapacityLimiter:
        """How many keys may be told to this node at a time, shared by the whole iteration."""
        return self._limiters.setdefault(node, trio.CapacityLimiter(concurrency))


@attrs.frozen
class KeySql:
    """The statements of one kind of work on keys, as a worker runs them, and the words for what they return."""

    name: str
    """What the transactions are called, before the step: `<name>.claim`."""
    claim: Callable[[Tx, Claimer, int, float], Awaitable[list[KeyClaim]]]
    """Phase 1: claim so many due rows for so many seconds."""
    confirm: Callable[[Tx, KeyClaim, Sequence[NodeConfirmation]], Awaitable[Any]]
    """Phase 3: write down what the nodes have."""
    confirmed: Callable[[Any], str]
    """The name of what `confirm` returned."""
    postpone: Callable[[Tx, KeyClaim, float, str], Awaitable[bool]]
    """Give the claim back for so many seconds without counting an attempt; whether it was still ours."""
    fail: Callable[[Tx, KeyClaim, str, int], Awaitable[Any]]
    """Count a real failure; the next attempt is newer than the generation that the node knows."""
    failed: Callable[[Any], str]
    """The name of what `fail` returned."""
    final: str
    """The name of what `confirm` returns when the last node has confirmed."""
    partly: str
    """The name of what it returns while another node has not."""
    announcement: type[KeyActive] | type[AccessEnded]
    """What that is for those that wait for it."""


R = TypeVar("R")
Args = TypeVarTuple("Args")

_LOCAL_RETRY = 0.02
_NOT_CONFIGURED = (
    "it is not in this configuration; put it back under [nodes], or leave it out: nothing waits for it any more once no "
    "supervisor has seen it for `retire_after` of the actor `reconcile` (10 minutes)"
)


@attrs.define(eq=False)
class KeyWorker(ClaimingWorker):
    """Drives nodes to what the rows of `vpn_keys` want, in three phases.

    Role: (1) claim rows in one short transaction; (2) tell the nodes over HTTP with no lease held; (3) confirm in a second
    short transaction, fenced by the claim's epoch. Owns: nothing that may not die with it.
    Receives: WakeUp. Sends: requests to `node.<name>`.
    On crash: its claims are free for the next incarnation at once, and no attempt is counted.
    Invariants: no lease is held while a node is asked; one key's trouble delays no other key, and one node's trouble no other
    node; a node that is away costs no attempt.
    """

    sql: ClassVar[KeySql]
    """What it runs in its transactions."""
    lane: ClassVar[Lane] = Lane.INTERACTIVE
    """In which its requests for connections queue."""
    log_name = "keys"
    starts_at_once = True

    claim_seconds: float = attrs.field(default=30.0, kw_only=True)
    """How long a claim lasts if this process dies; a successor under the same name does not wait for it."""
    node_patience: float = 12.0
    """How long a node may take for one key, in seconds, its actor's restarts and the batch before it included."""
    concurrency: int = 64
    """Keys that are told to one node at the same time."""
    leases: int = attrs.field(default=4, validator=ge(1))
    """Connections at a time, so that a page of keys does not queue in front of everybody else."""
    alert_after: float = attrs.field(default=1800.0, validator=gt(0))
    """Seconds that a key may wait before that is an alert."""
    alert_attempts: int = attrs.field(default=2, validator=ge(1))
    """Failed attempts of one key from which on that is an alert."""
    alert_cooldown: float = attrs.field(default=300.0, validator=ge(0))
    """Seconds between two alerts."""
    _next_alert_at: float = attrs.field(init=False, default=float("-inf"))
    _told_waits: dict[str, float] = attrs.field(init=False, factory=dict)
    """What keys wait for, and when that was said."""
    _unconfigured: set[str] = attrs.field(init=False, factory=set)

    async def iterate(self, budget: Budget) -> Iteration:
        pool = pool_of(self.context, self.pool, lane=self.lane)
        try:
            is_unprepared = await self.prepare(pool, budget)
            if budget.is_spent:
                return Iteration(done=budget.done, more=True)
            claimer = await self.take_claimer(pool)
            claims = await pool.run(
                f"{self.sql.name}.claim", self.sql.claim, claimer, self.page_size, self.claim_seconds
            )
        except LeaseError as error:
            return self.without_database(error)
        self.context.failpoint("claimed")
        overdue = OverdueKeys(self.alert_after, self.alert_attempts)
        async with trio.open_nursery() as nursery:
            limiter = trio.CapacityLimiter(self.leases)
            round_ = KeyRound(budget, overdue, pool, limiter, nursery.cancel_scope)
            for claim in claims:
                nursery.start_soon(self._settle, claim, round_)
        if round_.lost is not None:
            return self.without_database(round_.lost)
        self.keep_claimer(claimer, all_claims_settled=round_.all_claims_settled)
        self._alert(overdue)
        self._tell_waits(round_)
        return Iteration(done=budget.done, more=is_unprepared or len(claims) == self.page_size)

    async def prepare(self, pool: Pool, budget: Budget) -> bool:
        """What the worker does in the database before it claims, within half of the budget; nothing by default.

        Whether it has to go on with it at once.
        """
        return False

    @abstractmethod
    def request_for(self, claim: KeyClaim, place: Placement) -> Request[Any]:
        """Return what the node is asked in phase 2: to have the key as it is wanted there."""

    async def ask_node(self, place: Placement, request: Request[R]) -> R:
        """Ask the node's actor; a restart of that actor is waited out, because every request is idempotent.

        Raises the errors of `vpn.errors`, AskError when the actor did not answer within `node_patience`, and UnknownActor
        for a node that is not configured here.
        """
        node = node_ref(self.context, place.node)
        deadline = trio.current_time() + self.node_patience
        while True:
            try:
                return await node.ask(request, within=max(deadline - trio.current_time(), 0.001))
            except (ActorRestarting, ActorCrashed):
                if trio.current_time() >= deadline:
                    raise
                await trio.sleep(_LOCAL_RETRY)

    async def _write(
        self, round_: KeyRound, step: str, function: Callable[[Tx, *Args], Awaitable[R]], *args: *Args
    ) -> R:
        """Run one step of phase 3. Raises DatabaseBusy, which is this key's alone: another session keeps a row of it locked.
        Any other trouble of the database is that of all keys: it ends all tasks of the iteration, this one included."""
        async with round_.db_limiter:
            try:
                return await round_.pool.run(f"{self.sql.name}.{step}", function, *args)
            except DatabaseBusy:
                raise
            except LeaseError as error:
                round_.lost = round_.lost or error
                round_.scope.cancel()
        return await trio.sleep_forever()

    async def _settle(self, claim: KeyClaim, round_: KeyRound) -> None:
        """Drive every node that is behind, each on its own: what one has is written down while another is still waited for."""
        troubles: list[Exception] = []
        outcomes: set[str] = set()
        if not claim.placements:
            await self._confirm(claim, [], round_, troubles, outcomes)
        async with trio.open_nursery() as nursery:
            for place in claim.placements:
                nursery.start_soon(self._tell_node, claim, place, round_, troubles, outcomes)
        refusals = [error for error in troubles if _is_refusal(error)]
        try:
            if refusals:
                await self._fail(claim, round_, refusals[0])
            elif troubles:
                await self._postpone(claim, round_, troubles[0])
            elif outcomes == {self.sql.partly}:
                # it got a place while it was claimed, which the claim does not name
                await self._postpone(claim, round_, None)
        except DatabaseBusy as error:
            self._leave_claimed(claim, round_, str(error))
        await round_.budget.count()

    async def _tell_node(
        self, claim: KeyClaim, place: Placement, round_: KeyRound, troubles: list[Exception], outcomes: set[str]
    ) -> None:
        async with round_.limiter_of(place.node, self.concurrency):
            if place.node in round_.timed_out_nodes:
                self._note_trouble(place, round_.timed_out_nodes[place.node], round_, troubles)
                return
            try:
                await self.ask_node(place, self.request_for(claim, place))
            except (NodeError, AskError, UnknownActor) as error:
                if isinstance(error, AskTimeout):
                    # it took all the patience that there is: the others of this iteration need not try
                    round_.timed_out_nodes[place.node] = error
                self._note_trouble(place, error, round_, troubles)
                return
            self._told_waits.pop(f"node {place.node}", None)
            self._unconfigured.discard(f"node {place.node}")
            self.context.failpoint("applied")
            await self._confirm(claim, [NodeConfirmation(place.node)], round_, troubles, outcomes)

    def _note_trouble(self, place: Placement, error: Exception, round_: KeyRound, troubles: list[Exception]) -> None:
        troubles.append(error)
        if isinstance(error, UnknownActor):
            round_.note_wait(f"node {place.node}", _NOT_CONFIGURED)
            self._unconfigured.add(f"node {place.node}")
        elif not _is_refusal(error):
            round_.note_wait(f"node {place.node}", str(error))

    async def _confirm(
        self,
        claim: KeyClaim,
        applied: Sequence[NodeConfirmation],
        round_: KeyRound,
        troubles: list[Exception],
        outcomes: set[str],
    ) -> None:
        try:
            outcome = self.sql.confirmed(await self._write(round_, "confirm", self.sql.confirm, claim, applied))
        except DatabaseBusy as error:
            troubles.append(error)  # this key's alone: another session keeps a row of it locked
            return
        self.context.failpoint("confirmed")
        outcomes.add(outcome)
        took = round_.waited(claim)
        KEYS_SETTLED.labels(self.context.name, outcome).inc()
        KEY_SETTLE_SECONDS.labels(self.context.name).observe(max(took, 0.0))
        self.context.emit(KeySettled(actor=self.context.name, key_id=claim.key_id, outcome=outcome, took=took))
        if outcome == self.sql.final:
            self.context.publish(self.sql.announcement(claim.key_id, claim.subscription_id, claim.customer_id))

    async def _fail(self, claim: KeyClaim, round_: KeyRound, error: Exception) -> None:
        known = error.generation if isinstance(error, NodeConflict) else -1
        outcome = self.sql.failed(await self._write(round_, "fail", self.sql.fail, claim, str(error), known))
        self.context.failpoint("failed")
        is_outdated = claim.attempts == 0 and known >= claim.generation
        self.context.after(0.0 if is_outdated else longest_retry(claim.attempts), WakeUp())
        KEYS_SETTLED.labels(self.context.name, outcome).inc()
        if outcome != "lost":
            round_.overdue.note(claim, round_.waited(claim), claim.attempts + 1, str(error))
        self.context.emit(
            KeyFailed(
                actor=self.context.name,
                key_id=claim.key_id,
                outcome=outcome,
                attempts=claim.attempts + 1,
                waited=round_.waited(claim),
                why=str(error),
            )
        )

    async def _postpone(self, claim: KeyClaim, round_: KeyRound, error: Exception | None) -> None:
        """Give the claim back for a while; without an error at once."""
        delay = 0.0 if error is None else outage_delay(round_.waited(claim))
        why = "another node is to have it, too" if error is None else str(error)
        is_ours = await self._write(round_, "postpone", self.sql.postpone, claim, delay, why)
        round_.all_claims_settled = round_.all_claims_settled and is_ours
        self.context.failpoint("postponed")
        self._try_again(claim, round_, delay, why)
        KEYS_SETTLED.labels(self.context.name, "postponed").inc()

    def _leave_claimed(self, claim: KeyClaim, round_: KeyRound, why: str) -> None:
        """Nothing can be written down about the key: it stays claimed until the next look of a new incarnation of the owner."""
        round_.all_claims_settled = False
        round_.note_wait("a locked row", why)
        self._try_again(claim, round_, outage_delay(round_.waited(claim)), why)
        KEYS_SETTLED.labels(self.context.name, "left").inc()

    def _try_again(self, claim: KeyClaim, round_: KeyRound, delay: float, why: str) -> None:
        waited = round_.waited(claim)
        self.context.after(delay, WakeUp())
        round_.overdue.note(claim, waited, claim.attempts, why)
        self.context.emit(
            KeyPostponed(
                actor=self.context.name,
                key_id=claim.key_id,
                retry_in=delay,
                attempts=claim.attempts,
                waited=waited,
                why=why,
            )
        )

    def _tell_waits(self, round_: KeyRound) -> None:
        """Say what keys wait for: when it begins, and again after the cooldown; of a node that is not configured, once."""
        now = trio.current_time()
        for subject, (count, why) in round_.waits.items():
            told = self._told_waits.get(subject)
            if told is None or (now - told >= self.alert_cooldown and subject not in self._unconfigured):
                self._told_waits[subject] = now
                self.context.emit(KeysWait(actor=self.context.name, subject=subject, count=count, why=why))

    def _alert(self, overdue: OverdueKeys) -> None:
        """Say that keys wait too long: at once, and again no sooner than after the cooldown."""
        now = trio.current_time()
        if overdue.oldest is None or now < self._next_alert_at:
            return
        self._next_alert_at = now + self.alert_cooldown
        self.context.emit(
            KeysOverdue(
                actor=self.context.name,
                count=overdue.count,
                key_id=overdue.oldest.key_id,
                attempts=overdue.oldest.attempts,
                waited=overdue.waited,
                why=overdue.why,
            )
        )


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, NodeRefused | NodeConflict) and not isinstance(error, NodeUnauthorized)
