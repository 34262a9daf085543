"""What happens in a pool, as events and figures."""

from __future__ import annotations

import enum
import logging
from typing import ClassVar

import attrs

from runtime import Event
from runtime.metrics import counter, gauge, histogram

_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)

LEASE_WAIT_SECONDS = histogram(
    "atlas_lease_wait_seconds",
    "Time from asking for a connection to getting it.",
    buckets=_BUCKETS,
    labels=("pool", "label", "lane"),
)
LEASE_HOLD_SECONDS = histogram(
    "atlas_lease_hold_seconds",
    "Time from getting a connection to giving it back.",
    buckets=_BUCKETS,
    labels=("pool", "label"),
)
CONNECTIONS = gauge("atlas_pool_connections", "Connections of a pool by what they do.", labels=("pool", "state"))
WAITING = gauge("atlas_pool_waiting", "Requests that wait for a connection.", labels=("pool", "lane"))
REFUSED = counter(
    "atlas_lease_refused_total",
    "Requests that got no connection: timeout, shed, full, down, crashed.",
    labels=("pool", "why"),
)
SPIKES = counter(
    "atlas_lease_wait_spikes_total",
    "Requests that waited too long while they still waited: warning, critical.",
    labels=("pool", "lane", "severity"),
)
TAKEN_AWAY = counter(
    "atlas_lease_taken_total",
    "Leases that ended against their holder's will: expired, overrun, reclaimed.",
    labels=("pool", "why"),
)
OPENED = counter("atlas_pool_opened_total", "Connections opened.", labels=("pool",))
OPEN_FAILED = counter("atlas_pool_open_failed_total", "Connections that could not be opened.", labels=("pool",))
CLOSED = counter(
    "atlas_pool_closed_total",
    "Connections closed: lost, unclean, retired, surplus, revoked, stopped.",
    labels=("pool", "why"),
)
QUARANTINED = counter(
    "atlas_pool_quarantined_total", "Connections that had to prove that they are clean.", labels=("pool",)
)
WAKES = counter(
    "atlas_wake_notifications_total",
    "NOTIFY atlas_wake by what became of it: woken, unknown.",
    labels=("pool", "outcome"),
)
WAKES_INTERRUPTED = counter(
    "atlas_wake_interruptions_total", "Losses of the connection that listens for NOTIFY.", labels=("pool",)
)


class PoolStatus(enum.StrEnum):
    """What a pool can do at the moment."""

    CONNECTING = "connecting"
    """No connection has been opened yet; requests wait."""
    UP = "up"
    DEGRADED = "degraded"
    """Some connections work, others cannot be opened."""
    DOWN = "down"
    """None works and none can be opened; requests are refused at once, except in the system lane."""
    CLOSED = "closed"
    """The incarnation has ended."""


@attrs.frozen
class PoolStateChanged(Event):
    """The pool is connecting, up, degraded or down."""

    level: ClassVar[int] = logging.INFO

    before: str
    after: str
    lasted: float
    """Seconds spent in the state before."""
    cause: str

    def line(self) -> str:
        """From what to what, and why."""
        cause = f": {self.cause}" if self.cause else ""
        return f"{self.actor} is {self.after} after {self.lasted:.2f} s {self.before}{cause}"


@attrs.frozen
class PoolWentDown(PoolStateChanged):
    """No connection is left and none can be opened: requests are refused at once until one can."""

    level: ClassVar[int] = logging.ERROR


@attrs.frozen
class WaitSpike(Event):
    """A request has waited too long and still waits."""

    level: ClassVar[int] = logging.WARNING

    label: str
    lane: str
    waited: float
    waiting: int
    state: str
    holders: str
    """Who holds connections for longest, with line, age and where its task stands."""

    def line(self) -> str:
        """Which request waits, for how long, and which leases are in its way."""
        return (
            f'{self.actor}: "{self.label}" has waited {self.waited:.2f} s for a connection ({self.waiting} waiting in lane '
            f"{self.lane}; {self.state}); held longest: {self.holders or 'none'}"
        )


@attrs.frozen
class SevereWaitSpike(WaitSpike):
    """As WaitSpike, beyond the critical limit."""

    level: ClassVar[int] = logging.CRITICAL


