"""A supervisor's record of one child."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from typing import Generic, Literal, TypeVar

import attrs
import trio

from runtime.child import Child, ChildSpec, Exit, Restart, StopReason
from runtime.incarnation import Incarnation
from runtime.intensity import IntensityWindow
from runtime.stop_ladder import StopLadder, Unstopped

T = TypeVar("T")


class ChildState(enum.StrEnum):
    """Where a child stands."""

    WAITING = "waiting"
    """Its first start has not begun: it waits for its turn or for what it needs."""
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    RESTARTING = "restarting"
    """It is down and will be started: it waits for its backoff, its turn or what it needs."""
    DOWN = "down"
    """Terminated, finished or declined to run; nothing follows by itself."""
    PARKED = "parked"
    """It gave up; nothing follows until an operator restarts it."""
    UNSTOPPED = "unstopped"
    """It ignored cancellation; its task still exists and nothing is started in its place."""


PENDING = frozenset({ChildState.WAITING, ChildState.RESTARTING})
"""States in which a start is due."""
ON_ITS_WAY_UP = PENDING | {ChildState.STARTING}


class Goal(enum.Enum):
    """What a child's owner wants of it."""

    UP = enum.auto()
    DOWN = enum.auto()
    """Terminated: stays listed."""
    GONE = enum.auto()
    """Forgotten as soon as it is down."""


@attrs.frozen
class ChildInfo:
    """What which_children says about one child."""

    name: str
    state: ChildState
    incarnation: int
    """Number of the latest incarnation; 0 before the first."""
    kind: Literal["worker", "supervisor"]
    restart: Restart
    significant: bool
    since: float
    """Time on trio's clock at which the state began."""
    restarts: int
    """Restarts in a row without a quiet time between."""
    next_start: float | None
    """Time on trio's clock before which it is not started, while it waits for its backoff."""
    last_exit: Exit | None
    reason: str
    """Why it is parked or unstopped."""


@attrs.frozen
class ChildCounts:
    """What count_children says, in OTP's terms."""

    specs: int
    """Children, dead or alive."""
    active: int
    """Children with an incarnation that serves or stops."""
    supervisors: int
    """Children of kind supervisor, dead or alive."""
    workers: int
    """Children of kind worker, dead or alive."""


class Reply(Generic[T]):
    """The answer to an administrative call that has to wait; the first answer counts."""

    def __init__(self) -> None:
        self._answered = trio.Event()
        self._value: T | None = None
        self._error: BaseException | None = None

    def resolve(self, value: T | None) -> None:
        """Answer with a value."""
        if not self._answered.is_set():
            self._value = value
            self._answered.set()

    def fail(self, error: BaseException) -> None:
        """Answer with an error, raised where the caller waits."""
        if not self._answered.is_set():
            self._error = error
            self._answered.set()

    async def wait(self) -> T | None:
        """The answer. A caller that is cancelled changes nothing: what it asked for goes on."""
        await self._answered.wait()
        if self._error is not None:
            raise self._error
        return self._value


def _tell_of_change(slot: Slot, attribute: attrs.Attribute[object], value: T) -> T:
    """Whoever files the child by what is known of it has to look again."""
    if attribute.name in _FILED_BY and slot.on_change is not None:
        slot.on_change(slot)
    return value


_FILED_BY = frozenset({"goal", "in_group", "incarnation", "ladder", "proven", "recycle", "state"})


@attrs.define(eq=False, on_setattr=_tell_of_change)
class Slot:
    """One child of a supervisor: its spec, its state and what is going on with it."""

    spec: ChildSpec
    child: Child
    window: IntensityWindow
    """The child's own attempts; counted here if give_up = park."""
    repairs: IntensityWindow | None = None
    """Its repairs, once there was one."""
    repair_allowed: bool | None = None
    """It was killed on purpose, by an operator, at a failpoint or to repair it, and its restart charges nobody's attempts;
    False if that was one repair too many."""
    static: bool = True
    """Declared with the supervisor: it comes back with it."""
    place: int = 0
    """In the start order."""
    on_change: Callable[[Slot], None] | None = None
    """Told before anything changes by which the supervisor finds it."""

    state: ChildState = ChildState.WAITING
    since: float = 0.0
    goal: Goal = Goal.UP
    incarnation: Incarnation | None = None
    number: int = 0
    """Of the latest incarnation; grows for as long as the child exists."""
    ladder: StopLadder | None = None
    asked: StopReason | None = None
    """What its latest incarnation was asked to stop with, if it was."""
    deadline: float = math.inf
    """When the supervisor has to look at it again; entries in the heap with another time are stale."""
    start_deadline: float = math.inf
    not_before: float = 0.0
    """The end of its backoff."""
    recycle: bool = False
    """Its incarnation has to end for a group restart."""
    in_group: bool = False
    """It starts in its turn: at boot, or in a group restart."""
    proven: bool = False
    """It served once, or declined to: from now on a failing start is a failed attempt and not a refused one."""
    tentative: bool = False
    """Added by start_child and not yet up: if this start fails, it is not kept."""
    finished: bool = False
    """It was told that no further incarnation is planned."""
    restarts: int = 0
    """Restarts in a row, for the backoff."""
    reports: list[Unstopped] = attrs.field(factory=list)
    zombies: set[Incarnation] = attrs.field(factory=set)
    """Incarnations that were left alone and still exist."""
    last_exit: Exit | None = None
    reason: str = ""
    start_reply: Reply[int] | None = None
    stop_replies: list[Reply[None]] = attrs.field(factory=list)

    @property
    def name(self) -> str:
        """The child's name."""
        return self.spec.name

    @property
    def alive(self) -> bool:
        """Whether it has an incarnation that is not given up for lost."""
        return self.incarnation is not None

    @property
    def has_to_end(self) -> bool:
        """Whether its incarnation has to end although its supervisor goes on."""
        return self.alive and (self.recycle or self.goal is not Goal.UP)

    def enter(self, state: ChildState, now: float, reason: str = "") -> None:
        """Change the state."""
        self.state = state
        self.since = now
        self.reason = reason

    def begin_again(self, now: float) -> None:
        """As new, for another life of the supervisor; only the incarnation's number goes on."""
        assert not self.alive, f"{self.name} is still alive"
        assert all(left.gone for left in self.zombies), f"{self.name} still has a task that did not end"
        self.zombies.clear()
        self.goal = Goal.UP
        self.ladder = None
        self.deadline = self.start_deadline = math.inf
        self.not_before = 0.0
        self.recycle = False
        self.in_group = True
        self.proven = False
        self.restarts = 0
        self.reports.clear()
        self.last_exit = None
        self.window.clear()
        self.repairs = self.repair_allowed = None
        self.enter(ChildState.WAITING, now)

    def info(self) -> ChildInfo:
        """The child as which_children shows it."""
        waits = self.state in PENDING and self.not_before > self.since
        return ChildInfo(
            name=self.name,
            state=self.state,
            incarnation=self.number,
            kind=self.spec.kind,
            restart=self.spec.restart,
            significant=self.spec.significant,
            since=self.since,
            restarts=self.restarts,
            next_start=self.not_before if waits else None,
            last_exit=self.last_exit,
            reason=self.reason,
        )
