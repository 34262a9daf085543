"""The first page: in ten seconds, what is wrong, whom it hurts, since when, and what to press."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from runtime.desk.actor_pages import least_of, tree_layout, tree_source
from runtime.desk.board import Source
from runtime.desk.event_pages import events_source
from runtime.desk.history import DAY, HOUR
from runtime.desk.page import Addition, Button, Figure, Need, Page, View
from runtime.operations.signs import Attention, attention

if TYPE_CHECKING:
    from runtime.desk.desk import Desk

_EVENTS: Final = 8
_URGENT: Final = ("down", "parked", "unstopped", "restarting")


@attrs.frozen
class Pulse:
    """One of the three heartbeats."""

    title: str
    age: str
    is_wrong: bool
    note: str = ""


def addition(desk: Desk) -> Addition:
    """The first page, and what actors need."""
    state = Source("state", lambda language: _state(desk, language))
    courses = {span: _courses(desk, span) for span in ("hour", "day")}
    events = events_source(desk, _EVENTS)
    tree = tree_source(desk)

    async def context(view: View) -> Mapping[str, object]:
        await trio.lowlevel.checkpoint()
        return {**tree_layout(desk), "span": _span(view), "kept": _EVENTS}

    def sources(view: View) -> Sequence[Source]:
        return (state, courses[_span(view)], tree, events)

    return Addition(
        pages=(Page("/", "Overview", "overview.html", context=context, sources=sources),),
        needs=lambda: actor_needs(desk),
        figures=(
            Figure("restarts", "Restarts a minute", lambda: restarts(desk), is_rate=True),
            Figure("waiting", "Messages waiting", lambda: messages_waiting(desk), show=lambda figure: f"{figure:.0f}"),
        ),
    )


def _span(view: View) -> str:
    return "day" if view.query.get("span") == "day" else "hour"


def restarts(desk: Desk) -> float:
    """Restarts of all actors since the start."""
    return float(sum(address.restarts for address in desk.system.registry))


def messages_waiting(desk: Desk) -> float:
    """Messages in all mailboxes."""
    return float(sum(address.mailbox.statistics().current_buffer_used for address in desk.system.registry))


def actor_needs(desk: Desk) -> list[Need]:
    """The actors that need a human."""
    if desk.system.is_stopping:
        return []
    status: Any = desk.system.operations.status()
    now = time.time()
    return [_need_of(found, now) for found in attention(status["children"])]


def _need_of(found: Attention, now: float) -> Need:
    wanted = "kill" if found.word in ("stuck", "waiting in a circle", "unstopped") else "restart"
    return Need(
        found.name,
        f"{found.word}: {found.why}" if found.why else found.word,
        is_urgent=found.word in _URGENT,
        since=round(now - found.seconds),
        href=f"/actors/{found.name}",
        buttons=(Button(wanted, wanted.capitalize(), least_of(wanted), {"name": found.name}),),
    )


def _state(desk: Desk, language: str) -> Mapping[str, str]:
    status: Any = desk.system.operations.status()
    needs = desk.needs()
    beats = status["beats"]
    limits = desk.system.config.watchdog
    pulses = [
        _pulse("event loop", beats["event_loop"], limits.event_loop_stale),
        _pulse("workers", beats["worker"], limits.worker_stale, str(beats["stalest_worker"] or "")),
        _pulse("health check", beats["healthcheck"], limits.healthcheck_stale),
    ]
    return {
        "state": desk.render(
            "parts/state.html",
            language,
            sentence=sentence(desk, language, len(needs), str(status["state"])),
            needs=needs[:12],
            left_out=max(0, len(needs) - 12),
            status=status,
            counted=sum(child["kind"] == "actor" for child in status["children"]),
        ),
        "pulses": desk.render("parts/pulses.html", language, pulses=pulses, rows=desk.facts()),
    }


def _pulse(title: str, age: float | None, limit: float, note: str = "") -> Pulse:
    if age is None:
        return Pulse(title, "–", is_wrong=False, note=note)
    # Whole seconds: what changes all the time would be sent all the time.
    return Pulse(title, f"{age:.0f} s", is_wrong=age > limit, note=note)


def sentence(desk: Desk, language: str, needs: int, state: str) -> str:
    """The state of everything, in one line."""
    if state != "up":
        return desk.translate(f"The system is {state}", language)
    if not needs:
        return desk.translate("All is well", language)
    if language == "ru":
        return f"Нужно ваше внимание: {needs}"
    words = ("", "One thing needs", "Two things need", "Three things need", "Four things need")
    return f"{words[needs] if needs < len(words) else f'{needs} things need'} you"


def _courses(desk: Desk, span: str) -> Source:
    def render(language: str) -> Mapping[str, str]:
        shown = []
        for track in desk.history.tracks.values():
            course = track.hour if span == "hour" else track.day
            known = [value for value in course if value is not None]
            shown.append(
                {
                    "title": track.figure.title,
                    "now": None if track.now is None else track.figure.show(track.now),
                    "peak": track.figure.show(max(known)) if known else None,
                    "course": list(course),
                    "length": HOUR if span == "hour" else DAY,
                }
            )
        return {"courses": desk.render("parts/courses.html", language, shown=shown, span=span)}

    return Source(f"courses:{span}", render)