@attrs.frozen
class WaitResolved(Event):
    """A request that was reported as a wait spike waits no more."""

    label: str
    waited: float
    how: str

    def line(self) -> str:
        """How it ended, and after how long in all."""
        return f'{self.actor}: "{self.label}" waited {self.waited:.2f} s in all and was {self.how}'


@attrs.frozen
class RequestsShed(Event):
    """The queue is overloaded and those who could not be served in time were told so."""

    level: ClassVar[int] = logging.WARNING

    count: int
    """Requests shed since the last report."""
    labels: str
    """What they were for: the three most frequent labels, with lane and count."""
    oldest: float
    """The longest wait of those who were shed just now."""
    lasting: float
    """Seconds for which no request has got a connection in good time."""
    waiting: int
    state: str
    holders: str
    """As of WaitSpike."""

    def line(self) -> str:
        """How many, what for, how bad it is, and who holds what they waited for."""
        return (
            f"{self.actor}: {self.count} requests were refused ({self.labels}), just now after at most {self.oldest:.2f} s; "
            f"none has got a connection in good time for {self.lasting:.1f} s, {self.waiting} are still waiting "
            f"({self.state}); held longest: {self.holders or 'none'}"
        )


@attrs.frozen
class SevereRequestsShed(RequestsShed):
    """As RequestsShed, and it has lasted beyond the critical limit of waits."""

    level: ClassVar[int] = logging.CRITICAL


@attrs.frozen
class SheddingResolved(Event):
    """After requests were shed, one has got its connection in good time."""

    count: int
    lasted: float

    def line(self) -> str:
        """How many in all, and how long it took."""
        return f"{self.actor}: connections come in good time again; {self.count} requests were refused in {self.lasted:.1f} s"


@attrs.frozen
class LeaseOverrun(Event):
    """A holder passed its hold deadline and did not react to being cancelled: the connection was taken by force."""

    level: ClassVar[int] = logging.CRITICAL

    label: str
    owner: str
    site: str
    held: float
    limit: float
    stack: str

    def line(self) -> str:
        """Who, where, for how long, and where it stands."""
        return (
            f'{self.actor}: "{self.label}" of {self.owner}, taken at {self.site}, held its connection for {self.held:.2f} s '
            f"(limit {self.limit:g} s) and did not react; taken away by force. It stands at {self.stack}"
        )


@attrs.frozen
class LeaseReclaimed(Event):
    """A lease was taken away because its holder's incarnation ended, or an operator said so."""

    level: ClassVar[int] = logging.WARNING

    label: str
    owner: str
    held: float
    why: str

    def line(self) -> str:
        """Whose, and why."""
        return f'{self.actor}: the lease "{self.label}" of {self.owner}, held for {self.held:.2f} s, was taken back: {self.why}'


@attrs.frozen
class IdleHeld(Event):
    """An open lease was held for long without using the database."""

    level: ClassVar[int] = logging.WARNING

    label: str
    site: str
    held: float
    idle: float

    def line(self) -> str:
        """Which lease, and how much of its time was wasted."""
        return (
            f'{self.actor}: "{self.label}" at {self.site} held a connection for {self.held:.2f} s and left it idle for '
            f"{self.idle:.2f} s of them"
        )


@attrs.frozen
class BridgeFallback(Event):
    """The fast bridge to the driver was not recognised; the plain one is used."""

    level: ClassVar[int] = logging.WARNING

    reason: str

    def line(self) -> str:
        """Why, and what it costs."""
        return (
            f"{self.actor}: the plain driver bridge is used, several times slower under load: {self.reason}. Install the pinned "
            "versions, or set pool.bridge = 'plain' to accept it"
        )


@attrs.frozen
class ListeningInterrupted(Event):
    """The connection that listens for NOTIFY was lost; another one is opened. Meanwhile workers find their work by polling."""

    level: ClassVar[int] = logging.WARNING

    cause: str

    def line(self) -> str:
        """Why."""
        return f"{self.actor}: listening for NOTIFY was interrupted ({self.cause}); workers find their work by polling meanwhile"


@attrs.frozen
class DriverComplaint(Event):
    """Something in the driver's own callbacks failed; the connection concerned is replaced when it comes back."""

    level: ClassVar[int] = logging.WARNING

    text: str

    def line(self) -> str:
        """What the driver said."""
        return f"{self.actor}: the database driver reports: {self.text}"
