"""What the heartbeats mean: a pure function from (beats, spikes, now, limits) to actions.

Both watchdogs use it, the task on the loop (repairs) and the thread beside it (reports, exit). The rules:

- Only all three beats stale end the process. A beat that is absent (nothing of its kind runs, or all of it is paused or
  parked) cannot testify; it takes the loop's age against its own limit, because whatever it would watch runs on the loop.
- While the loop turns, one stale beat is repaired: that worker, that health check, that pool is restarted.
- While the loop stands, nothing else is blamed: everything on it is silent for the same reason.
- A worker that is idle before its due time is fresh. Overdue, stuck and starved are not. Paused and parked are left out.
- After a forgiven pause (the machine slept) every age counts from the forgiving.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable

import attrs

from runtime.core.beats import Beats, WorkerBeat, WorkerState


@attrs.frozen
class StaleLimits:
    """Ages in seconds above which a beat is stale, and what makes a diagnostic."""

    event_loop: float = 60.0
    """The loop has not turned for so long."""
    worker: float = 90.0
    """Some worker is overdue, stuck or starved for so long."""
    healthcheck: float = 90.0
    """No probe round has completed for so long."""
    gil_timer: float | None = None
    """The thread was not let run for so long: the timer in C ends the process. None: as long as `WatchdogThread` finds right."""
    blocked: float = 5.0
    """The loop has not turned for so long: reported with its stack while it happens, long before it is stale."""
    diagnostic_worker: float = 120.0
    """A worker beat older than this, with a recent spike, makes a CRITICAL diagnostic. It counts from the last proven progress,
    over repairs, which come at `worker` and would else keep it younger than this for ever."""
    diagnostic_spike: float = 300.0
    """A pool wait spike is recent for so long."""

    @property
    def longest(self) -> float:
        """The longest stale limit: the timer behind the thread must be longer than this."""
        return max(self.event_loop, self.worker, self.healthcheck)


class StaleReason(enum.Enum):
    """Why a beat is not fresh."""

    OVERDUE = "overdue"
    """Idle past its due time."""
    STUCK = "stuck"
    """One piece of work runs longer than its limit, without progress."""
    STARVED = "starved"
    """Its oldest message waits unhandled."""
    SILENT = "silent"
    """No probe round completed."""


class RepairKind(enum.Enum):
    """What is to be restarted."""

    WORKER = "worker"
    POOL = "pool"
    HEALTHCHECK = "healthcheck"


@attrs.frozen
class WorkerSample:
    """One worker's slots, as read at one moment."""

    name: str
    state: WorkerState = WorkerState.ACTIVE
    next_due: float = math.inf
    handling_since: float | None = None
    progressed_at: float = 0.0
    limit: float = math.inf
    waiting_since: float | None = None
    unproven_since: float | None = None


@attrs.frozen
class Snapshot:
    """Everything a verdict is made from. Times are seconds of one monotonic clock."""

    now: float
    event_loop: float | None = None
    healthcheck: float | None = None
    healthcheck_name: str = "healthcheck"
    workers: tuple[WorkerSample, ...] = ()
    pools: tuple[WorkerSample, ...] = ()
    last_pool_wait_spike: float | None = None
    ages_count_from: float = -math.inf
    """Silence before this moment does not count."""


@attrs.frozen
class Ages:
    """How long each beat has been silent beyond what is normal, in seconds; None where the beat is absent."""

    event_loop: float | None
    worker: float | None
    healthcheck: float | None
    worker_name: str = ""
    """The stalest worker, if one is not fresh."""
    worker_why: StaleReason | None = None
    spike: float | None = None
    """How long ago the last pool wait spike was."""
    unproven: float | None = None
    """How long the worker that was repaired longest ago has proven no progress, over its repairs; None if none is in doubt."""
    unproven_name: str = ""

    @property
    def starving(self) -> float | None:
        """The worker beat for the diagnostic: as if no repair had been."""
        return max((age for age in (self.worker, self.unproven) if age is not None), default=None)

    def line(self) -> str:
        """All ages in one line."""
        worker = _age(self.worker)
        if self.worker_why is not None:
            worker += f" ({self.worker_name} is {self.worker_why.value})"
        if self.unproven is not None and self.unproven > (self.worker or 0.0):
            worker += f" ({self.unproven_name} was repaired and has proven no progress for {self.unproven:.1f} s)"
        spike = "none seen" if self.spike is None else f"{self.spike:.1f} s ago"
        return (
            f"event_loop {_age(self.event_loop)}, worker {worker}, healthcheck {_age(self.healthcheck)}; "
            f"last pool wait spike: {spike}"
        )


@attrs.frozen
class LoopBlocked:
    """The loop has not turned for longer than `StaleLimits.blocked`: report its stack. Nothing to repair from within."""

    age: float
    stale: bool
    """Whether it is stale already, beyond `StaleLimits.event_loop`."""


@attrs.frozen
class Repair:
    """Restart this worker, this pool or the health check. Meaningful only while the loop turns."""

    kind: RepairKind
    name: str
    why: StaleReason
    age: float

    def line(self) -> str:
        """Which worker is stale, why, since when, and what is done about it."""
        return f"{self.kind.value} {self.name} is {self.why.value} for {self.age:.1f} s: restarting it"


@attrs.frozen
class Diagnose:
    """Workers starve and the pool was slow: say at CRITICAL who holds what and who waits."""

    ages: Ages


@attrs.frozen
class LeaveProcess:
    """All three beats are stale: leave with status 70."""

    ages: Ages


Action = LoopBlocked | Repair | Diagnose | LeaveProcess


