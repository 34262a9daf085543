"""A supervisor's children by name, and by what is to be done about them.

A supervisor looks after every change for what comes next. With thousands of children it must not look at all of them each
time: who changed is filed anew, and what comes next is found among those whom it concerns.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Mapping

from runtime.supervision.slot import ON_ITS_WAY_UP, PENDING, Goal, Slot


class File:
    """Those children to whom one thing applies."""

    __slots__ = ("_applies", "_members")

    def __init__(self, applies: Callable[[Slot], bool]) -> None:
        self._applies = applies
        self._members: set[Slot] = set()

    def look_at(self, slot: Slot, *, is_listed: bool) -> None:
        """It may apply now, or no longer."""
        if not (is_listed and self._applies(slot)):
            self._members.discard(slot)
        elif slot not in self._members:
            self._members.add(slot)
            self._joined(slot)

    def _joined(self, slot: Slot) -> None:
        """For a file that keeps an order."""

    def __bool__(self) -> bool:
        return bool(self._members)

    def __iter__(self) -> Iterator[Slot]:
        return iter(sorted(self._members, key=_place))


class RankedFile(File):
    """One whose first member in start order, or the last, is at hand."""

    __slots__ = ("_heap", "_sign")

    def __init__(self, applies: Callable[[Slot], bool], *, last: bool) -> None:
        super().__init__(applies)
        self._sign = -1 if last else 1
        self._heap: list[tuple[int, Slot]] = []
        """Some of them may have left: they are thrown away when they come up, or when there are too many."""

    def _joined(self, slot: Slot) -> None:
        heapq.heappush(self._heap, (self._sign * slot.place, slot))
        if len(self._heap) > 2 * len(self._members) + 8:
            self._heap = sorted((self._sign * member.place, member) for member in self._members)

    @property
    def top(self) -> Slot | None:
        """The first one, or the last."""
        while self._heap and self._heap[0][1] not in self._members:
            heapq.heappop(self._heap)
        return self._heap[0][1] if self._heap else None


def _place(slot: Slot) -> int:
    return slot.place


class Roster(Mapping[str, Slot]):
    """All children in start order. Reading a file brings it up to date first."""

    def __init__(self, slots: Mapping[str, Slot]) -> None:
        self._slots: dict[str, Slot] = {}
        self._places = itertools.count()
        self._changed: set[Slot] = set()
        self._alive = RankedFile(lambda slot: slot.alive, last=True)
        self._unasked = File(lambda slot: slot.alive and slot.ladder is None)
        self._unwanted = File(lambda slot: slot.alive and slot.ladder is None and slot.goal is not Goal.UP)
        self._recycled = RankedFile(lambda slot: slot.alive and slot.recycle, last=True)
        self._pending = File(lambda slot: slot.state in PENDING and not slot.in_group)
        self._rising = RankedFile(lambda slot: slot.state in ON_ITS_WAY_UP and slot.in_group, last=False)
        self._unproven = File(lambda slot: not slot.proven and slot.goal is Goal.UP)
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

    def add(self, slot: Slot) -> None:
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
    def alive(self) -> RankedFile:
        """Who has an incarnation that is not given up for lost."""
        self._file()
        return self._alive

    @property
    def unasked(self) -> File:
        """Those of them who were not asked to stop."""
        self._file()
        return self._unasked

    @property
    def unwanted(self) -> File:
        """Those of them whom their owner wants down."""
        self._file()
        return self._unwanted

    @property
    def recycled(self) -> RankedFile:
        """Whose incarnation has to end for a group restart."""
        self._file()
        return self._recycled

    @property
    def pending(self) -> File:
        """Who is to be started, each by himself."""
        self._file()
        return self._pending

    @property
    def rising(self) -> RankedFile:
        """Who is to be started in his turn, or is starting so."""
        self._file()
        return self._rising

    @property
    def unproven(self) -> File:
        """Who is wanted and has never served."""
        self._file()
        return self._unproven

    def __getitem__(self, name: str) -> Slot:
        return self._slots[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._slots)

    def __len__(self) -> int:
        return len(self._slots)
