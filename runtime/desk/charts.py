"""Charts as SVG. Geometry is in attributes: the policy of the pages refuses styles in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from markupsafe import Markup

_WIDTH, _HEIGHT, _EDGE = 240, 44, 3


def line(course: Sequence[float | None], at_most: int, summary: str) -> Markup:
    """A line over its area, with gaps where nothing is known. `at_most` samples fill the width; `summary` is read aloud."""
    known = [value for value in course if value is not None]
    top = max(known, default=0.0) or 1.0
    step = (_WIDTH - 2 * _EDGE) / max(at_most - 1, 1)
    begin = _WIDTH - _EDGE - step * (len(course) - 1)
    points = [
        None if value is None else (begin + step * at, _HEIGHT - _EDGE - (_HEIGHT - 2 * _EDGE) * max(value, 0.0) / top)
        for at, value in enumerate(course)
    ]
    runs = _runs(points)
    areas = Markup("").join(
        Markup('<path class="area" d="M{:.1f} {}L{}L{:.1f} {}Z"/>').format(
            run[0][0], _HEIGHT, Markup("L").join(_at(one) for one in run), run[-1][0], _HEIGHT
        )
        for run in runs
        if len(run) > 1
    )
    lines = Markup("").join(
        Markup('<path class="line" d="M{}"/>').format(Markup("L").join(_at(one) for one in run))
        for run in runs
        if len(run) > 1
    )
    last = points[-1] if points else None
    dot = Markup("") if last is None else Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="2.5"/>').format(*last)
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}{}</svg>').format(
        _WIDTH, _HEIGHT, summary, areas, lines, dot
    )


def _at(point: tuple[float, float]) -> Markup:
    return Markup("{:.1f} {:.1f}").format(*point)


def _runs(points: Sequence[tuple[float, float] | None]) -> list[list[tuple[float, float]]]:
    runs: list[list[tuple[float, float]]] = []
    for before, point in pairwise([None, *points]):
        if point is not None:
            if before is None:
                runs.append([])
            runs[-1].append(point)
    return runs


def histogram(buckets: Sequence[tuple[float | None, int]], summary: str) -> Markup:
    """Bars of counts by upper bound; None is the last, without one."""
    if not buckets:
        return Markup("")
    top = max(count for _, count in buckets) or 1
    width = _WIDTH / len(buckets)
    bars = Markup("").join(
        Markup(
            '<rect class="bar" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>≤ {}: {}</title></rect>'
        ).format(
            at * width + 1,
            _HEIGHT - (_HEIGHT - _EDGE) * height,
            max(width - 2, 1),
            (_HEIGHT - _EDGE) * height,
            "∞" if bound is None or math.isinf(bound) else f"{bound:g} s",
            count,
        )
        for at, (bound, count) in enumerate(buckets)
        if (height := math.sqrt(count / top)) > 0
    )
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDTH, _HEIGHT, summary, bars
    )


_FORMS: Final = {
    "idle": "calm",
    "busy": "calm",
    "not needed": "calm",
    "starting": "calm",
    "paused": "paused",
    "parked": "down",
    "down": "down",
    "unstopped": "down",
    "restarting": "down",
    "": "none",
}
"""How states are drawn in a band; those that are not here are late."""


def band(runs: Sequence[tuple[str, int]], at_most: int, summary: str) -> Markup:
    """States over time as one bar, the latest at its right end. `at_most` samples fill it; `summary` is read aloud."""
    at = at_most - sum(count for _, count in runs)
    drawn: list[Markup] = []
    for word, count in runs:
        form = _FORMS.get(word, "late")
        if form != "none":
            # Trouble differs from calm by height too, not by colour alone.
            top, height = (3, 6) if form == "calm" else (0, 12)
            drawn.append(
                Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>').format(form, at, top, count, height)
            )
        at += count
    return Markup(
        '<svg class="band" viewBox="0 0 {} 12" preserveAspectRatio="none" role="img" aria-label="{}">{}</svg>'
    ).format(at_most, summary, Markup("").join(drawn))


def meter(share: float, label: str) -> Markup:
    """A small bar that is filled by a share, 0 to 1."""
    return Markup(
        '<svg class="meter" viewBox="0 0 40 6" role="img" aria-label="{}"><rect class="all" width="40" height="6" rx="1"/>'
        '<rect class="part" width="{:.1f}" height="6" rx="1"/></svg>'
    ).format(label, 40 * min(max(share, 0.0), 1.0))
