"""Metrics without locks: plain attribute writes on the loop, rendered as Prometheus text.

The system that this one replaces froze for good because its metrics code took a non-reentrant lock twice on the loop's
thread. So there is none here: instruments are declared once, statically, at module level, and writing one is an
attribute write. The price is a rule: one series is written by one thread only (the loop's, unless its owner says
otherwise).

    LEASES = counter("atlas_leases_total", "Leases granted.", labels=("pool",))
    LEASES.labels("main").inc()
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, Generic, TypeVar

MAX_SERIES = 1000
"""Series per instrument. Further label values share one labelled `other`, so that a mistake cannot eat the memory."""

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Bucket bounds for durations in seconds, from a millisecond to a minute."""

OTHER = "other"

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
_LABEL = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*\Z")

Labels = tuple[str, ...]
SampleSource = Callable[[], Iterable[tuple[Labels, float]]]


class CounterSeries:
    """One counter: a number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def inc(self, by: float = 1) -> None:
        """Add `by`, which must not be negative."""
        if by < 0:
            raise ValueError(f"a counter only grows, but was given {by}")
        self.value += by


class GaugeSeries:
    """One gauge: a number that moves."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0

    def set(self, value: float) -> None:
        """Set the gauge."""
        self.value = value

    def inc(self, by: float = 1) -> None:
        """Add `by`."""
        self.value += by

    def dec(self, by: float = 1) -> None:
        """Take `by` away."""
        self.value -= by


