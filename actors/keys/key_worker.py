"""What activation and fast expiry have in common: rows are claimed, nodes are told, results are confirmed."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, TypeVar

import attrs
import trio
from attrs.validators import ge, gt

from actors.keys.events import KEY_SETTLE_SECONDS, KEYS_SETTLED, KeyFailed, KeyPostponed, KeySettled, KeysOverdue
from actors.pool.client import Pool, pool_of
from actors.pool.worker import require_claims_outlast_budget
from db.errors import DatabaseBusy, LeaseError
from db.keys.claims import KeyClaim, NodeConfirmation, Placement, longest_retry
from db.lease.queue import Lane
from db.work.claims import Claimer, enlist_claimer
from runtime import (
    ActorCrashed,
    ActorRestarting,
    AskError,
    AskTimeout,
    Budget,
    Iteration,
    PeriodicWorker,
    Request,
    UnknownActor,
    WakeUp,
    get_logger,
)
from vpn.errors import NodeConflict, NodeError, NodeRefused, NodeUnauthorized


@attrs.define(eq=False)
class OverdueKeys:
    """The keys of one iteration that have waited too long, or failed too often, and are not settled."""

    after: float
    "Seconds that are too long."
    attempts: int
    "Failures that are too many."
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
    at_the_database: trio.CapacityLimiter
    "Keys whose outcome may be written down at the same time."
    claimed_at: float = attrs.field(factory=trio.current_time)
    "On trio's clock: what the claims know of the database's clock was so at this moment."
    is_whole: bool = True
    "Every claim was used up or given back."
    silent: dict[str, Exception] = attrs.field(factory=dict)
    "Nodes that did not answer in time, and how that looked."
    _slots: dict[str, trio.CapacityLimiter] = attrs.field(factory=dict)

    def waited(self, claim: KeyClaim) -> float:
        """Seconds since the key has been wanted so, by the database's clock."""
        return claim.wait_seconds + trio.current_time() - self.claimed_at

    def slots_of(self, node: str, concurrency: int) -> trio.CapacityLimiter:
        """How many keys may be told to this node at a time, shared by the whole iteration."""
        return self._slots.setdefault(node, trio.CapacityLimiter(concurrency))


log = get_logger("keys")
R = TypeVar("R")

_SOONEST_RETRY = 1.0
_LATEST_RETRY = 60.0
_LOCAL_RETRY = 0.02


