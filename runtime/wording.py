"""Words for people: durations, and the name that was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from datetime import UTC, datetime


def duration(seconds: float) -> str:
    """`250 ms`, `2.50 s`, `12 s`, `3 min 20 s`, `5 h 10 min`, `12 d 3 h`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return _two(whole, 60, "min", 1, "s")
    if whole < 86400:
        return _two(whole, 3600, "h", 60, "min")
    return _two(whole, 86400, "d", 3600, "h")


def moment(at: float | datetime | None) -> str:
    """`2030-01-31 12:00:05 UTC`: how every command shows a moment. `at` is seconds since 1970, or knows its
    zone; None is `-`."""
    if at is None:
        return "-"
    when = datetime.fromtimestamp(at, UTC) if isinstance(at, int | float) else at.astimezone(UTC)
    return f"{when:%Y-%m-%d %H:%M:%S} UTC"


def _two(value: int, large: int, large_name: str, small: int, small_name: str) -> str:
    rest = value % large // small
    return f"{value // large} {large_name}" + (f" {rest} {small_name}" if rest else "")


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice closest to `word`, or None when none is close. Case is ignored."""
    by_lower = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`; did you mean "x"?` when a choice is close; else `; known: …` with all of them (nothing if there are none)."""
    known = sorted(set(choices))
    meant = nearest(word, known)
    if meant is not None:
        return f'; did you mean "{meant}"?'
    return f"; known: {', '.join(known)}" if known else ""
