"""What supervision reports: a closed set of events, each with one line a person can read."""

from __future__ import annotations

import enum
import logging
from typing import ClassVar

import attrs

from runtime.crash_report import CrashReport
from runtime.events import Event


class Decision(enum.StrEnum):
    """What a supervisor does about the end of a child."""

    STOPPED = "stopped"
    """It was asked to end; nothing follows."""
    RESTART = "restart"
    """A new incarnation follows, after the child's backoff."""
    RESTART_WITH_GROUP = "restart_with_group"
    """It was taken along by a sibling's restart; a new incarnation follows in its turn."""
    STAY_DOWN = "stay_down"
    """Its restart type says that this end is final; the child stays listed."""
    FORGET = "forget"
    """It is temporary, dynamic or deleted: no longer listed."""
    PARK = "park"
    """It used up its attempts (give_up = park), or does not stop: down until an operator restarts it."""
    GIVE_UP = "give_up"
    """The attempts are used up: the supervisor ends."""
    REFUSE_START = "refuse_start"
    """Its first start failed: so does the start of its supervisor, or the start_child that asked for it."""
    SHUT_DOWN_TREE = "shut_down_tree"
    """A fatal error: the whole tree stops in order."""


@attrs.frozen
class ChildStarted(Event):
    """An incarnation serves."""

    supervisor: str
    incarnation: int
    took: float
    """Seconds from the begin of its start."""

    def line(self) -> str:
        """Who serves, and how long the start took."""
        return f"{self.actor} started (incarnation {self.incarnation}, {self.took * 1000:.1f} ms)"


@attrs.frozen
class ChildExited(Event):
    """An incarnation ended unasked: it crashed, was killed or failed to start."""

    level: ClassVar[int] = logging.ERROR

    supervisor: str
    incarnation: int
    reason: str
    """Value of an ExitReason."""
    error: str
    last_message: str | None
    lived: float
    decision: Decision
    where: str = ""
    """The frame in which it was raised, `file:line in function`."""
    task: str | None = None
    """The task of the actor that crashed, if it was one."""
    report: CrashReport | None = attrs.field(default=None, repr=False)
    """All of it; in the log below the line, unless the error's words say all."""

    def details(self) -> CrashReport | None:
        """The crash report; none where the error's words say all: a wrong setting is not answered with a traceback."""
        return None if self.report is not None and self.report.is_deliberate else self.report

    def line(self) -> str:
        """Who ended how and where, after how long, on which message, and what follows."""
        message = f", last message {self.last_message}" if self.last_message else ""
        message += f", in its task {self.task}" if self.task else ""
        message += f", at {self.where}" if self.where else ""
        why = f": {self.error}" if self.error else ""
        return (
            f"{self.actor} {self.reason} after {self.lived:.3f} s "
            f"(incarnation {self.incarnation}{message}){why}; {self.decision.value.replace('_', ' ')}"
        )


@attrs.frozen
class ChildEnded(ChildExited):
    """An incarnation ended as expected: it was stopped, finished its work or declined to run."""

    level: ClassVar[int] = logging.INFO


@attrs.frozen
class ChildRestarting(Event):
    """A child will be started again."""

    level: ClassVar[int] = logging.WARNING

    supervisor: str
    restart: int
    """How many restarts in a row, this one included."""
    delay: float
    """Seconds until it may start."""
    group: tuple[str, ...] = ()
    """The siblings that are restarted with it."""

    def line(self) -> str:
        """When it comes back and who goes with it."""
        when = "now" if self.delay <= 0.0 else f"in {self.delay:.2f} s"
        group = f" together with {', '.join(self.group)}" if self.group else ""
        return f"{self.actor} restarts {when}{group} (restart {self.restart} in a row)"


@attrs.frozen
class ChildParked(Event):
    """A child stays down until an operator restarts it."""

    level: ClassVar[int] = logging.CRITICAL

    supervisor: str
    reason: str

    def line(self) -> str:
        """Who is down, why, and how to bring it back."""
        return f"{self.actor} is parked: {self.reason}; `atlas restart {self.actor}` starts it again"


@attrs.frozen
class ChildUnstopped(Event):
    """A child ignores cancellation; its task still exists."""

    level: ClassVar[int] = logging.CRITICAL

    supervisor: str
    incarnation: int
    message: str | None
    waited: float
    """Seconds since the first request to stop."""
    stack: str

    def line(self) -> str:
        """Who does not end, since when, doing what; the stack is in the event."""
        return (
            f"{self.actor} did not stop within {self.waited:.1f} s and ignores cancellation (incarnation "
            f"{self.incarnation}, last message {self.message or 'none'}); nothing is started in its place"
        )


@attrs.frozen
class ChildEndedLate(Event):
    """An unstopped child ended after all."""

    level: ClassVar[int] = logging.WARNING

    supervisor: str
    incarnation: int

    def line(self) -> str:
        """Whose task is gone now."""
        return f"{self.actor} ended late (incarnation {self.incarnation}); it may be started again"


@attrs.frozen
class ChildHookFailed(Event):
    """A child's on_exit, on_parked or on_final raised although it must not; supervision went on."""

    level: ClassVar[int] = logging.ERROR

    supervisor: str
    hook: str
    error: str

    def line(self) -> str:
        """Which hook failed and how."""
        return f"{self.actor}: its hook {self.hook} raised {self.error}"


@attrs.frozen
class SupervisorStopping(Event):
    """A supervisor began to stop its children."""

    why: str
    children: int
    """How many are alive."""

    def line(self) -> str:
        """Who stops, why, and how many children have to go."""
        return f"{self.actor} stops {self.children} {'child' if self.children == 1 else 'children'}: {self.why}"


@attrs.frozen
class SupervisorStopped(Event):
    """All children of a supervisor are down, or reported as unstopped."""

    took: float
    unstopped: tuple[str, ...]

    def line(self) -> str:
        """How long it took and who is left."""
        left = f"; unstopped: {', '.join(self.unstopped)}" if self.unstopped else ""
        return f"{self.actor} stopped in {self.took:.3f} s{left}"


@attrs.frozen
class SupervisorGaveUp(Event):
    """A child used up the restart intensity of its supervisor."""

    level: ClassVar[int] = logging.CRITICAL

    child: str
    reason: str

    def line(self) -> str:
        """Which supervisor gave up, because of which child."""
        return f"{self.actor} gave up because of {self.child}: {self.reason}"
