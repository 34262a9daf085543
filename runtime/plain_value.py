"""Anything an actor shows of itself, as data that JSON knows: of bounded size, whatever it is.

`inspect()` is anybody's code. What it returns may hold itself, a million rows, an int of a million digits, or objects whose
`repr` raises; looking at an actor must not hurt the one who looks.
"""

from __future__ import annotations

import enum
import itertools
import math
from collections.abc import Mapping, Set

import attrs

from runtime.error_text import cut_redacted, error_text, show_value
from runtime.redaction import MASK, redact_value

LONGEST_KEY = 100
LARGEST_INT = 256
"""Bits; more digits than that are no figure that anybody reads, and Python refuses to print millions of them."""


@attrs.frozen
class Bounds:
    """How much of a value is shown."""

    depth: int = 8
    """Levels of mappings and sequences."""
    items: int = 1_000
    """Members of one mapping or sequence."""
    values: int = 10_000
    """Values in all."""
    text: int = 2_000
    """Characters of one text."""


LIVE = Bounds()
"""For a look at an actor that runs."""
KEPT = Bounds(depth=5, items=30, values=200, text=300)
"""For a report that is kept and logged."""


def plain_mapping(value: object, bounds: Bounds = LIVE) -> dict[str, object]:
    """`value` as a mapping of plain values, redacted by its names; `{"error": …}` if it is none, or cannot be read.

    Never raises. What is left out is said in its place.
    """
    if not isinstance(value, Mapping):
        return {"error": f"inspect returned {_type_name(value)}, no mapping"}
    shown = _Walk(bounds).plain("", value, bounds.depth)
    return shown if isinstance(shown, dict) else {"error": str(shown)}


class _Walk:
    """One walk through a value, which counts what it has seen."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._left = bounds.values

    def plain(self, name: str, value: object, depth: int) -> object:
        self._left -= 1
        try:
            return self._plain(name, value, depth)
        except BaseException as error:  # noqa: BLE001  iterating, comparing or showing it is anybody's code
            return f"<{_type_name(value)} that cannot be shown: {error_text(error)}>"

    def _plain(self, name: str, value: object, depth: int) -> object:
        if isinstance(value, enum.Enum):
            value = value.value
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            number = int(value)
            return number if number.bit_length() <= LARGEST_INT else f"<an int of {number.bit_length()} bits>"
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else str(float(value))
        if isinstance(value, str):
            text = str.__str__(value)
            shown = cut_redacted(text, self._bounds.text)
            return MASK if redact_value(name, "x") == MASK and redact_value(name, text[:100]) == MASK else shown
        if isinstance(value, Mapping):
            return self._mapping(value, depth)
        if isinstance(value, list | tuple | Set):
            return self._sequence(name, value, depth)
        return cut_redacted(show_value(value), self._bounds.text)

    def _mapping(self, value: Mapping[object, object], depth: int) -> object:
        if depth <= 0 or self._left <= 0:
            return "…"
        shown: dict[str, object] = {}
        for key in itertools.islice(value, self._bounds.items):
            if self._left <= 0:
                break
            name = cut_redacted(str.__str__(key) if isinstance(key, str) else show_value(key), LONGEST_KEY)
            shown[name] = self.plain(name, value[key], depth - 1)
        if len(value) > len(shown):
            shown["…"] = f"{len(value) - len(shown)} more"
        return shown

    def _sequence(self, name: str, value: list[object] | tuple[object, ...] | Set[object], depth: int) -> object:
        if depth <= 0 or self._left <= 0:
            return "…"
        shown: list[object] = []
        for item in itertools.islice(value, self._bounds.items):
            if self._left <= 0:
                break
            shown.append(self.plain(name, item, depth - 1))
        if len(value) > len(shown):
            shown.append(f"… {len(value) - len(shown)} more")
        return shown


def _type_name(value: object) -> str:
    name: str = type.__dict__["__name__"].__get__(type(value))
    return name[:LONGEST_KEY]
