"""A supervisor's children: the record of each, the index by what they wait for, and which to stop and to start next.

With thousands of children a supervisor must not look at all of them after each change: children are indexed by what
they wait for, so each pass touches only those that changed. No operation in progress is remembered: what has to happen
next follows from the state of the children alone, so a crash, a kill or a shutdown in the middle of anything is no
special case.
"""

from __future__ import annotations

import enum
import heapq
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Generic, Literal, TypeVar

import attrs
import trio

from runtime.child import Child, ChildSpec, Exit, Restart, StopReason
from runtime.restart_limits import IntensityWindow
from runtime.supervision.child_run import ChildrenUnstopped, ChildRun
from runtime.supervision.stop_ladder import StopLadder, Unstopped

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
COMING_UP = PENDING | {ChildState.STARTING}


class DesiredState(enum.Enum):
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


class PendingReply(Generic[T]):
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


def _note_change(record: ChildRecord, _attribute: attrs.Attribute[object], value: T) -> T:
    """The index has to look again at a child before one of the fields changes that it is indexed by."""
    if record.on_change is not None:
        record.on_change(record)
    return value


@attrs.define(eq=False)
class ChildRecord:
    """One child of a supervisor: its spec, its state and what is going on with it."""

    spec: ChildSpec
    child: Child
    own_attempts: IntensityWindow
    """The child's own attempts; counted here if give_up = park."""
    name: str = attrs.field(init=False)
    """The child's name, and the spec's."""
    repairs: IntensityWindow | None = None
    """Its repairs, once there was one."""
    repair_allowed: bool | None = None
    """True if it was killed on purpose (by an operator, at a failpoint, to repair it): its restart is no restart attempt.
    False if that was one repair too many; None if it was not killed."""
    static: bool = True
    """Declared with the supervisor: it comes back with it."""
    start_position: int = 0
    """In the start order."""
    on_change: Callable[[ChildRecord], None] | None = None
    """Called before a field changes that the index uses."""

    state: ChildState = attrs.field(default=ChildState.WAITING, on_setattr=_note_change)
    since: float = 0.0
    desired: DesiredState = attrs.field(default=DesiredState.UP, on_setattr=_note_change)
    run: ChildRun | None = attrs.field(default=None, on_setattr=_note_change)
    incarnation: int = 0
    """Of the latest incarnation; grows for as long as the child exists."""
    ladder: StopLadder | None = attrs.field(default=None, on_setattr=_note_change)
    stop_reason: StopReason | None = None
    """What its latest incarnation was asked to stop with, if it was."""
    ticket: int = -1
    """Of its deadline, among those of all children."""
    start_deadline: float = math.inf
    not_before: float = 0.0
    """The end of its backoff."""
    stops_for_group: bool = attrs.field(default=False, on_setattr=_note_change)
    """Its incarnation has to end for a group restart."""
    starts_in_turn: bool = attrs.field(default=False, on_setattr=_note_change)
    """It starts in its turn: at boot, or in a group restart."""
    has_served: bool = attrs.field(default=False, on_setattr=_note_change)
    """It served once, or declined to: from now on a failing start is a failed attempt and not a refused one."""
    forget_if_start_fails: bool = False
    """Added by start_child and not yet up: if this start fails, it is not kept."""
    told_final: bool = False
    """It was told that no further incarnation is planned."""
    restarts: int = 0
    """Restarts in a row, for the backoff."""
    reports: list[Unstopped] = attrs.field(factory=list)
    unstopped_runs: set[ChildRun] = attrs.field(factory=set)
    """Incarnations that were left alone and still exist."""
    last_exit: Exit | None = None
    reason: str = ""
    start_reply: PendingReply[int] | None = None
    stop_replies: list[PendingReply[None]] = attrs.field(factory=list)

    @name.default
    def _name_of_the_spec(self) -> str:
        return self.spec.name

    @property
    def is_alive(self) -> bool:
        """Whether it has an incarnation that is not given up for lost."""
        return self.run is not None

    @property
    def has_to_end(self) -> bool:
        """Whether its incarnation has to end although its supervisor goes on."""
        return self.is_alive and (self.stops_for_group or self.desired is not DesiredState.UP)

    def set_state(self, state: ChildState, now: float, reason: str = "") -> None:
        """Change the state."""
        self.state = state
        self.since = now
        self.reason = reason

    def start_run(self, run: ChildRun, now: float) -> None:
        """The next incarnation begins."""
        self.run = run
        self.incarnation = run.number
        self.told_final = False
        self.repair_allowed = None
        self.stop_reason = None
        self.start_deadline = now + self.spec.start_timeout
        self.set_state(ChildState.STARTING, now)

    def end_run(self, end: Exit) -> None:
        """Its incarnation has ended, or is given up for lost."""
        self.run = self.ladder = None
        self.start_deadline = math.inf
        self.last_exit = end

    def await_restart(self, now: float, *, not_before: float, in_turn: bool) -> None:
        """It is down and will be started at `not_before`, a time on trio's clock; `in_turn` when its siblings before it serve."""
        self.not_before = not_before
        self.starts_in_turn = in_turn
        self.set_state(ChildState.RESTARTING, now)

    def reset(self, now: float) -> None:
        """As new, for another run of the supervisor; only the incarnation's number goes on."""
        assert not self.is_alive, f"{self.name} is still alive"
        assert all(left.ended for left in self.unstopped_runs), f"{self.name} still has a task that did not end"
        self.unstopped_runs.clear()
        self.desired = DesiredState.UP
        self.ladder = None
        self.ticket = -1  # the deadlines are those of another control loop now
        self.start_deadline = math.inf
        self.not_before = 0.0
        self.stops_for_group = False
        self.starts_in_turn = True
        self.has_served = False
        self.restarts = 0
        self.reports.clear()
        self.last_exit = None
        self.own_attempts.clear()
        self.repairs = self.repair_allowed = None
        self.set_state(ChildState.WAITING, now)

    def info(self) -> ChildInfo:
        """The child as which_children shows it."""
        waits = self.state in PENDING and self.not_before > self.since
        return ChildInfo(
            name=self.name,
            state=self.state,
            incarnation=self.incarnation,
            kind=self.spec.kind,
            restart=self.spec.restart,
            significant=self.spec.significant,
            since=self.since,
            restarts=self.restarts,
            next_start=self.not_before if waits else None,
            last_exit=self.last_exit,
            reason=self.reason,
        )


