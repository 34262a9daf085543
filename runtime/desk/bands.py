"""How each actor was over the last hour: a band of states, equal neighbours merged, so that a short trouble stays to be seen."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Final

from runtime.desk import charts
from runtime.desk.board import Source
from runtime.desk.history import EVERY, HOUR
from runtime.wording import duration

if TYPE_CHECKING:
    from runtime.desk.desk import Desk

SHOWN: Final = 24
"""Bands on the page of the tree: of those that were in trouble, the longest in it first."""
_CALM: Final = frozenset({"idle", "busy", "not needed", "starting", "waiting"})
"""States that nobody has to look at; an actor waits for another one, which has a band of its own if it is that one's fault."""

Run = tuple[str, int]
"""A state and for how many samples it lasted."""


class Bands:
    """The state of each actor at each look of the last hour; "" where there was no such actor."""

    def __init__(self) -> None:
        self._words: dict[str, deque[str]] = {}

    def look(self, words: Mapping[str, str]) -> None:
        """Note the state of every actor that there is now."""
        for name in words.keys() | self._words.keys():
            self._words.setdefault(name, deque(maxlen=HOUR)).append(words.get(name, ""))
        for name in [name for name, seen in self._words.items() if not any(seen)]:
            del self._words[name]

    def runs(self, name: str) -> Sequence[Run]:
        """The states of one actor, the oldest first."""
        return [(word, sum(1 for _ in same)) for word, same in groupby(self._words.get(name, ()))]

    def troubled(self) -> Sequence[str]:
        """Those that were anything but idle or busy, the longest first."""
        looks = {name: sum(word not in _CALM and word != "" for word in seen) for name, seen in self._words.items()}
        return sorted((name for name, count in looks.items() if count), key=lambda name: (-looks[name], name))


def summary(desk: Desk, runs: Iterable[Run], language: str) -> str:
    """What a band shows, in words: each state and how long it lasted in all, the calm ones last."""
    looks: Counter[str] = Counter()
    for word, count in runs:
        if word:
            looks[word] += count
    ordered = sorted(looks.items(), key=lambda pair: (pair[0] in _CALM, -pair[1]))
    return ", ".join(f"{desk.translate(word, language)} {duration(count * EVERY)}" for word, count in ordered)


def band_of(desk: Desk, name: str, language: str) -> Mapping[str, object]:
    """The band of one actor, for a template."""
    runs = desk.bands.runs(name)
    text = summary(desk, runs, language)
    return {"name": name, "text": text, "svg": charts.band(runs, HOUR, f"{name}: {text}")}


def bands_source(desk: Desk) -> Source:
    """The part with the bands of those that were in trouble."""

    def render(language: str) -> Mapping[str, str]:
        names = desk.bands.troubled()
        shown = [band_of(desk, name, language) for name in names[:SHOWN]]
        return {"bands": desk.render("parts/bands.html", language, shown=shown, left_out=len(names) - len(shown))}

    return Source("bands", render)
