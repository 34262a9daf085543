"""What a benchmark found, beside what it should find."""

from __future__ import annotations

import enum

import attrs


class Sense(enum.Enum):
    """Which side of a limit is good."""

    AT_LEAST = "≥"
    AT_MOST = "≤"


@attrs.frozen
class Target:
    """A limit for the ratio of a result, or for its value if it has no ratio."""

    sense: Sense
    limit: float
    wanted: float | None = None
    """Better than required, and hoped for."""

    def is_met_by(self, figure: float) -> bool:
        """Whether `figure` is on the good side; the limit itself is."""
        return figure >= self.limit if self.sense is Sense.AT_LEAST else figure <= self.limit


@attrs.frozen
class Result:
    """One line of a report. `value` and `yardstick_value` are in `unit`."""

    name: str
    value: float
    unit: str
    """`us`, `ms`, `s`, `bytes`, `1/s`, …"""
    yardstick: str = ""
    """What the value is compared with; measured in the same run."""
    yardstick_value: float | None = None
    ratio: float | None = None
    """Which way it is divided is the maker's choice; `ratio_means` says it."""
    ratio_means: str = ""
    """`× faster`, `× the cost` or `× the rate`."""
    target: Target | None = None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        return self.target.is_met_by(self.value if self.ratio is None else self.ratio)

    def target_text(self) -> str:
        """The target for a person, e.g. `≥ 10 × (15 wanted)`; "" without one."""
        if self.target is None:
            return ""
        unit = self.unit if self.ratio is None else "×"
        wanted = f" ({self.target.wanted:g} wanted)" if self.target.wanted is not None else ""
        return f"{self.target.sense.value} {self.target.limit:g} {unit}{wanted}"

    def to_json(self) -> dict[str, object]:
        """All of it, with `target` as text and as number."""
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "yardstick": self.yardstick,
            "yardstick_value": self.yardstick_value,
            "ratio": self.ratio,
            "ratio_means": self.ratio_means,
            "target": self.target_text(),
            "limit": None if self.target is None else self.target.limit,
            "met": self.met,
        }


def faster(
    name: str,
    value: float,
    unit: str,
    yardstick: str,
    yardstick_value: float,
    *,
    at_least: float | None = None,
    wanted: float | None = None,
) -> Result:
    """Two durations: how many times as long the yardstick takes."""
    target = None if at_least is None else Target(Sense.AT_LEAST, at_least, wanted)
    return Result(name, value, unit, yardstick, yardstick_value, _divide(yardstick_value, value), "× faster", target)


def share(
    name: str,
    value: float,
    unit: str,
    yardstick: str,
    yardstick_value: float,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
    wanted: float | None = None,
) -> Result:
    """Two costs (`at_most`) or two rates (`at_least`): the value in multiples of the yardstick."""
    target = _target(at_most, at_least, wanted)
    means = "× the rate" if at_least is not None else "× the cost"
    return Result(name, value, unit, yardstick, yardstick_value, _divide(value, yardstick_value), means, target)


def figure(
    name: str,
    value: float,
    unit: str,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
    wanted: float | None = None,
) -> Result:
    """A value that is compared with nothing but its limit."""
    return Result(name, value, unit, target=_target(at_most, at_least, wanted))


def _target(at_most: float | None, at_least: float | None, wanted: float | None) -> Target | None:
    if at_most is not None:
        return Target(Sense.AT_MOST, at_most, wanted)
    if at_least is not None:
        return Target(Sense.AT_LEAST, at_least, wanted)
    return None


def _divide(a: float, b: float) -> float:
    return a / b if b else float("inf")