def without_frames(end: Exit) -> Exit:
    """The Exit as it is kept: without the frames of its error, in which the dead incarnation would live on.

    An abnormal end keeps no error at all, it has a report; but what it could not stop is still to be looked after.
    """
    error = end.error
    if end.abnormal and not isinstance(error, ChildrenUnstopped):
        return attrs.evolve(end, error=None) if error is not None else end
    if error is not None:
        error.__traceback__ = None
    return end


class View:
    """The children for which a condition holds, kept up to date as their records change."""

    __slots__ = ("_applies", "_members")

    def __init__(self, applies: Callable[[ChildRecord], bool]) -> None:
        self._applies = applies
        self._members: set[ChildRecord] = set()

    def update(self, record: ChildRecord, *, is_listed: bool) -> None:
        """Look at a child again: whether it belongs here may have changed."""
        if not (is_listed and self._applies(record)):
            if record in self._members:
                self._members.remove(record)
                self._removed(record)
        elif record not in self._members:
            self._members.add(record)
            self._added(record)

    def _added(self, record: ChildRecord) -> None:
        """Called with each new member; for a view that keeps an order."""

    def _removed(self, record: ChildRecord) -> None:
        """Called with each former member; as above."""

    def __bool__(self) -> bool:
        return bool(self._members)

    def __iter__(self) -> Iterator[ChildRecord]:
        return iter(sorted(self._members, key=_start_position))


class OrderedView(View):
    """A view that knows its first member in start order (or its last) without sorting."""

    __slots__ = ("_by_place", "_heap", "_sign")

    def __init__(self, applies: Callable[[ChildRecord], bool], *, last: bool) -> None:
        super().__init__(applies)
        self._sign = -1 if last else 1
        self._by_place: dict[int, ChildRecord] = {}
        self._heap: list[int] = []
        """Places of members and former members; these are removed when they come to the top, or when there are too many. No more
        than a number stays of a child that was forgotten."""

    def _added(self, record: ChildRecord) -> None:
        place = self._sign * record.start_position
        self._by_place[place] = record
        heapq.heappush(self._heap, place)
        if len(self._heap) > 2 * len(self._by_place) + 8:
            self._heap = sorted(self._by_place)

    def _removed(self, record: ChildRecord) -> None:
        self._by_place.pop(self._sign * record.start_position, None)

    @property
    def first(self) -> ChildRecord | None:
        """The first one, or the last."""
        while self._heap and self._heap[0] not in self._by_place:
            heapq.heappop(self._heap)
        return self._by_place[self._heap[0]] if self._heap else None


def _start_position(record: ChildRecord) -> int:
    return record.start_position