class HistogramSeries:
    """One histogram: counts by bucket, and the sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum: float = 0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        """How many observations there were."""
        return sum(self.counts)

    def quantile(self, q: float) -> float:
        """The upper bound of the bucket that holds the `q` quantile; infinity above the last; 0 with no observation."""
        rank, seen = q * self.count, 0
        if not rank:
            return 0.0
        for bound, count in zip((*self.bounds, math.inf), self.counts, strict=True):
            seen += count
            if seen >= rank:
                return bound
        return math.inf


S = TypeVar("S", CounterSeries, GaugeSeries, HistogramSeries)
N = TypeVar("N", CounterSeries, GaugeSeries)


class Instrument(Generic[S]):
    """A named family of series, one per combination of label values."""

    type_name: ClassVar[str]

    def __init__(self, name: str, help: str, labels: Labels = ()) -> None:  # noqa: A002  Prometheus calls it help
        if not _NAME.match(name):
            raise ValueError(f"{name!r} is not a metric name: letters, digits, _ and :, not starting with a digit")
        for label in labels:
            if not _LABEL.match(label) or label == "le":
                raise ValueError(f"{label!r} is not a label name of {name}: letters, digits, _; not __… and not le")
        if len(set(labels)) != len(labels):
            raise ValueError(f"{name} declares a label twice: {', '.join(labels)}")
        self.name = name
        self.help = help
        self.label_names = labels
        self._series: dict[Labels, S] = {}
        if not labels:
            self._series[()] = self._new()

    def _new(self) -> S:
        raise NotImplementedError

    def labels(self, *values: str) -> S:
        """The series with these label values, in the declared order. Keep the result where it is written often."""
        series = self._series.get(values)
        return self._add(values) if series is None else series

    def _add(self, values: Labels) -> S:
        self._check(values)
        if len(self._series) >= MAX_SERIES:
            values = (OTHER,) * len(values)
        return self._series.setdefault(values, self._new())

    def _check(self, values: Labels) -> None:
        if len(values) != len(self.label_names):
            names = ", ".join(self.label_names) or "none"
            raise ValueError(f"{self.name} has the labels ({names}), but {len(values)} values were given: {values}")

    def remove(self, *values: str) -> None:
        """Forget the series with these label values, if there is one: what it described is gone."""
        self._series.pop(values, None)

    def _only(self) -> S:
        try:
            return self._series[()]
        except KeyError:
            raise ValueError(f"{self.name} needs its labels: .labels({', '.join(self.label_names)})") from None

    def lines(self) -> Iterable[str]:
        """The samples in Prometheus text form."""
        raise NotImplementedError

    def _labelled(self, values: Labels, *, suffix: str = "", le: str | None = None) -> str:
        pairs = [f'{name}="{_escape(value)}"' for name, value in zip(self.label_names, values, strict=True)]
        if le is not None:
            pairs.append(f'le="{le}"')
        return f"{self.name}{suffix}{{{','.join(pairs)}}}" if pairs else f"{self.name}{suffix}"


class _Sampled(Instrument[N]):
    """Counters and gauges: one sample per series, some read from where the figure is kept anyway."""

    def __init__(self, name: str, help: str, labels: Labels = ()) -> None:  # noqa: A002  Prometheus calls it help
        super().__init__(name, help, labels)
        self._callbacks: dict[Labels, Callable[[], float]] = {}
        self._source: SampleSource | None = None

    def from_callback(self, values: Labels, callback: Callable[[], float]) -> None:
        """Read the series with these label values by calling `callback` at each rendering; a later call replaces it.

        The callback runs on the loop, must not wait, and is left out of a rendering in which it raises (counted).
        """
        self._check(values)
        self._callbacks[values] = callback

    def from_source(self, source: SampleSource | None) -> None:
        """Read any number of series, as (label values, figure), by calling `source` at each rendering; None ends it."""
        self._source = source

    def samples(self) -> dict[Labels, float]:
        """Each series with its figure now, by label values."""
        # An instrument without labels starts at 0, and so does not hide what a callback would say.
        samples = {values: float(series.value) for values, series in self._series.items()}
        for values, callback in self._callbacks.items():
            try:
                samples[values] = float(callback())
            except Exception:  # noqa: BLE001  one broken figure must not hide all the others
                samples.pop(values, None)
                CALLBACK_ERRORS.labels(self.name).inc()
        if self._source is not None:
            try:
                for values, figure in self._source():
                    self._check(values)
                    samples[values] = float(figure)
            except Exception:  # noqa: BLE001  as above
                CALLBACK_ERRORS.labels(self.name).inc()
        return samples

    def lines(self) -> Iterable[str]:
        """One line per series."""
        return [f"{self._labelled(values)} {_number(figure)}" for values, figure in sorted(self.samples().items())]


class Counter(_Sampled[CounterSeries]):
    """A figure that only grows. Its name ends in `_total`."""

    type_name = "counter"

    def _new(self) -> CounterSeries:
        return CounterSeries()

    def inc(self, by: float = 1) -> None:
        """Add `by`, where there are no labels."""
        self._only().inc(by)

    @property
    def value(self) -> float:
        """The figure, where there are no labels."""
        return self._only().value


class Gauge(_Sampled[GaugeSeries]):
    """A figure that moves."""

    type_name = "gauge"

    def _new(self) -> GaugeSeries:
        return GaugeSeries()

    def set(self, value: float) -> None:
        """Set the gauge, where there are no labels."""
        self._only().set(value)

    @property
    def value(self) -> float:
        """The figure, where there are no labels."""
        return self._only().value


class Histogram(Instrument[HistogramSeries]):
    """Observations counted by bucket; a bucket holds what is less than or equal to its bound."""

    type_name = "histogram"

    def __init__(
        self,
        name: str,
        help: str,  # noqa: A002  as above
        buckets: Sequence[float],
        labels: Labels = (),
    ) -> None:
        bounds = tuple(float(bound) for bound in buckets)
        if not bounds or list(bounds) != sorted(set(bounds)) or not all(map(math.isfinite, bounds)):
            raise ValueError(f"the buckets of {name} must be finite and strictly increasing: {bounds}")
        self.bounds = bounds
        super().__init__(name, help, labels)

    def _new(self) -> HistogramSeries:
        return HistogramSeries(self.bounds)

    def observe(self, value: float) -> None:
        """Count one observation, where there are no labels."""
        self._only().observe(value)

    def lines(self) -> Iterable[str]:
        """Cumulative buckets, sum and count of each series."""
        for values, series in sorted(self._series.items()):
            cumulative = 0
            for bound, count in zip((*self.bounds, math.inf), series.counts, strict=True):
                cumulative += count
                yield f"{self._labelled(values, suffix='_bucket', le=_number(bound))} {cumulative}"
            yield f"{self._labelled(values, suffix='_sum')} {_number(series.sum)}"
            yield f"{self._labelled(values, suffix='_count')} {cumulative}"


class Metrics:
    """All instruments of a process, by name."""

    def __init__(self) -> None:
        self._instruments: dict[str, Counter | Gauge | Histogram] = {}

    def counter(self, name: str, help: str, labels: Labels = ()) -> Counter:  # noqa: A002  Prometheus calls it help
        """Declare a counter; ValueError if the name is taken or does not end in `_total`."""
        if not name.endswith("_total"):
            raise ValueError(f"the counter {name} must be named {name}_total")
        instrument = Counter(name, help, labels)
        self._declare(instrument)
        return instrument

    def gauge(self, name: str, help: str, labels: Labels = ()) -> Gauge:  # noqa: A002  as above
        """Declare a gauge; ValueError if the name is taken."""
        instrument = Gauge(name, help, labels)
        self._declare(instrument)
        return instrument

    def histogram(
        self,
        name: str,
        help: str,  # noqa: A002  as above
        buckets: Sequence[float] = SECONDS,
        labels: Labels = (),
    ) -> Histogram:
        """Declare a histogram; ValueError if the name is taken or the buckets do not increase."""
        instrument = Histogram(name, help, buckets, labels)
        self._declare(instrument)
        return instrument

    def _declare(self, instrument: Counter | Gauge | Histogram) -> None:
        if instrument.name in self._instruments:
            raise ValueError(f"the metric {instrument.name} is declared twice")
        self._instruments[instrument.name] = instrument

    def get(self, name: str) -> Counter | Gauge | Histogram:
        """The instrument of that name; KeyError if there is none."""
        return self._instruments[name]

    def render(self) -> str:
        """All samples in the Prometheus text format, version 0.0.4. Call it on the loop."""
        out: list[str] = []
        for _, instrument in sorted(self._instruments.items()):
            help_text = instrument.help.replace("\\", r"\\").replace("\n", r"\n")
            out.append(f"# HELP {instrument.name} {help_text}")
            out.append(f"# TYPE {instrument.name} {instrument.type_name}")
            out.extend(instrument.lines())
        return "\n".join(out) + "\n"


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if math.isnan(value):
        return "NaN"
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


METRICS = Metrics()
"""The metrics of this process: what modules declare with the functions below."""

counter = METRICS.counter
gauge = METRICS.gauge
histogram = METRICS.histogram

CALLBACK_ERRORS = counter(
    "atlas_metrics_callback_errors_total",
    "Figures left out of a rendering because reading them raised.",
    labels=("metric",),
)
