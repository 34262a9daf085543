"""The two pictures of `docs/explanation/incident.md`, as SVG without a library: two panels, one time axis each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Final

from benchmarks.incident.night import BEATS, LIST_FAILS_UNTIL, LOCK_AT, PERIOD, SECONDS, Seen

WIDTH: Final = 960
HEIGHT: Final = 330
_LEFT: Final = 52
_GAP: Final = 40
_TOP: Final = 64
_FLOOR: Final = 276
_PANEL: Final = (WIDTH - _LEFT - 2 * _GAP) / 2
_COLOURS: Final = {"event_loop": "#c0392b", "worker": "#2471a3", "healthcheck": "#7d6608"}
_STYLE: Final = (
    "text{font:12px system-ui,sans-serif;fill:#222}.t{font-size:15px;font-weight:600}.s{fill:#666}"
    ".g{stroke:#ddd}.m{stroke:#999;stroke-dasharray:3 3}.b{fill:#fff}"
    "@media(prefers-color-scheme:dark){text{fill:#eee}.s{fill:#aaa}.g{stroke:#444}.m{stroke:#888}.b{fill:#1b1b1b}}"
)


def draw_waits(then: Seen, now: Seen) -> str:
    """How long each wait for a connection was, by when it was asked for; logarithmic, from a millisecond to a minute."""
    ticks = {0.001: "1 ms", 0.01: "10 ms", 0.1: "100 ms", 1.0: "1 s", 10.0: "10 s", 60.0: "60 s"}

    def height(seconds: float) -> float:
        share = (math.log10(max(seconds, 0.001)) + 3) / (math.log10(60.0) + 3)
        return _FLOOR - min(share, 1.0) * (_FLOOR - _TOP)

    def dots(seen: Seen, left: float) -> Iterable[str]:
        for at, wait in sorted({(round(at, 1), wait) for at, wait in seen.waits if at <= SECONDS}):
            colour = "#c0392b" if wait > 1 else "#1e8449"
            yield f'<circle cx="{_x(at, left):.1f}" cy="{height(wait):.1f}" r="2.4" fill="{colour}" fill-opacity=".7"/>'

    return _draw("How long one waits for a connection", ticks, height, (then, now), dots)


def draw_beats(then: Seen, now: Seen) -> str:
    """How old each of the three beats was, at each moment."""
    ticks = {float(value): f"{value} s" for value in (0, 10, 20, 30)}

    def height(seconds: float) -> float:
        return _FLOOR - min(seconds / 35, 1.0) * (_FLOOR - _TOP)

    def curves(seen: Seen, left: float) -> Iterable[str]:
        for number, beat in enumerate(BEATS):
            points = " ".join(f"{_x(at, left):.1f},{height(age):.1f}" for at, age in seen.beats[beat] if at <= SECONDS)
            yield f'<polyline points="{points}" fill="none" stroke="{_COLOURS[beat]}" stroke-width="1.8"/>'
            yield f'<text x="{left + 8}" y="{_TOP + 14 + 16 * number}" style="fill:{_COLOURS[beat]}">{beat}</text>'

    return _draw("How old each heartbeat is", ticks, height, (then, now), curves)


def _x(at: float, left: float) -> float:
    return left + min(at / SECONDS, 1.0) * _PANEL


def _draw(
    title: str,
    ticks: dict[float, str],
    height: Callable[[float], float],
    both: tuple[Seen, Seen],
    marks: Callable[[Seen, float], Iterable[str]],
) -> str:
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{title}: the old habits, and ATLAS</title><style>{_STYLE}</style>",
        f'<rect class="b" width="{WIDTH}" height="{HEIGHT}"/><text class="t" x="{_LEFT}" y="22">{title}</text>',
    ]
    for seen, name, left in zip(both, ("the old habits", "ATLAS"), (_LEFT, _LEFT + _PANEL + _GAP), strict=True):
        parts.append(f'<text x="{left}" y="44">{name}</text>')
        for value, label in ticks.items():
            y = height(value)
            parts.append(f'<line class="g" x1="{left}" x2="{left + _PANEL:.0f}" y1="{y:.1f}" y2="{y:.1f}"/>')
            if left == _LEFT:
                parts.append(f'<text class="s" x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
        happenings = {PERIOD: "all workers due", LIST_FAILS_UNTIL: "list works"}
        if seen is both[1]:  # the old service comes to its lock by itself, once it has removed something
            happenings[LOCK_AT] = "lock twice"
        for number, (at, what) in enumerate(happenings.items()):
            x = _x(at, left)
            parts.append(f'<line class="m" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_FLOOR}"/>')
            parts.append(f'<text class="s" x="{x + 3:.1f}" y="{_FLOOR + 14 + 14 * (number % 2)}">{what}</text>')
        parts.append(f'<text class="s" x="{left}" y="{_FLOOR + 46}">0 s</text>')
        parts.append(
            f'<text class="s" x="{left + _PANEL:.0f}" y="{_FLOOR + 46}" text-anchor="end">{SECONDS:.0f} s</text>'
        )
        parts += marks(seen, left)
    return "\n".join([*parts, "</svg>\n"])