class ChildIndex(Mapping[str, ChildRecord]):
    """All children in start order, and views of them. Reading a view brings it up to date first."""

    def __init__(self, children: Mapping[str, ChildRecord]) -> None:
        self._children: dict[str, ChildRecord] = {}
        self._places = itertools.count()
        self._changed: set[ChildRecord] = set()
        self._alive = OrderedView(lambda record: record.is_alive, last=True)
        self._not_asked_to_stop = View(lambda record: record.is_alive and record.ladder is None)
        self._to_terminate = View(
            lambda record: record.is_alive and record.ladder is None and record.desired is not DesiredState.UP
        )
        self._stopping_for_group = OrderedView(lambda record: record.is_alive and record.stops_for_group, last=True)
        self._to_start = View(lambda record: record.state in PENDING and not record.starts_in_turn)
        self._to_start_in_turn = OrderedView(
            lambda record: record.state in COMING_UP and record.starts_in_turn, last=False
        )
        self._never_served = View(lambda record: not record.has_served and record.desired is DesiredState.UP)
        self._views = (
            self._alive,
            self._not_asked_to_stop,
            self._to_terminate,
            self._stopping_for_group,
            self._to_start,
            self._to_start_in_turn,
            self._never_served,
        )
        for record in children.values():
            self.add(record)

    def add(self, record: ChildRecord) -> None:
        """List a child at the end of the start order."""
        record.start_position = next(self._places)
        record.on_change = self._changed.add
        self._children[record.name] = record
        self._changed.add(record)

    def remove(self, name: str) -> None:
        """List a child no longer; unknown names are ignored."""
        record = self._children.pop(name, None)
        if record is not None:
            self._changed.add(record)

    def _update_views(self) -> None:
        while self._changed:
            record = self._changed.pop()
            is_listed = self._children.get(record.name) is record
            for view in self._views:
                view.update(record, is_listed=is_listed)

    @property
    def alive(self) -> OrderedView:
        """Children with an incarnation that is not reported as unstopped, the last started first."""
        self._update_views()
        return self._alive

    @property
    def not_asked_to_stop(self) -> View:
        """Living children that were not asked to stop."""
        self._update_views()
        return self._not_asked_to_stop

    @property
    def to_terminate(self) -> View:
        """Living children that are to go down and were not asked to."""
        self._update_views()
        return self._to_terminate

    @property
    def stopping_for_group(self) -> OrderedView:
        """Living children that have to end for a group restart, the last started first."""
        self._update_views()
        return self._stopping_for_group

    @property
    def to_start(self) -> View:
        """Children to start, each by itself."""
        self._update_views()
        return self._to_start

    @property
    def to_start_in_turn(self) -> OrderedView:
        """Children that start one after the other, and those of them that are starting."""
        self._update_views()
        return self._to_start_in_turn

    @property
    def never_served(self) -> View:
        """Children that are wanted and have never served."""
        self._update_views()
        return self._never_served

    def __getitem__(self, name: str) -> ChildRecord:
        return self._children[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._children)

    def __len__(self) -> int:
        return len(self._children)


def next_stops(index: ChildIndex, *, stopping: bool, parallel: bool) -> list[ChildRecord]:
    """The children to ask now, latest started first.

    A supervisor that stops and a group restart take one child at a time, in reverse start order; terminated children
    and those of a `parallel` supervisor are asked at once.
    """
    if parallel and stopping:
        return list(reversed(list(index.not_asked_to_stop)))
    now = list(index.to_terminate)
    in_turn = (index.alive if stopping else index.stopping_for_group).first
    if in_turn is not None and in_turn.ladder is None and in_turn not in now:
        now.append(in_turn)
    return list(reversed(now))


def next_starts(index: ChildIndex, now: float) -> list[ChildRecord]:
    """The children to start now, in start order, while their supervisor does not stop.

    Members of a group start one after the other, each once the one before serves, and not before every incarnation
    that the group restart takes along has ended. A child waits for a needed sibling that is on its way up.
    """
    starts = [record for record in index.to_start if _is_due(record, index, now)]
    in_turn = index.to_start_in_turn.first
    if (
        in_turn is not None
        and in_turn.state in PENDING
        and not index.stopping_for_group
        and _is_due(in_turn, index, now)
    ):
        starts.append(in_turn)
    return sorted(starts, key=lambda record: record.start_position)


def _is_due(record: ChildRecord, children: Mapping[str, ChildRecord], now: float) -> bool:
    return record.not_before <= now and not record.unstopped_runs and not _waits_for_needed(record, children)


def _waits_for_needed(record: ChildRecord, children: Mapping[str, ChildRecord]) -> bool:
    needed = (children[name] for name in record.spec.needs if name in children)
    return any(
        other.state in COMING_UP or (other.state is ChildState.STOPPING and other.desired is DesiredState.UP)
        for other in needed
    )
