"""Which children to stop and which to start next. Pure: reads slots, changes nothing.

The supervisor asks after every change. Nothing here remembers an operation in progress: what has to happen next follows
from the state of the children alone, so a crash, a kill or a shutdown in the middle of anything needs no case of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from runtime.supervision.slot import ON_ITS_WAY_UP, PENDING, ChildState, Goal, Slot


def next_stops(slots: Iterable[Slot], *, stopping: bool, parallel: bool) -> list[Slot]:
    """The children to ask now, latest started first.

    A supervisor that stops and a group restart take one child at a time, in reverse start order; terminated children
    and those of a `parallel` supervisor are asked at once.
    """
    alive = [slot for slot in slots if slot.alive]
    if parallel and stopping:
        return [slot for slot in reversed(alive) if slot.ladder is None]
    now = [slot for slot in alive if slot.goal is not Goal.UP and slot.ladder is None]
    in_turn = [slot for slot in alive if stopping or slot.recycle]
    if in_turn and in_turn[-1].ladder is None and in_turn[-1] not in now:
        now.append(in_turn[-1])
    return list(reversed(now))


def next_starts(slots: Mapping[str, Slot], now: float) -> list[Slot]:
    """The children to start now, in start order, while their supervisor does not stop.

    Members of a group start one after the other, each once the one before serves, and not before every incarnation
    that the group restart takes along has ended. A child waits for a needed sibling that is on its way up.
    """
    starts = []
    blocked = any(slot.alive and slot.recycle for slot in slots.values())
    for slot in slots.values():
        if slot.state in PENDING:
            due = slot.not_before <= now and not slot.zombies and not _waits_for_needed(slot, slots)
            if due and not (slot.in_group and blocked):
                starts.append(slot)
        if slot.in_group and slot.state in ON_ITS_WAY_UP:
            blocked = True
    return starts


def _waits_for_needed(slot: Slot, slots: Mapping[str, Slot]) -> bool:
    needed = (slots[name] for name in slot.spec.needs if name in slots)
    return any(
        other.state in ON_ITS_WAY_UP or (other.state is ChildState.STOPPING and other.goal is Goal.UP)
        for other in needed
    )
