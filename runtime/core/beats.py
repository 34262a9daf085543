"""The heartbeats: plain slots that the loop writes and the watchdog's thread reads.

There is no lock here on purpose. Every field is one object reference, written whole and by one writer; a reader on
another thread sees the old value or the new one, and both are true. All times are seconds of `time.monotonic`.
"""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Callable, Mapping
from typing import Final

Handling = tuple[str, type[object] | str, float]
"""Actor name, message type (or its name), and since when, in seconds of `time.monotonic`."""

current: Handling | None = None
"""What the loop handed to an actor last: written by the messaging core once per message, read when the loop has frozen.

With several handlers waiting, it names the one that was started last; the frozen stack says which task really runs.
"""


class WorkerState(enum.Enum):
    """Whether a worker's silence means anything."""

    ACTIVE = "active"
    """It is judged."""
    PAUSED = "paused"
    """An operator paused it: left out, and shown."""
    DOWN = "down"
    """Between two incarnations: left out, its supervisor brings it back."""
    PARKED = "parked"
    """Its supervisor gave up on it: left out, and alerted by the supervisor."""


class WorkerBeat:
    """One worker's life signs, written on the loop and read anywhere."""

    __slots__ = (
        "_clock",
        "handling_since",
        "limit",
        "name",
        "next_due",
        "probe",
        "progressed_at",
        "state",
        "unproven_since",
        "waiting_since",
    )

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.name: Final = name
        self._clock = clock
        self.next_due: float = math.inf
        """When it will act next: silence before that is not staleness. Infinity: it waits for messages only."""
        self.handling_since: float | None = None
        """Since when it has been working; None while idle."""
        self.progressed_at: float = clock()
        """When it last finished something or proved progress."""
        self.limit: float = math.inf
        """How long one piece of work may take without progress, in seconds."""
        self.waiting_since: float | None = None
        """Since when its oldest unhandled message has been waiting; None if nothing waits."""
        self.state: WorkerState = WorkerState.ACTIVE
        self.unproven_since: float | None = None
        """Set by a repair: when it last proved progress before that. Only progress proves that the repair helped."""
        self.probe: Callable[[], tuple[WorkerState, float]] | None = None
        """Asked on the loop at each tick for the state and for the age of the oldest unhandled message, in seconds (0 if
        none waits): what the worker itself could not write while it is stuck, paused or parked."""

    def progress(self) -> None:
        """Prove progress, amid an iteration or at its end: the limit counts from here again."""
        self.progressed_at = self._clock()
        self.unproven_since = None

    def repaired(self, age: float) -> None:
        """It is restarted because it has been stale for `age` seconds. What a repair resets, this remembers."""
        if self.unproven_since is None:
            self.unproven_since = self._clock() - age

    def begin(self, limit: float) -> None:
        """A piece of work starts and should end, or progress, within `limit` seconds."""
        self.limit = limit
        self.progressed_at = self.handling_since = self._clock()

    def done(self, next_due: float) -> None:
        """The work ended; the next is due at `next_due`."""
        self.idle_until(next_due)
        self.progress()

    def idle_until(self, next_due: float) -> None:
        """Nothing to do before `next_due`: planned, or begun anew. Nothing has been proven by it."""
        self.next_due = next_due
        self.progressed_at = self._clock()
        self.handling_since = None

    def due_in(self, seconds: float) -> float:
        """The time `seconds` from now, for `done` and `idle_until`."""
        return self._clock() + seconds


class Beats:
    """All heartbeats of one system: `event_loop`, `healthcheck`, the workers, the pools; and the last pool wait spike."""

    __slots__ = (
        "_clock",
        "_pools",
        "_workers",
        "event_loop",
        "healthcheck",
        "healthcheck_name",
        "last_pool_wait_spike",
        "last_spike_note",
    )

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.event_loop: float | None = None
        """When the loop last proved that it turns; None before the watchdog's first tick."""
        self.healthcheck: float | None = None
        """When the last probe round completed, whatever it found; None where no health check runs."""
        self.healthcheck_name = "healthcheck"
        """The actor that keeps it."""
        self.last_pool_wait_spike: float | None = None
        """When a pool last kept a request waiting too long, shed or refused one; None if never."""
        self.last_spike_note: str = ""
        """Pool, label and figure of that spike, for the diagnostic."""
        # Replaced whole when a name is added, so that the thread may walk what it has read.
        self._workers: Mapping[str, WorkerBeat] = {}
        self._pools: Mapping[str, WorkerBeat] = {}

    @property
    def workers(self) -> Mapping[str, WorkerBeat]:
        """The beats of all workers by name; never changes under a reader's feet."""
        return self._workers

    @property
    def pools(self) -> Mapping[str, WorkerBeat]:
        """The beats of all pools by name. A wedged pool is replaced; it is not part of the worker beat."""
        return self._pools

    def worker(self, name: str) -> WorkerBeat:
        """The worker's beat, made at the first call. It belongs to the name and survives restarts."""
        beat = self._workers.get(name)
        if beat is None:
            beat = WorkerBeat(name, self._clock)
            self._workers = {**self._workers, name: beat}
        return beat

    def pool(self, name: str) -> WorkerBeat:
        """The pool's beat, made at the first call. It belongs to the name and survives restarts."""
        beat = self._pools.get(name)
        if beat is None:
            beat = WorkerBeat(name, self._clock)
            self._pools = {**self._pools, name: beat}
        return beat

    def ended(self, name: str) -> None:
        """An incarnation ended, and with it what it was doing and had planned; unknown names are ignored."""
        for beat in (self._workers.get(name), self._pools.get(name)):
            if beat is not None:
                beat.idle_until(math.inf)

    def forget(self, name: str) -> None:
        """Drop the beat of a worker or pool that was deleted; unknown names are ignored."""
        if name in self._workers:
            self._workers = {key: beat for key, beat in self._workers.items() if key != name}
        if name in self._pools:
            self._pools = {key: beat for key, beat in self._pools.items() if key != name}

    def sample(self) -> None:
        """Fill in what only the loop can find out: who is paused or parked, and whose messages wait."""
        for beat in (*self._workers.values(), *self._pools.values()):
            if beat.probe is not None:
                state, age = beat.probe()
                beat.state = state
                if state in (WorkerState.PAUSED, WorkerState.PARKED):
                    beat.unproven_since = None  # it is silent because it was put aside
                beat.waiting_since = self._clock() - age if age > 0 else None

    def tick(self) -> None:
        """The loop turns."""
        self.event_loop = self._clock()

    def probed(self) -> None:
        """A round of health probes completed."""
        self.healthcheck = self._clock()

    def pool_wait_spike(self, note: str = "") -> None:
        """Note a pool wait spike: a request waited too long, was shed or refused. `note` names pool, label and figure."""
        self.last_spike_note = note
        self.last_pool_wait_spike = self._clock()

    def now(self) -> float:
        """The beats' own clock."""
        return self._clock()
