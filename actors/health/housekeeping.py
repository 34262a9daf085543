"""Housekeeping: stale orders expire, old rows go, the money views are checked, and the auditor looks.

`ViolationTracker` tells which violation is worth an alarm, and which is only work in progress.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Final

import attrs
import trio
from attrs.validators import ge, gt

from actors.conditions import Condition, ConditionTracker
from actors.health.auditing import AUDITOR, look
from actors.health.chores import Chore, apply_rules, chores, do_page
from actors.health.figures import publish_figures
from actors.leadership.leader_lease import LeaderLease, hold_leader_lease
from actors.pool.client import Pool, pool_of
from actors.pool.database_worker import DatabaseWorker
from actors.sealing import seal_opener
from db.billing.invariants import Invariant, check_invariant, list_invariants, open_money_case
from db.embedded import EmbeddedSettings
from db.errors import DatabaseBusy, LeaseError, LeaseExpired
from db.lease.queue import Lane
from db.settings import ReferralSettings, WithdrawalSettings
from db.work.leader_leases import LostEpoch
from db.work.sealing import Seal
from runtime import Budget, Iteration, WakeUp
from runtime.metrics import counter, gauge

MAX_VIOLATIONS_TRACKED: Final = 10_000
"""So many violations of a view that holds at rest are told apart. More than that, look after look, is trouble by itself."""

VIOLATIONS = gauge(
    "atlas_money_violations", "Rows of each money view at the last look: each must be empty.", labels=("view",)
)

_TOO_MANY_TO_TRACK: Final = "(more than can be told apart)"


@attrs.define
class ViolationTracker:
    """Remembers since when each view has listed each of its subjects.

    A view that must hold at every commit is in trouble as soon as it lists anything. One that holds only at rest may list
    what is being worked on: it is in trouble when it lists the same subject at every look for `patience` seconds, at two
    looks at least, however many others come and go.
    """

    patience: float
    _since: dict[str, dict[str, float]] = attrs.field(init=False, factory=dict)

    def judge(self, found: Invariant, now: float) -> Condition:
        """Take in one look at `now`, in seconds; returns what it means."""
        VIOLATIONS.labels(found.name).set(found.violations)
        problems = dict(found.sample)
        if found.violations > len(found.sample):
            problems[_TOO_MANY_TO_TRACK] = f"{found.violations} at once"
        before = self._since.get(found.name, {})
        since = {subject: before.get(subject, now) for subject in problems}
        self._since[found.name] = since
        if not found.at_rest:
            lasting = [subject for subject, _ in found.sample]
        else:
            stayed = (subject for subject in since if subject in before and now - since[subject] >= self.patience)
            lasting = sorted(stayed, key=lambda subject: since[subject])
        if not lasting:
            return Condition(found.name, "")
        worst = lasting[0]
        age = f" for {now - since[worst]:.0f} s" if now > since[worst] else ""
        return Condition(
            found.name,
            f"{found.violations} violations, such as {worst}: {problems[worst]}{age}; `atlas verify` lists them",
        )


def in_trouble(conditions: Iterable[Condition]) -> list[Condition]:
    """Return those of the conditions that are in trouble."""
    return [condition for condition in conditions if condition.trouble]


ROWS = counter("atlas_housekeeping_rows_total", "Rows that housekeeping marked or took away.", labels=("chore",))
_NAMED = 5
"""Violations that are named of a view that must hold at every commit: one is an alarm."""


@attrs.define(eq=False)
class Housekeeping(DatabaseWorker):
    """Does its chores page by page, then looks at every money view, lets the auditor look, and says what is in trouble.

    Role: the work that belongs to no other actor. Owns: what the last look at each view found. Receives: WakeUp. Sends: nothing;
    trouble is an event when it begins, once a `cooldown` while it lasts, and when it ends, and a case a view and day, so that
    the operator's chat hears of it.
    On crash: the next incarnation does all of it again, which changes nothing that was done.
    Invariants: one process at a time does this, by the epoch row "housekeeping", checked in every transaction that writes;
    a view that cannot be read in time is trouble, never an empty view.
    """

    log_name = "housekeeping"
    waiting = "housekeeping waits"
    retry_seconds = 5.0
    starts_at_once = True

    referral: ReferralSettings = attrs.field(factory=ReferralSettings)
    withdrawals: WithdrawalSettings = attrs.field(factory=WithdrawalSettings)
    embedded: EmbeddedSettings = attrs.field(factory=EmbeddedSettings)
    ttl: float = attrs.field(default=30.0, validator=gt(0))
    """Seconds on the database's clock after which the row of a dead process is free."""
    keep_messages_days: float = attrs.field(default=30.0, validator=ge(8))
    """Days for which settled messages are kept."""
    view_seconds: float = attrs.field(default=9.0, validator=gt(0))
    """Seconds that reading one view may take; the server's statement_timeout ends it as well."""
    patience: float = attrs.field(default=60.0, validator=ge(0))
    """Seconds that the same work in progress may stay in a view that holds at rest."""
    cooldown: float = attrs.field(default=3600.0, validator=gt(0))
    """Seconds between two alarms about the same lasting trouble."""
    audit_every: float = attrs.field(default=3600.0, validator=ge(0))
    """Seconds between two looks of the auditor; while it finds something it looks each time."""
    audit_rows: int = attrs.field(default=300_000, validator=ge(0))
    """So many rows the auditor derives from within the service; of more it compares only what was audited before."""
    _seal: Callable[[], Seal] = attrs.field(init=False, repr=False)
    _watch: ViolationTracker = attrs.field(init=False)
    _conditions: ConditionTracker = attrs.field(init=False)
    _conditions_found: dict[str, Condition] = attrs.field(init=False, factory=dict)
    _next_view: int = attrs.field(init=False, default=0)
    _audited_at: float | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._seal = seal_opener(self.withdrawals, self.embedded)
        self._watch = ViolationTracker(self.patience)
        self._conditions = ConditionTracker(self.cooldown)

    async def iterate(self, budget: Budget) -> Iteration:
        pool = pool_of(self.context, self.pool, lane=Lane.BATCH)
        try:
            async with hold_leader_lease(pool, self.context.name, self.ttl) as lease:
                if isinstance(lease, LeaderLease):
                    return await self._run_chores_and_checks(lease, budget)
                self.context.after(lease.seconds_left + self.retry_seconds, WakeUp())
                return Iteration(note=f"pid {lease.pid} on {lease.host} does it")
        except LostEpoch as lost:
            return Iteration(done=budget.done, note=str(lost))
        except LeaseError as error:
            return self.without_database(error, done=budget.done)

    async def _run_chores_and_checks(self, lease: LeaderLease, budget: Budget) -> Iteration:
        await lease.pool.run("housekeeping.rules", apply_rules, lease.epoch, self.referral)
        for chore in chores(timedelta(days=self.keep_messages_days), self._seal):
            await self._run_chore(chore, lease, budget)
        self.context.failpoint("chores done")
        await publish_figures(lease.pool)
        views = await lease.pool.run("housekeeping.views", list_invariants)
        if self._next_view >= len(views):
            self._next_view = 0
        while self._next_view < len(views):
            if budget.is_spent:
                return Iteration(done=budget.done, more=True, note="the other views are next")
            await lease.ensure_held()
            name, at_rest = views[self._next_view]
            self._conditions_found[name] = await self._check_view(lease.pool, name, at_rest)
            self._next_view += 1
            self.context.failpoint("looked")
            budget.progress()
        if self._audit_is_due():
            if budget.is_spent:
                return Iteration(done=budget.done, more=True, note="the auditor is next")
            await lease.ensure_held()
            self._conditions_found[AUDITOR] = await look(
                lease.pool, lease.epoch, seconds=self.view_seconds, most_rows=self.audit_rows
            )
            self._audited_at = trio.current_time()
            budget.progress()
        troubled = self._report({AUDITOR, *(name for name, _ in views)})
        for condition in troubled:
            await lease.ensure_held()
            await lease.pool.run(
                "housekeeping.case", open_money_case, lease.epoch, condition.subject, condition.trouble
            )
            self.context.failpoint("case opened")
        return Iteration(done=budget.done)

    async def _run_chore(self, chore: Chore, lease: LeaderLease, budget: Budget) -> None:
        while not budget.is_spent:
            await lease.ensure_held()
            done = await lease.pool.run(f"housekeeping.{chore.name}", do_page, lease.epoch, chore, self.page_size)
            self.context.failpoint("page done")
            ROWS.labels(chore.name).inc(done)
            await budget.count(done)
            if done < self.page_size:
                return

    async def _check_view(self, pool: Pool, name: str, at_rest: bool) -> Condition:
        try:
            found = await pool.run(
                "housekeeping.look",
                check_invariant,
                name,
                at_rest,
                MAX_VIOLATIONS_TRACKED if at_rest else _NAMED,
                hold=self.view_seconds,
                within=self.view_seconds,
            )
        except LeaseExpired:
            why = f"not read within {self.view_seconds:g} s"
        except DatabaseBusy as error:
            why = str(error)
        except LeaseError:
            raise
        except Exception as error:  # noqa: BLE001  whatever keeps us from seeing is trouble to be told
            why = f"{type(error).__name__}: {error}"
        else:
            return self._watch.judge(found, trio.current_time())
        return Condition(name, f"it could not be checked ({why}); `atlas verify` takes the time that it needs")

    def _audit_is_due(self) -> bool:
        found = self._conditions_found.get(AUDITOR)
        is_troubled = found is not None and bool(found.trouble)
        return self._audited_at is None or is_troubled or trio.current_time() - self._audited_at >= self.audit_every

    def _report(self, known: set[str]) -> list[Condition]:
        self._conditions_found = {
            name: condition for name, condition in self._conditions_found.items() if name in known
        }
        troubled = in_trouble(self._conditions_found.values())
        self.context.describe(
            money=f"all {len(known) - 1} views are empty, and the auditor finds nothing"
            if not troubled
            else f"look at {', '.join(condition.subject for condition in troubled)}"
        )
        for alert in self._conditions.update(self._conditions_found.values(), trio.current_time()):
            self.context.emit(alert.event(self.context.name))
        return troubled

    def inspect(self) -> dict[str, object]:
        """What is in trouble, beside the schedule."""
        return {**super().inspect(), "conditions": self._conditions.inspect(trio.current_time())}
