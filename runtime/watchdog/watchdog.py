"""The watchdog's four rings, put together.

1. A task on the loop: beats, measures the loop's lateness, repairs single stale beats, checks the log's writer.
2. An OS thread: reports a loop that stands, and ends the process with status 70 when all three beats are stale.
3. A timer in C, re-armed by the thread: ends the process with status 1 when code holds the interpreter lock.
4. systemd: told `WATCHDOG=1` unless all three beats are stale.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

import attrs
import trio

from runtime.config.runtime_sections import WatchdogSettings
from runtime.core.beats import Beats
from runtime.events import Event, EventBus
from runtime.log import logs
from runtime.metrics import counter, gauge, histogram
from runtime.watchdog.systemd import Systemd
from runtime.watchdog.thread import WatchdogThread
from runtime.watchdog.verdict import Action, Diagnose, Repair, RepairKind, StaleLimits, beat_ages, judge, take_snapshot

TICK = 1.0
"""Seconds between two ticks of the loop's task, at most: well below what counts as blocked."""
EXCUSING_LATENESS = 1.0
"""If the loop was late by more seconds than this, stale beats are ignored for that tick."""

LATENESS = histogram(
    "atlas_loop_lateness_seconds",
    "How much later than asked the event loop woke the watchdog's task.",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0),
)
BEAT_AGE = gauge("atlas_beat_age_seconds", "How stale each heartbeat is; absent beats are left out.", labels=("beat",))
REPAIRS = counter("atlas_watchdog_repairs_total", "Restarts ordered by the watchdog.", labels=("kind",))
DIAGNOSTICS = counter("atlas_watchdog_diagnostics_total", "CRITICAL diagnostics: workers starve and the pool is slow.")

_log = logs.get_logger("atlas.watchdog")


@attrs.frozen
class BeatStale(Event):
    """A worker, a pool or the health check is stale, and is being restarted."""

    level: ClassVar[int] = logging.ERROR

    kind_of: str
    why: str
    age: float
    where: tuple[str, ...] = ()
    """Where its code stands, outermost first."""
    message: str = ""
    """The type of the message it is handling; empty if none."""
    repair_in: float = 0.0
    """Seconds until it is restarted: it was repaired not long ago."""

    def line(self) -> str:
        """Who is stale, why, for how long, on which message, where it stands, and what is done."""
        message = f" handling {self.message}" if self.message else ""
        where = f" it stands at {_own_code(self.where)}" if self.where else ""
        doing = f";{message}{',' if message and where else ''}{where}" if message or where else ""
        when = f" in {self.repair_in:.1f} s: it was repaired just before" if self.repair_in else ""
        return f"{self.kind_of} {self.actor} is {self.why} for {self.age:.1f} s{doing}; restarting it{when}"


@attrs.frozen
class BeatStillStale(Event):
    """It is as stale as before its repair, and is being restarted once more."""

    level: ClassVar[int] = logging.ERROR

    kind_of: str
    why: str
    age: float
    repairs: int
    """Repairs since it was found stale, without this one."""

    def line(self) -> str:
        """Who does not recover, and what was tried."""
        tried = f"{self.repairs} repair{'' if self.repairs == 1 else 's'} did not help"
        return f"{self.kind_of} {self.actor} is {self.why} for {self.age:.1f} s and {tried}; restarting it again"


@attrs.frozen
class BeatFresh(Event):
    """What was stale is fresh again."""

    kind_of: str
    after: float

    def line(self) -> str:
        """Who, and how long it took."""
        return f"{self.kind_of} {self.actor} is fresh again, {self.after:.1f} s after it was found stale"


@attrs.frozen
class LoopLate(Event):
    """The loop stood for a while; the thread has reported its stack if it was long."""

    level: ClassVar[int] = logging.WARNING

    late: float

    def line(self) -> str:
        """For how long."""
        return (
            f"the event loop stood for {self.late:.1f} s: every actor was late by that; look for code that blocks, unless the "
            "whole process was paused"
        )


@attrs.frozen
class WorkersStarve(Event):
    """A worker is very stale and the pool was slow lately: everything an operator needs to see why."""

    level: ClassVar[int] = logging.CRITICAL

    beats: str
    diagnostic: tuple[str, ...]

    def line(self) -> str:
        """All ages, the spike, and who holds and who waits."""
        details = "".join(f"; {line}" for line in self.diagnostic)
        return f"workers starve: {self.beats}{details}"


_TRIO = os.path.dirname(trio.__file__) + os.sep  # noqa: PTH120  # compared with plain strings