def take_snapshot(beats: Beats, *, ages_count_from: float = -math.inf) -> Snapshot:
    """Read the slots. Safe on any thread."""
    return Snapshot(
        now=beats.now(),
        event_loop=beats.event_loop,
        healthcheck=beats.healthcheck,
        healthcheck_name=beats.healthcheck_name,
        workers=tuple(_sample(beat) for beat in beats.workers.values()),
        pools=tuple(_sample(beat) for beat in beats.pools.values()),
        last_pool_wait_spike=beats.last_pool_wait_spike,
        ages_count_from=ages_count_from,
    )


def worker_age(worker: WorkerSample, snapshot: Snapshot) -> tuple[float, StaleReason | None] | None:
    """How stale one worker is and why: (0, None) while fresh; None if it is paused or parked."""
    if worker.state is not WorkerState.ACTIVE:
        return None
    now, floor = snapshot.now, snapshot.ages_count_from
    age, why = 0.0, None
    if worker.handling_since is not None:
        silent = now - max(worker.handling_since, worker.progressed_at, floor)
        if silent > worker.limit:
            age, why = silent, StaleReason.STUCK
    elif now > worker.next_due:
        age, why = now - max(worker.next_due, floor), StaleReason.OVERDUE
    if worker.waiting_since is not None:
        waited = now - max(worker.waiting_since, floor)
        if waited > age:
            age, why = waited, StaleReason.STARVED
    return age, why


def beat_ages(snapshot: Snapshot) -> Ages:
    """The age of each beat. The worker beat is the stalest of all active workers."""
    name, why, worker = "", None, None
    for sample in snapshot.workers:
        verdict = worker_age(sample, snapshot)
        if verdict is not None and (worker is None or verdict[0] > worker):
            worker, why = verdict
            name = sample.name
    unproven, unproven_name = max(_unproven(snapshot), default=(None, ""))
    return Ages(
        event_loop=_since(snapshot.event_loop, snapshot),
        worker=worker,
        healthcheck=_since(snapshot.healthcheck, snapshot),
        worker_name=name if why is not None else "",
        worker_why=why,
        # A spike is an event, not a silence: a forgiven pause does not make it younger.
        spike=None if snapshot.last_pool_wait_spike is None else snapshot.now - snapshot.last_pool_wait_spike,
        unproven=unproven,
        unproven_name=unproven_name,
    )


def _unproven(snapshot: Snapshot) -> Iterable[tuple[float, str]]:
    """Of each worker that was repaired how long it has proven nothing. One that is down on its way back counts, too."""
    for sample in snapshot.workers:
        if sample.unproven_since is not None and sample.state in (WorkerState.ACTIVE, WorkerState.DOWN):
            yield snapshot.now - max(sample.unproven_since, snapshot.ages_count_from), sample.name


def all_stale(ages: Ages, limits: StaleLimits) -> bool:
    """Whether the process is to end: by its own verdict, and by systemd, which is told nothing from then on.

    A beat that is absent takes the loop's age against its own limit.
    """
    loop = ages.event_loop
    worker = loop if ages.worker is None else ages.worker
    healthcheck = loop if ages.healthcheck is None else ages.healthcheck
    return (
        _beyond(loop, limits.event_loop) and _beyond(worker, limits.worker) and _beyond(healthcheck, limits.healthcheck)
    )


def judge(snapshot: Snapshot, limits: StaleLimits) -> list[Action]:
    """What to do now. Pure: the same snapshot always gives the same actions; callers keep the episodes."""
    ages = beat_ages(snapshot)
    actions: list[Action] = []
    loop = ages.event_loop
    if _beyond(loop, min(limits.blocked, limits.event_loop)):
        assert loop is not None
        actions.append(LoopBlocked(loop, stale=loop > limits.event_loop))
    if not _beyond(loop, limits.event_loop):
        actions += _repairs(RepairKind.WORKER, snapshot.workers, snapshot, limits.worker)
        actions += _repairs(RepairKind.POOL, snapshot.pools, snapshot, limits.worker)
        if ages.healthcheck is not None and ages.healthcheck > limits.healthcheck:
            actions.append(
                Repair(RepairKind.HEALTHCHECK, snapshot.healthcheck_name, StaleReason.SILENT, ages.healthcheck)
            )
    if (
        _beyond(ages.starving, limits.diagnostic_worker)
        and ages.spike is not None
        and ages.spike <= limits.diagnostic_spike
    ):
        actions.append(Diagnose(ages))
    if all_stale(ages, limits):
        actions.append(LeaveProcess(ages))
    return actions


def _repairs(kind: RepairKind, samples: Iterable[WorkerSample], snapshot: Snapshot, limit: float) -> Iterable[Repair]:
    for sample in samples:
        verdict = worker_age(sample, snapshot)
        if verdict is not None and verdict[1] is not None and verdict[0] > limit:
            yield Repair(kind, sample.name, verdict[1], verdict[0])


def _sample(beat: WorkerBeat) -> WorkerSample:
    return WorkerSample(
        beat.name,
        beat.state,
        beat.next_due,
        beat.handling_since,
        beat.progressed_at,
        beat.limit,
        beat.waiting_since,
        beat.unproven_since,
    )


def _since(stamp: float | None, snapshot: Snapshot) -> float | None:
    return None if stamp is None else max(0.0, snapshot.now - max(stamp, snapshot.ages_count_from))


def _beyond(age: float | None, limit: float) -> bool:
    return age is not None and age > limit


def _age(age: float | None) -> str:
    return "absent" if age is None else f"{age:.1f} s"
