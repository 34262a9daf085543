"""How a child's state is said: one form and one word for the desk and the command line, and what of it needs a human."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

LONG: Final = 10.0
"""Seconds after which a message that is handled, or waits, is shown as late."""


@attrs.frozen
class Sign:
    """What an actor is doing, as a form, a colour and a word."""

    form: str
    """idle, busy, late, down, paused or off."""
    word: str
    is_wrong: bool = False


@attrs.frozen
class Attention:
    """A child that needs a human: what it is, why as far as it is known, and for how long."""

    name: str
    word: str
    why: str
    seconds: float


WORDS: Final[Mapping[str, str]] = {
    "idle": "serves, and has nothing to do",
    "busy": "handles a message",
    "stuck": f"has handled one message for more than {LONG:g} s",
    "starved": f"its oldest message has waited for more than {LONG:g} s",
    "waiting in a circle": "asks an actor that, in the end, asks it",
    "not ready": "runs, and cannot do its work",
    "paused": "serves nothing until `atlas resume`",
    "not needed": "declined to run: the configuration has no work for it",
    "waiting": "its first start waits for its turn or for what it needs",
    "starting": "starts",
    "restarting": "is down and will be started by itself",
    "stopping": "stops",
    "down": "was stopped or has finished; nothing follows by itself",
    "parked": "gave up after too many restarts; `atlas start` brings it back",
    "unstopped": "ignored its end; only the end of the process frees its place",
}
"""All words there are, and what they mean."""


def sign_of(child: Mapping[str, Any], in_circle: frozenset[str] = frozenset()) -> Sign:
    """How a child's line of `status` is shown; `in_circle` is what `circle_of` found among all of them."""
    state = child["state"]
    if str(child["reason"]).startswith("not needed"):
        return Sign("off", "not needed")
    if state in ("down", "parked", "unstopped"):
        return Sign("down", state, is_wrong=state != "down" or not child["ready"])
    if state in ("restarting", "waiting", "starting", "stopping"):
        return Sign("down" if state == "restarting" else "late", state, is_wrong=state == "restarting")
    if child["paused"] or state == "paused":
        return Sign("paused", "paused")
    if child["name"] in in_circle:
        return Sign("late", "waiting in a circle", is_wrong=True)
    if (child["handling_for"] or 0.0) > LONG:
        return Sign("late", "stuck", is_wrong=True)
    if child["oldest_age"] > LONG:
        return Sign("late", "starved", is_wrong=True)
    if not child["ready"]:
        return Sign("late", "not ready", is_wrong=True)
    return Sign("busy", "busy") if child["handling"] else Sign("idle", "idle")


def circle_of(children: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """The actors that wait for each other in a circle."""
    waits = {child["name"]: child["waiting_on"] for child in children if child["waiting_on"]}
    found: set[str] = set()
    for begin in waits:
        seen: list[str] = []
        at = begin
        while at in waits and at not in seen:
            seen.append(at)
            at = waits[at][0]
        if at in seen:
            found.update(seen[seen.index(at) :])
    return frozenset(found)


def attention(children: Sequence[Mapping[str, Any]]) -> list[Attention]:
    """Those of the lines of `status` that need a human, with why and for how long."""
    circle = circle_of(children)
    found = []
    for child in children:
        sign = sign_of(child, circle)
        if sign.is_wrong and not (child["kind"] == "group" and sign.word == "not ready"):
            seconds = child["handling_for"] or child["oldest_age"] or child["since"]
            found.append(Attention(str(child["name"]), sign.word, _why(child, sign.word), float(seconds)))
    return found


def _why(child: Mapping[str, Any], word: str) -> str:
    waits_for = ", ".join(child["waiting_on"])
    if word == "stuck":
        return f"handles {child['handling']}" + (f", waits for {waits_for}" if waits_for else "")
    if word == "starved":
        return f"its oldest message waits; {child['depth']} in its mailbox"
    if word == "waiting in a circle":
        return f"waits for {waits_for}"
    if word == "not ready":
        return str(child["why_not_ready"])
    last = child["last_exit"] or {}
    return str(last.get("error") or child["reason"] or "")