def _own_code(where: Sequence[str]) -> str:
    """The innermost entry that is not trio's: every wait ends inside trio, which tells nobody anything."""
    return next((entry for entry in reversed(where) if not entry.startswith(_TRIO)), where[-1])


def limits_of(settings: WatchdogSettings) -> StaleLimits:
    """The limits that `[watchdog]` asks for."""
    return StaleLimits(
        event_loop=settings.event_loop_stale,
        worker=settings.worker_stale,
        healthcheck=settings.healthcheck_stale,
        diagnostic_worker=settings.worker_critical,
        diagnostic_spike=settings.spike_window,
        blocked=settings.loop_blocked,
        gil_timer=settings.gil_timer,
    )


def _nothing(_: Repair) -> None:
    """No repair."""


def _nowhere(_: str) -> Sequence[str]:
    return ()


def _no_message(_: str) -> str:
    return ""


def _unknown() -> None:
    """Whether a health check runs is not known: its beat is taken as it is."""


class Watchdog:
    """Watches one system's beats. `run` it in a nursery that outlives the system's actors.

    `repair` is called on the loop when one beat is stale: it must order the restart and return at once. It is called once
    per episode, and again each time the stale limit of a worker has passed once more without effect; never sooner after the
    last repair of the same name. `diagnostic` gives lines for
    operators (who holds which lease, who waits); it is called on the loop only, and what it said last is what the thread
    reports when the loop stands. `where(name)` gives an actor's stack, outermost first, and `handling(name)` the type of
    the message it has in hand. `healthcheck_runs` says whether there is a health check to be judged: True while it
    is up, False while it is down, paused, parked or stopped, None where that is unknown.
    """

    def __init__(
        self,
        beats: Beats,
        limits: StaleLimits | None = None,
        *,
        interval: float = 5.0,
        events: EventBus | None = None,
        repair: Callable[[Repair], None] = _nothing,
        diagnostic: Callable[[], Iterable[str]] = tuple,
        where: Callable[[str], Sequence[str]] = _nowhere,
        handling: Callable[[str], str] = _no_message,
        healthcheck_runs: Callable[[], bool | None] = _unknown,
        systemd: Systemd | None = None,
        stderr: int = 2,
        boot_clock: Callable[[], float] | None = None,
    ) -> None:
        self.beats = beats
        self.thread: WatchdogThread | None = None
        self._limits = limits or StaleLimits()
        self._interval = interval
        self._tick = min(interval, TICK)
        self._events = events or EventBus(log=logs.log_event)
        self._repair = repair
        self._diagnostic = diagnostic
        self._where = where
        self._handling = handling
        self._healthcheck_runs = healthcheck_runs
        self._systemd = systemd or Systemd()
        self._stderr = stderr
        self._clocks = {} if boot_clock is None else {"boot_clock": boot_clock}
        self._floor = -math.inf
        self._episodes: dict[tuple[str, str], _Episode] = {}
        self._repaired_at: dict[tuple[str, str], float] = {}
        self._diagnosed = False
        self._last_diagnostic: tuple[float, tuple[str, ...]] = (-math.inf, ())

    @property
    def limits(self) -> StaleLimits:
        """The limits in force; assigning takes effect at the next look of each ring."""
        return self._limits

    @limits.setter
    def limits(self, limits: StaleLimits) -> None:
        self._limits = limits
        if self.thread is not None:
            self.thread.limits = limits

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch until cancelled. Ready when all rings are up; the thread and its timer end with it."""
        self.thread = WatchdogThread(
            self.beats,
            self._limits,
            interval=self._interval,
            loop_thread=threading.get_ident(),
            diagnostic=self._diagnostic_seen_last,
            last_chance=logs.flush,
            systemd=self._systemd,
            stderr=self._stderr,
            **self._clocks,
        )
        BEAT_AGE.from_source(self._ages)
        self.beats.tick()
        self._remember_diagnostic()
        self.thread.start()
        try:
            task_status.started()
            now = trio.current_time()
            while True:
                # From the last waking on: a pause amid `look` is lateness, too.
                due = now + self._tick
                await trio.sleep_until(due)
                now = trio.current_time()
                LATENESS.observe(max(0.0, now - due))
                self.look(now - due)
        finally:
            BEAT_AGE.from_source(None)
            self.thread.stop()

    def look(self, late: float = 0.0) -> None:
        """One round on the loop: beat, then repair what is stale. `late` says how late the loop woke us, in seconds."""
        self._sample_healthcheck()
        self.beats.sample()
        self.beats.tick()
        logs.check()
        if self.beats.now() - self._last_diagnostic[0] >= self._interval:
            self._remember_diagnostic()
        if late > EXCUSING_LATENESS:
            # Nobody on this loop could act meanwhile: everybody gets a full limit to show life again.
            self._floor = self.beats.now()
            self._events.emit(LoopLate("watchdog", late))
        thread = self.thread
        if thread is not None and time.monotonic() - thread.looked_at > 3 * self._interval + 1.0:
            # The thread has missed its looks as well: the process slept. Wait until it has forgiven that.
            if thread.is_alive:
                return
            _log.critical("the watchdog's thread has died; a frozen loop would not be noticed: restart the process")
        ages_count_from = max(self._floor, thread.ages_count_from if thread is not None else -math.inf)
        actions = judge(take_snapshot(self.beats, ages_count_from=ages_count_from), self._limits)
        self._repair_all([action for action in actions if isinstance(action, Repair)])
        self._diagnose(actions)

    def _sample_healthcheck(self) -> None:
        runs = self._healthcheck_runs()
        if runs is False:
            # Put aside by somebody who knows: it cannot testify, and starts afresh when it comes back.
            self.beats.healthcheck = None
        elif runs and self.beats.healthcheck is None:
            # Silence counts from its start, or one that hangs in its very first round would never be found.
            self.beats.probed()

    def _repair_all(self, repairs: Sequence[Repair]) -> None:
        now = self.beats.now()
        stale = {(repair.kind.value, repair.name): repair for repair in repairs}
        for key in [key for key in self._episodes if key not in stale]:
            episode = self._episodes.pop(key)
            self._events.emit(BeatFresh(key[1], kind_of=key[0], after=now - episode.began))
        for key, repair in stale.items():
            due_in = self._repaired_at.get(key, -math.inf) + self._limits.worker - now
            known = self._episodes.get(key)
            if known is None:
                known = self._episodes[key] = _Episode(began=now)
                where = tuple(self._guarded(lambda name=repair.name: self._where(name)))  # type: ignore[misc]  # lambda default
                message = "".join(self._guarded(lambda name=repair.name: (self._handling(name),)))  # type: ignore[misc]
                found = (repair.name, repair.kind.value, repair.why.value, repair.age)
                self._events.emit(BeatStale(*found, where, message, max(0.0, due_in)))
            elif due_in <= 0.0:
                found = (repair.name, repair.kind.value, repair.why.value, repair.age)
                self._events.emit(BeatStillStale(*found, known.repairs))
            if due_in > 0.0:
                continue
            self._repaired_at[key] = now
            beat = self.beats.workers.get(repair.name)
            if beat is not None and repair.kind is RepairKind.WORKER:
                beat.repaired(repair.age)
            known.repairs += 1
            REPAIRS.labels(repair.kind.value).inc()
            try:
                self._repair(repair)
            except Exception as error:  # noqa: BLE001  the next look tries again
                _log.error("a repair failed", repair=repair.line(), error=error)

    def _diagnose(self, actions: Sequence[Action]) -> None:
        starving = next((action for action in actions if isinstance(action, Diagnose)), None)
        if starving is not None and not self._diagnosed:
            DIAGNOSTICS.inc()
            lines = tuple(self._guarded(self._diagnostic))
            note = self.beats.last_spike_note
            line = starving.ages.line() + (f" ({note})" if note else "")
            self._events.emit(WorkersStarve("watchdog", line, lines))
        self._diagnosed = starving is not None

    def _remember_diagnostic(self) -> None:
        self._last_diagnostic = (self.beats.now(), tuple(self._guarded(self._diagnostic)))

    def _diagnostic_seen_last(self) -> Iterable[str]:
        """For the thread: actors can be asked about themselves on the loop only, and it stands."""
        at, lines = self._last_diagnostic
        return [f"{line} (as seen {self.beats.now() - at:.1f} s ago)" for line in lines]

    def _guarded(self, lines: Callable[[], Iterable[str]]) -> Iterable[str]:
        try:
            return list(lines())
        except Exception as error:  # noqa: BLE001  a report without its details is better than none
            return [f"no details: {type(error).__name__}: {error}"]

    def _ages(self) -> Iterable[tuple[tuple[str, ...], float]]:
        ages = beat_ages(take_snapshot(self.beats))
        named = (("event_loop", ages.event_loop), ("worker", ages.worker), ("healthcheck", ages.healthcheck))
        return [((name,), age) for name, age in named if age is not None]


@attrs.define
class _Episode:
    """One beat's staleness, from its discovery on."""

    began: float
    repairs: int = 0
