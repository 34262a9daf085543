"""A supervisor's children: the record of each, the index by what they wait for, and which to stop and to start next.

With thousands of children a supervisor must not look at all of them after each change: children are indexed by what
they
wait for, so each pass touches only those that changed. No operation in progress is remembered: what has to happen next
follows from the state of the children alone, so a crash, a kill or a shutdown in the middle of anything is no special
case.
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
from runtime.supervision.child_run import ChildRun
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


def _tell_of_change(slot: ChildRecord, _attribute: attrs.Attribute[object], value: T) -> T:
    """The index has to look again at a child before one of the fields changes that it is indexed by."""
    if slot.on_change is not None:
        slot.on_change(slot)
    return value


@attrs.define(eq=False)
class ChildRecord:
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
    on_change: Callable[[ChildRecord], None] | None = None
    """Told before anything changes by which the supervisor finds it."""

    state: ChildState = attrs.field(default=ChildState.WAITING, on_setattr=_tell_of_change)
    since: float = 0.0
    goal: DesiredState = attrs.field(default=DesiredState.UP, on_setattr=_tell_of_change)
    incarnation: ChildRun | None = attrs.field(default=None, on_setattr=_tell_of_change)
    number: int = 0
    """Of the latest incarnation; grows for as long as the child exists."""
    ladder: StopLadder | None = attrs.field(default=None, on_setattr=_tell_of_change)
    asked: StopReason | None = None
    """What its latest incarnation was asked to stop with, if it was."""
    deadline: float = math.inf
    """When the supervisor has to look at it again; entries in the heap with another time are stale."""
    start_deadline: float = math.inf
    not_before: float = 0.0
    """The end of its backoff."""
    recycle: bool = attrs.field(default=False, on_setattr=_tell_of_change)
    """Its incarnation has to end for a group restart."""
    in_group: bool = attrs.field(default=False, on_setattr=_tell_of_change)
    """It starts in its turn: at boot, or in a group restart."""
    proven: bool = attrs.field(default=False, on_setattr=_tell_of_change)
    """It served once, or declined to: from now on a failing start is a failed attempt and not a refused one."""
    tentative: bool = False
    """Added by start_child and not yet up: if this start fails, it is not kept."""
    finished: bool = False
    """It was told that no further incarnation is planned."""
    restarts: int = 0
    """Restarts in a row, for the backoff."""
    reports: list[Unstopped] = attrs.field(factory=list)
    zombies: set[ChildRun] = attrs.field(factory=set)
    """Incarnations that were left alone and still exist."""
    last_exit: Exit | None = None
    reason: str = ""
    start_reply: PendingReply[int] | None = None
    stop_replies: list[PendingReply[None]] = attrs.field(factory=list)

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
        return self.alive and (self.recycle or self.goal is not DesiredState.UP)

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
        self.goal = DesiredState.UP
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


class View:
    """Those children to whom one thing applies."""

    __slots__ = ("_applies", "_members")

    def __init__(self, applies: Callable[[ChildRecord], bool]) -> None:
        self._applies = applies
        self._members: set[ChildRecord] = set()

    def look_at(self, slot: ChildRecord, *, is_listed: bool) -> None:
        """It may apply now, or no longer."""
        if not (is_listed and self._applies(slot)):
            self._members.discard(slot)
        elif slot not in self._members:
            self._members.add(slot)
            self._joined(slot)

    def _joined(self, slot: ChildRecord) -> None:
        """For a file that keeps an order."""

    def __bool__(self) -> bool:
        return bool(self._members)

    def __iter__(self) -> Iterator[ChildRecord]:
        return iter(sorted(self._members, key=_place))


class OrderedView(View):
    """One whose first member in start order, or the last, is at hand."""

    __slots__ = ("_heap", "_sign")

    def __init__(self, applies: Callable[[ChildRecord], bool], *, last: bool) -> None:
        super().__init__(applies)
        self._sign = -1 if last else 1
        self._heap: list[tuple[int, ChildRecord]] = []
        """Some of them may have left: they are thrown away when they come up, or when there are too many."""

    def _joined(self, slot: ChildRecord) -> None:
        heapq.heappush(self._heap, (self._sign * slot.place, slot))
        if len(self._heap) > 2 * len(self._members) + 8:
            self._heap = sorted((self._sign * member.place, member) for member in self._members)

    @property
    def top(self) -> ChildRecord | None:
        """The first one, or the last."""
        while self._heap and self._heap[0][1] not in self._members:
            heapq.heappop(self._heap)
        return self._heap[0][1] if self._heap else None


def _place(slot: ChildRecord) -> int:
    return slot.place


class ChildIndex(Mapping[str, ChildRecord]):
    """All children in start order. Reading a file brings it up to date first."""

    def __init__(self, slots: Mapping[str, ChildRecord]) -> None:
        self._slots: dict[str, ChildRecord] = {}
        self._places = itertools.count()
        self._changed: set[ChildRecord] = set()
        self._alive = OrderedView(lambda slot: slot.alive, last=True)
        self._unasked = View(lambda slot: slot.alive and slot.ladder is None)
        self._unwanted = View(lambda slot: slot.alive and slot.ladder is None and slot.goal is not DesiredState.UP)
        self._recycled = OrderedView(lambda slot: slot.alive and slot.recycle, last=True)
        self._pending = View(lambda slot: slot.state in PENDING and not slot.in_group)
        self._rising = OrderedView(lambda slot: slot.state in COMING_UP and slot.in_group, last=False)
        self._unproven = View(lambda slot: not slot.proven and slot.goal is DesiredState.UP)
        self._files = (
            self._alive,
            self._unasked,
            self._unwanted,
            self._recycled,
            self._pending,
            self._rising,
            self._unproven,
        )
        for slot in slots.values():
            self.add(slot)

    def add(self, slot: ChildRecord) -> None:
        """List a child at the end of the start order."""
        slot.place = next(self._places)
        slot.on_change = self._changed.add
        self._slots[slot.name] = slot
        self._changed.add(slot)

    def remove(self, name: str) -> None:
        """List a child no longer; unknown names are ignored."""
        slot = self._slots.pop(name, None)
        if slot is not None:
            self._changed.add(slot)

    def _file(self) -> None:
        while self._changed:
            slot = self._changed.pop()
            is_listed = self._slots.get(slot.name) is slot
            for file in self._files:
                file.look_at(slot, is_listed=is_listed)

    @property
    def alive(self) -> OrderedView:
        """Who has an incarnation that is not given up for lost."""
        self._file()
        return self._alive

    @property
    def unasked(self) -> View:
        """Those of them who were not asked to stop."""
        self._file()
        return self._unasked

    @property
    def unwanted(self) -> View:
        """Those of them whom their owner wants down."""
        self._file()
        return self._unwanted

    @property
    def recycled(self) -> OrderedView:
        """Whose incarnation has to end for a group restart."""
        self._file()
        return self._recycled

    @property
    def pending(self) -> View:
        """Who is to be started, each by himself."""
        self._file()
        return self._pending

    @property
    def rising(self) -> OrderedView:
        """Who is to be started in his turn, or is starting so."""
        self._file()
        return self._rising

    @property
    def unproven(self) -> View:
        """Who is wanted and has never served."""
        self._file()
        return self._unproven

    def __getitem__(self, name: str) -> ChildRecord:
        return self._slots[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._slots)

    def __len__(self) -> int:
        return len(self._slots)


def next_stops(roster: ChildIndex, *, stopping: bool, parallel: bool) -> list[ChildRecord]:
    """The children to ask now, latest started first.

    A supervisor that stops and a group restart take one child at a time, in reverse start order; terminated children
    and those of a `parallel` supervisor are asked at once.
    """
    if parallel and stopping:
        return list(reversed(list(roster.unasked)))
    now = list(roster.unwanted)
    in_turn = (roster.alive if stopping else roster.recycled).top
    if in_turn is not None and in_turn.ladder is None and in_turn not in now:
        now.append(in_turn)
    return list(reversed(now))


def next_starts(roster: ChildIndex, now: float) -> list[ChildRecord]:
    """The children to start now, in start order, while their supervisor does not stop.

    Members of a group start one after the other, each once the one before serves, and not before every incarnation
    that the group restart takes along has ended. A child waits for a needed sibling that is on its way up.
    """
    starts = [slot for slot in roster.pending if _is_due(slot, roster, now)]
    in_turn = roster.rising.top
    if in_turn is not None and in_turn.state in PENDING and not roster.recycled and _is_due(in_turn, roster, now):
        starts.append(in_turn)
    return sorted(starts, key=lambda slot: slot.place)


def _is_due(slot: ChildRecord, slots: Mapping[str, ChildRecord], now: float) -> bool:
    return slot.not_before <= now and not slot.zombies and not _waits_for_needed(slot, slots)


def _waits_for_needed(slot: ChildRecord, slots: Mapping[str, ChildRecord]) -> bool:
    needed = (slots[name] for name in slot.spec.needs if name in slots)
    return any(
        other.state in COMING_UP or (other.state is ChildState.STOPPING and other.goal is DesiredState.UP)
        for other in needed
    )
