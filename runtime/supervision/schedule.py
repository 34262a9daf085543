"""Which children to stop and which to start next. Pure: reads slots, changes nothing.

The supervisor asks after every change. Nothing here remembers an operation in progress: what has to happen next follows
from the state of the children alone, so a crash, a kill or a shutdown in the middle of anything needs no case of its own.
"""

from __future__ import annotations

from collections.abc import Mapping

from runtime.supervision.roster import Roster
from runtime.supervision.slot import ON_ITS_WAY_UP, PENDING, ChildState, Goal, Slot


def next_stops(roster: Roster, *, stopping: bool, parallel: bool) -> list[Slot]:
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


def next_starts(roster: Roster, now: float) -> list[Slot]:
    """The children to start now, in start order, while their supervisor does not stop.

    Members of a group start one after the other, each once the one before serves, and not before every incarnation
    that the group restart takes along has ended. A child waits for a needed sibling that is on its way up.
    """
    starts = [slot for slot in roster.pending if _is_due(slot, roster, now)]
    in_turn = roster.rising.top
    if in_turn is not None and in_turn.state in PENDING and not roster.recycled and _is_due(in_turn, roster, now):
        starts.append(in_turn)
    return sorted(starts, key=lambda slot: slot.place)


def _is_due(slot: Slot, slots: Mapping[str, Slot], now: float) -> bool:
    return slot.not_before <= now and not slot.zombies and not _waits_for_needed(slot, slots)


def _waits_for_needed(slot: Slot, slots: Mapping[str, Slot]) -> bool:
    needed = (slots[name] for name in slot.spec.needs if name in slots)
    return any(
        other.state in ON_ITS_WAY_UP or (other.state is ChildState.STOPPING and other.goal is Goal.UP)
        for other in needed
    )