@attrs.define(eq=False)
class KeyWorker(PeriodicWorker):
    """Drives nodes to what the rows of `vpn_keys` want, in three phases.

    Role: (1) claim rows in one short transaction; (2) tell the nodes over HTTP with no lease held; (3) confirm in a second
    short transaction, fenced by the claim's epoch. Owns: nothing that may not die with it.
    Receives: WakeUp. Sends: requests to `node.<name>`.
    On crash: its claims are free for the next incarnation at once, and no attempt is counted.
    Invariants: no lease is held while a node is asked; one key's trouble delays no other key, and one node's trouble no other
    node; a node that is away costs no attempt.
    """

    lane: ClassVar[Lane] = Lane.INTERACTIVE
    "In which its requests for connections queue."

    pool: str = "pool.main"
    claim_seconds: float = 30.0
    "How long a claim lasts if this process dies; a successor under the same name does not wait for it."
    node_patience: float = 5.0
    "How long a node may take for one key, its actor's restarts included."
    concurrency: int = 64
    "Keys that are told to one node at the same time."
    leases: int = attrs.field(default=4, validator=ge(1))
    "Connections at a time, so that a page of keys does not queue in front of everybody else."
    alert_after: float = attrs.field(default=1800.0, validator=gt(0))
    "Seconds that a key may wait before that is an alert."
    alert_attempts: int = attrs.field(default=2, validator=ge(1))
    "Failed attempts of one key from which on that is an alert."
    alert_cooldown: float = attrs.field(default=300.0, validator=ge(0))
    "Seconds between two alerts."
    _owner: Claimer | None = attrs.field(init=False, default=None)
    _silent_until: float = attrs.field(init=False, default=float("-inf"))

    async def on_start(self) -> None:
        await super().on_start()
        require_claims_outlast_budget(self, self.claim_seconds)

    async def after_start(self) -> None:
        await super().after_start()
        # Whatever an earlier incarnation left behind is due now, not after the start jitter.
        self.context.ref.tell(WakeUp())

    async def iterate(self, budget: Budget) -> Iteration:
        pool = pool_of(self.context, self.pool, lane=self.lane)
        owner, self._owner = self._owner, None  # kept only if the iteration comes to its end: see _claim
        try:
            is_unprepared = await self.prepare(pool, budget)
            if budget.is_spent:
                return Iteration(done=budget.done, more=True)
            owner, claims = await self._claim(pool, owner)
            self.context.failpoint("claimed")
            round_ = KeyRound(
                budget, OverdueKeys(self.alert_after, self.alert_attempts), trio.CapacityLimiter(self.leases)
            )
            async with trio.open_nursery() as nursery:
                for claim in claims:
                    nursery.start_soon(self._settle, pool, claim, round_)
        except LeaseError as error:
            return self._without_database(error)
        except BaseExceptionGroup as group:
            lost, others = group.split(LeaseError)
            if lost is None or others is not None:
                raise
            return self._without_database(_first_of(lost))
        # What could not be given back is free at once for a new incarnation of the owner.
        self._owner = owner if round_.is_whole else None
        self._alert(round_.overdue)
        return Iteration(done=budget.done, more=is_unprepared or len(claims) == self.page_size)

    async def prepare(self, pool: Pool, budget: Budget) -> bool:
        """What the worker does in the database before it claims, within half of the budget; nothing by default.

        Whether it has to go on with it at once.
        """
        return False

    @abstractmethod
    async def claim(self, pool: Pool, owner: Claimer) -> list[KeyClaim]:
        """Phase 1: claim due rows."""

    @abstractmethod
    async def tell(self, claim: KeyClaim, place: Placement) -> NodeConfirmation:
        """Phase 2: drive one node."""

    @abstractmethod
    async def confirm(self, pool: Pool, claim: KeyClaim, applied: Sequence[NodeConfirmation]) -> str:
        """Phase 3: write down what the nodes have; returns the outcome's name."""

    @abstractmethod
    async def postpone(self, pool: Pool, claim: KeyClaim, delay: float, why: str) -> bool:
        """Give the claim back without counting an attempt."""

    @abstractmethod
    async def fail(self, pool: Pool, claim: KeyClaim, why: str, known_generation: int) -> str:
        """Count a real failure; the next attempt is newer than `known_generation`. Returns the outcome's name."""

    async def ask_node(self, place: Placement, request: Request[R]) -> R:
        """Ask the node's actor; a restart of that actor is waited out, because every request is idempotent.

        Raises the errors of `vpn.errors`, AskError when the actor did not answer within `node_patience`, and UnknownActor
        for a node that is not configured here.
        """
        node = self.context.lookup(f"node.{place.node}")
        deadline = trio.current_time() + self.node_patience
        while True:
            try:
                return await node.ask(request, within=max(deadline - trio.current_time(), 0.001))
            except (ActorRestarting, ActorCrashed):
                if trio.current_time() >= deadline:
                    raise
                await trio.sleep(_LOCAL_RETRY)

    async def _claim(self, pool: Pool, owner: Claimer | None) -> tuple[Claimer, list[KeyClaim]]:
        """Claim under the owner of the last iteration, or, if that one was cut short, as a new incarnation of it: claims that
        it left behind are free at once then."""
        if owner is None:
            name = f"{self.context.services.instance or self.context.services.system_name}/{self.context.name}"
            owner = await pool.run(f"{self.context.name}.enlist", enlist_claimer, name)
        return owner, await self.claim(pool, owner)

    async def _settle(self, pool: Pool, claim: KeyClaim, round_: KeyRound) -> None:
        """Drive every node that is behind, each on its own: what one has is written down while another is still waited for."""
        troubles: list[Exception] = []
        if not claim.placements:
            await self._confirm(pool, claim, [], round_, troubles)
        async with trio.open_nursery() as nursery:
            for place in claim.placements:
                nursery.start_soon(self._drive, pool, claim, place, round_, troubles)
        refusals = [error for error in troubles if _is_refusal(error)]
        try:
            if refusals:
                await self._fail(pool, claim, round_, refusals[0])
            elif troubles:
                await self._postpone(pool, claim, round_, troubles[0])
        except DatabaseBusy as error:
            self._leave(claim, round_, str(error))
        await round_.budget.count()

    async def _drive(
        self, pool: Pool, claim: KeyClaim, place: Placement, round_: KeyRound, troubles: list[Exception]
    ) -> None:
        async with round_.slots_of(place.node, self.concurrency):
            if place.node in round_.silent:
                troubles.append(round_.silent[place.node])
                return
            try:
                applied = await self.tell(claim, place)
            except (NodeError, AskError, UnknownActor) as error:
                if isinstance(error, AskTimeout):
                    # it took all the patience that there is: the others of this iteration need not try
                    round_.silent[place.node] = error
                troubles.append(error)
                return
            self.context.failpoint("applied")
            await self._confirm(pool, claim, [applied], round_, troubles)

    async def _confirm(
        self,
        pool: Pool,
        claim: KeyClaim,
        applied: Sequence[NodeConfirmation],
        round_: KeyRound,
        troubles: list[Exception],
    ) -> None:
        try:
            async with round_.at_the_database:
                outcome = await self.confirm(pool, claim, applied)
        except DatabaseBusy as error:
            troubles.append(error)  # this key's alone: somebody keeps a row of it locked
            return
        self.context.failpoint("confirmed")
        took = round_.waited(claim)
        KEYS_SETTLED.labels(self.context.name, outcome).inc()
        KEY_SETTLE_SECONDS.labels(self.context.name).observe(max(took, 0.0))
        self.context.emit(KeySettled(actor=self.context.name, key_id=claim.key_id, outcome=outcome, took=took))

    async def _fail(self, pool: Pool, claim: KeyClaim, round_: KeyRound, error: Exception) -> None:
        known = error.generation if isinstance(error, NodeConflict) else -1
        async with round_.at_the_database:
            outcome = await self.fail(pool, claim, str(error), known)
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

    async def _postpone(self, pool: Pool, claim: KeyClaim, round_: KeyRound, error: Exception) -> None:
        delay = retry_delay(round_.waited(claim))
        async with round_.at_the_database:
            is_ours = await self.postpone(pool, claim, delay, str(error))
        round_.is_whole = round_.is_whole and is_ours
        self.context.failpoint("postponed")
        self._try_again(claim, round_, delay, str(error))
        KEYS_SETTLED.labels(self.context.name, "postponed").inc()

    def _leave(self, claim: KeyClaim, round_: KeyRound, why: str) -> None:
        """Nothing can be written down about the key: it stays claimed until the next look of a new incarnation of the owner."""
        round_.is_whole = False
        self._try_again(claim, round_, retry_delay(round_.waited(claim)), why)
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

    def _alert(self, overdue: OverdueKeys) -> None:
        """Say that keys wait too long: at once, and again no sooner than after the cooldown."""
        now = trio.current_time()
        if overdue.oldest is None or now < self._silent_until:
            return
        self._silent_until = now + self.alert_cooldown
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

    def _without_database(self, error: BaseException) -> Iteration:
        log.warning("the database cannot be worked on; the rows wait", actor=self.context.name, error=str(error))
        self.context.after(_SOONEST_RETRY, WakeUp())
        return Iteration(done=0, more=False, note="no database")


def _first_of(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, NodeRefused | NodeConflict) and not isinstance(error, NodeUnauthorized)


def retry_delay(waited: float, jitter: Callable[[], float] = random.random) -> float:
    """Seconds until a key that has waited so long for its node is tried again: half of that, 1 to 60, ±20 %.

    The delay grows with the outage without any counter, so that an outage costs no attempts.
    """
    base = min(max(waited / 2, _SOONEST_RETRY), _LATEST_RETRY)
    return base * (0.8 + 0.4 * jitter())
