"""What a supervisor runs: the Child protocol, its spec, and the record of each end.

A child is anything that can be run again and again under a stable name: an actor's address or another supervisor. The
supervisor knows nothing else about it.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar, runtime_checkable

import attrs

from runtime.crash_report import CrashReport
from runtime.error_text import error_text
from runtime.restart_limits import Backoff

if TYPE_CHECKING:
    import trio

E = TypeVar("E", bound=enum.StrEnum)


def one_of(kind: type[E], value: E | str) -> E:
    """A member of `kind`, given as such or as in a configuration. Raises ValueError with the legal values for anything else."""
    try:
        return kind(value)
    except ValueError:
        legal = ", ".join(repr(member.value) for member in kind)
        raise ValueError(f"{value!r} is no {kind.__name__}; legal values: {legal}") from None


class Restart(enum.StrEnum):
    """Which ends of a child are followed by a new incarnation."""

    PERMANENT = "permanent"
    """Every end."""
    TRANSIENT = "transient"
    """A crash, a kill or a failed start; not a normal end or an orderly shutdown."""
    TEMPORARY = "temporary"
    """None; the child is forgotten when it ends."""


class Strategy(enum.StrEnum):
    """Which siblings a restart takes along."""

    ONE_FOR_ONE = "one_for_one"
    """None: the child restarts alone."""
    ONE_FOR_ALL = "one_for_all"
    """All siblings."""
    REST_FOR_ONE = "rest_for_one"
    """The siblings that were started after it."""


class AutoShutdown(enum.StrEnum):
    """Whether the end of significant children ends their supervisor."""

    NEVER = "never"
    ANY_SIGNIFICANT = "any_significant"
    ALL_SIGNIFICANT = "all_significant"


class GiveUp(enum.StrEnum):
    """What happens when a child used up its restart intensity."""

    ESCALATE = "escalate"
    """The supervisor stops all its children and ends; its own supervisor decides (OTP's behaviour)."""
    PARK = "park"
    """The child stays down, visibly, until an operator restarts it; its siblings are not touched."""
    NEVER = "never"
    """Restarted for ever, slowed only by its backoff."""


def as_restart(value: Restart | str) -> Restart:
    """The Restart, given as such or by its value. Raises ValueError for anything else."""
    return one_of(Restart, value)


def as_strategy(value: Strategy | str) -> Strategy:
    """The Strategy, given as such or by its value. Raises ValueError for anything else."""
    return one_of(Strategy, value)


def as_auto_shutdown(value: AutoShutdown | str) -> AutoShutdown:
    """The AutoShutdown, given as such or by its value. Raises ValueError for anything else."""
    return one_of(AutoShutdown, value)


def as_give_up(value: GiveUp | str) -> GiveUp:
    """The GiveUp, given as such or by its value. Raises ValueError for anything else."""
    return one_of(GiveUp, value)


class ExitReason(enum.StrEnum):
    """How an incarnation ended."""

    NORMAL = "normal"
    """`run` returned without having been asked to."""
    SHUTDOWN = "shutdown"
    """It was asked to stop and did, or ended in order by its own decision (a supervisor that gave up)."""
    CRASHED = "crashed"
    """`run` raised."""
    KILLED = "killed"
    """Its scope was cancelled: by kill_child, or because it did not stop in time."""
    START_FAILED = "start_failed"
    """It raised, returned or timed out before it reported that it serves."""
    IGNORED = "ignored"
    """It declined to run (errors.Ignore from the start handshake)."""
    UNSTOPPED = "unstopped"
    """It did not end even after cancellation; the task still exists and is never replaced while it does."""


class StopCause(enum.StrEnum):
    """Why a child is asked to stop."""

    SHUTDOWN = "shutdown"
    """Its supervisor stops for good."""
    RESTART = "restart"
    """A sibling's restart takes it along; a new incarnation follows."""
    TERMINATED = "terminated"
    """An operator or the program asked for it (terminate_child)."""


@attrs.frozen
class StopReason:
    """Why a child is asked to stop and how long it has."""

    cause: StopCause
    detail: str = ""
    """One line for people, e.g. "pool.main crashed"."""
    deadline: float = math.inf
    """Time on trio's clock at which patience ends: the child is cancelled then at the latest."""


@attrs.frozen
class Activity:
    """What a child did last."""

    message: str | None = None
    """Type name of the message it handles, or handled last."""
    handling_since: float | None = None
    """Time on trio's clock since which it handles it; None while it is between messages."""


IDLE = Activity()


@attrs.frozen
class Exit:
    """The one record of the end of one incarnation."""

    name: str
    incarnation: int
    reason: ExitReason
    error: BaseException | None
    """What was raised; None for an end in order and for a kill that surfaced nothing. Not kept after an abnormal end: it holds
    the frames of the dead incarnation, and all that is to be known of it is in the report."""
    last_message: str | None
    """Type name of the message it was handling, or handled last."""
    lived: float
    """Seconds from the begin of its start to its end."""
    detail: str = ""
    """One line for people: the reason of a kill, of an ignore, of a failed start."""
    report: CrashReport | None = None
    """Of an abnormal end: what is to be known of it."""

    @property
    def abnormal(self) -> bool:
        """Whether a transient child is restarted after this end."""
        return self.reason not in (ExitReason.NORMAL, ExitReason.SHUTDOWN, ExitReason.IGNORED)

    @property
    def summary(self) -> str:
        """The end in a few words: the detail, or the error's type and text; "" if there is nothing to say."""
        if self.detail:
            return self.detail
        if self.report is not None:
            return self.report.error
        return "" if self.error is None else error_text(self.error)


@attrs.frozen
class CrashDetails:
    """What a child adds to the report of its abnormal end."""

    task: str | None = None
    """The task that crashed; None where it was not one beside the message loop."""
    state: Mapping[str, object] = attrs.field(factory=dict)
    """Its state, as plain values of bounded size (`plain_value`)."""


@runtime_checkable
class ShowsCrash(Protocol):
    """A child that adds to the reports of its abnormal ends."""

    def crash_details(self) -> CrashDetails:
        """Which task crashed, and in which state it ends. Called once before `on_exit`; must not raise."""
        ...


@runtime_checkable
class NotesForgotten(Protocol):
    """A child that gives back what it holds by its name once its supervisor has forgotten it."""

    def on_forgotten(self) -> None:
        """It is not listed any more: temporary, of a template or deleted, it has ended for good. Comes after `on_final`."""
        ...


@runtime_checkable
class ChecksItself(Protocol):
    """A child that can tell before its start that it could never work as it is meant."""

    def check(self) -> None:
        """Raise TypeError that says why. Called once when its spec is accepted; starts nothing."""
        ...


class Child(Protocol):
    """What a supervisor runs. One that also has `crash_details` (ShowsCrash) adds them to its crash reports.

    The supervisor guarantees: at most one incarnation is inside `run` at any time, except that after an Exit with
    reason UNSTOPPED the old call may still be running, cancelled, and no new one begins until it has returned;
    incarnation numbers grow and are never used twice (a failed start used one); for each number there is exactly one
    `on_exit`, then one `on_decided`, after which comes the next `run`, an `on_parked` or an `on_final` (a parked child
    may still be told the latter). An incarnation that is stopped before its first step is never run, but has its
    `on_exit` as well.
    """

    name: str

    async def run(self, incarnation: int, *, task_status: trio.TaskStatus[None]) -> None:
        """Live one incarnation inside the calling task's cancel scope.

        Calls `task_status.started()` once it serves. Returning is a normal end, raising a crash, raising
        `errors.Ignore` before `started()` declines to run. Every task it starts has ended when it returns.
        """
        ...

    def request_stop(self, reason: StopReason) -> None:
        """Ask the running incarnation to finish its current work and end. Never waits, never raises, may be repeated.

        May be called before `started()`, but not before `run` has begun: the incarnation then ends as soon as its start
        is over. A repeated call may bring an earlier deadline.
        """
        ...

    def on_exit(self, exit: Exit) -> None:  # noqa: A002  # the record's name in the whole runtime
        """The incarnation has ended. Called synchronously, before anything is awaited. Must not raise."""
        ...

    def on_decided(self, *, restarts: bool) -> None:
        """What follows the end that `on_exit` told: another incarnation, now or after its backoff, or none that is planned.

        Comes within a turn of the loop. A child of a nested supervisor is told again when that one's own end is decided.
        """
        ...

    def on_parked(self, reason: str) -> None:
        """No further incarnation until an operator restarts the child; what waits for it should be told."""
        ...

    def on_final(self, reason: str) -> None:
        """No further incarnation is planned; leftovers are given up.

        Only restart_child, a restart of its supervisor, or a group restart that takes along a child which had finished
        may still run it again; it must then accept work again.
        """
        ...

    def last_activity(self) -> Activity:
        """What it does or did last; read for Exit records and reports of unstopped children."""
        ...


@attrs.frozen
class ChildSpec:
    """How a supervisor starts, restarts and stops one child. All times in seconds.

    Raises ValueError at construction if a value makes no sense, e.g. a permanent child that is significant.
    """

    name: str
    start: Callable[[], Child]
    """Makes the child; called once when the spec is accepted, not again at restarts."""
    restart: Restart = attrs.field(default=Restart.PERMANENT, converter=as_restart)
    significant: bool = False
    """Its end may end the supervisor (see AutoShutdown). Never for permanent children."""
    kind: Literal["worker", "supervisor"] = attrs.field(
        default="worker", validator=attrs.validators.in_(("worker", "supervisor"))
    )
    shutdown: float = attrs.field(validator=attrs.validators.ge(0.0))
    """Time to stop in order before it is cancelled. 0 cancels at once; math.inf waits for ever. By default 5, and for a
    supervisor math.inf, as in OTP: its children have limits of their own."""
    kill_grace: float = attrs.field(default=1.0, validator=attrs.validators.ge(0.0))
    """Time to end after cancellation before it is reported as unstopped."""
    start_timeout: float = attrs.field(default=10.0, validator=attrs.validators.ge(0.0))
    """Time to report that it serves; afterwards the start counts as failed."""
    backoff: Backoff = attrs.field(factory=Backoff)
    give_up: GiveUp = attrs.field(default=GiveUp.ESCALATE, converter=as_give_up)
    needs: tuple[str, ...] = ()
    """Names of siblings that must be up before it starts."""

    @shutdown.default
    def _without_limit_for_a_supervisor(self) -> float:
        return math.inf if self.kind == "supervisor" else 5.0

    def __attrs_post_init__(self) -> None:
        if not self.name:
            raise ValueError("a child needs a name")
        if self.significant and self.restart is Restart.PERMANENT:
            raise ValueError(
                f"child {self.name!r} is significant and permanent: a permanent child always comes back, "
                'so its end can never mean anything; set restart = "transient" or "temporary", or significant = false'
            )
