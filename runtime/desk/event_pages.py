"""What happened: the events of the running system, live, with filters; and a correlation id followed through."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import trio

from runtime.desk.board import Source
from runtime.desk.page import Addition, Page, View
from runtime.desk.wording import said_of
from runtime.events import EventRecord

if TYPE_CHECKING:
    from runtime.desk.desk import Desk

KEPT: Final = 100
"""Events that the page shows."""
_LEVELS: Final = {"all": 0, "warning": 30, "error": 40}
_LONGEST: Final = 80


def addition(desk: Desk) -> Addition:
    """The page of events."""

    async def context(view: View) -> Mapping[str, object]:
        await trio.lowlevel.checkpoint()
        wanted = _wanted(view)
        return {
            "wanted": wanted,
            "levels": list(_LEVELS),
            "names": sorted({record.event.actor for record in desk.system.services.events.records()}),
            "kept": KEPT,
        }

    def sources(view: View) -> Sequence[Source]:
        return (events_source(desk, KEPT, **_wanted(view)),)

    return Addition(pages=(Page("/events", "Events", "events.html", context=context, sources=sources),))


def _wanted(view: View) -> dict[str, str]:
    found = {name: view.query.get(name, "")[:_LONGEST] for name in ("level", "actor", "text", "correlation")}
    if found["level"] not in _LEVELS:
        found["level"] = "all"
    return found


def events_source(
    desk: Desk, kept: int, level: str = "all", actor: str = "", text: str = "", correlation: str = ""
) -> Source:
    """The latest events that fit, a part each; their rows put themselves before the others."""
    rows: dict[int, tuple[str, str]] = {}

    def fits(record: EventRecord, line: str) -> bool:
        return (
            record.event.level >= _LEVELS[level]
            and actor in ("", record.event.actor)
            and correlation in ("", record.correlation)
            and (not text or text.lower() in line.lower() or text.lower() in record.kind.lower())
        )

    def lines(records: Iterable[EventRecord]) -> Iterable[tuple[EventRecord, str]]:
        found = 0
        for record in records:
            line = said_of(record)
            if fits(record, line):
                yield record, line
                found += 1
                if found == kept:
                    return

    def render(language: str) -> Mapping[str, str]:
        part = desk.module("parts/event.html", language)
        fresh: dict[int, tuple[str, str]] = {}
        for record, line in lines(reversed(desk.system.services.events.records())):
            known = rows.get(record.sequence)
            if known is None:
                known = (f"e-{record.sequence}", part(record, line, _look(record.event.level), clock(record.at)))
            fresh[record.sequence] = known
        rows.clear()
        rows.update(fresh)
        return dict(fresh[number] for number in sorted(fresh))

    return Source(f"events:{kept}:{level}:{actor}:{text}:{correlation}", render)


def _look(level: int) -> str:
    return "bad" if level >= _LEVELS["error"] else "warn" if level >= _LEVELS["warning"] else "plain"


def clock(moment: float) -> str:
    """The time of day, UTC."""
    return time.strftime("%H:%M:%S", time.gmtime(moment))
