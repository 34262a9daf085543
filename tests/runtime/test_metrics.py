from __future__ import annotations

import math
import threading
from collections.abc import Iterable

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from runtime.metrics import MAX_SERIES, METRICS, Metrics

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def families(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def samples(metrics: Metrics) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families(metrics.render()).values()
        for sample in family.samples
    }


# S-911
def test_counters_and_gauges_are_read_back_by_prometheus() -> None:
    metrics = Metrics()
    leases = metrics.counter("leases_total", "Leases granted.", labels=("pool", "lane"))
    leases.labels("main", "batch").inc()
    leases.labels("main", "batch").inc(2)
    leases.labels("gateway", "control").inc(0.5)
    depth = metrics.gauge("depth", "Queue depth.")
    depth.set(7)
    assert samples(metrics) == {
        ("leases_total", (("lane", "batch"), ("pool", "main"))): 3,
        ("leases_total", (("lane", "control"), ("pool", "gateway"))): 0.5,
        ("depth", ()): 7,
    }
    assert {name: family.type for name, family in families(metrics.render()).items()} == {
        "leases": "counter",
        "depth": "gauge",
    }


def test_help_and_labels_are_escaped() -> None:
    metrics = Metrics()
    metrics.gauge("odd", 'back\\slash, "quote"\nand line', labels=("what",)).labels('a"b\\c\nd').set(1)
    family = families(metrics.render())["odd"]
    assert family.documentation == 'back\\slash, "quote"\nand line'
    assert family.samples[0].labels == {"what": 'a"b\\c\nd'}


@pytest.mark.parametrize("value", [0, -3, 2.5, 1e300, 1e-9, 123456789.125, math.inf, -math.inf])
def test_numbers_survive_the_text(value: float) -> None:
    metrics = Metrics()
    metrics.gauge("g", "g").set(value)
    assert samples(metrics) == {("g", ()): value}


def test_not_a_number_survives_the_text() -> None:
    metrics = Metrics()
    metrics.gauge("g", "g").set(math.nan)
    assert math.isnan(samples(metrics)["g", ()])


def test_histogram_buckets_are_cumulative_and_hold_their_bound() -> None:
    metrics = Metrics()
    waits = metrics.histogram("wait_seconds", "Waits.", buckets=(0.1, 1, 5), labels=("pool",))
    for wait in (0.05, 0.1, 0.5, 1.0, 4.0, 60.0):
        waits.labels("main").observe(wait)
    main = ("pool", "main")
    assert samples(metrics) == {
        ("wait_seconds_bucket", (("le", "0.1"), main)): 2,
        ("wait_seconds_bucket", (("le", "1"), main)): 4,
        ("wait_seconds_bucket", (("le", "5"), main)): 5,
        ("wait_seconds_bucket", (("le", "+Inf"), main)): 6,
        ("wait_seconds_sum", (main,)): pytest.approx(65.65),
        ("wait_seconds_count", (main,)): 6,
    }
    assert families(metrics.render())["wait_seconds"].type == "histogram"


def test_histograms_know_their_count_and_quantiles() -> None:
    waits = Metrics().histogram("w", "w", buckets=(1, 2, 3))
    series = waits.labels()
    assert (series.count, series.quantile(0.99)) == (0, 0.0)
    for wait in [0.5] * 98 + [2.5, 9.0]:
        waits.observe(wait)
    assert series.count == 100
    assert series.quantile(0.5) == 1
    assert series.quantile(0.99) == 3
    assert series.quantile(1.0) == math.inf


def test_figures_kept_elsewhere_are_read_at_rendering() -> None:
    metrics = Metrics()
    queue = [1, 2, 3]
    metrics.gauge("queued", "q", labels=("of",)).from_callback(("main",), lambda: len(queue))
    metrics.counter("handled_total", "h", labels=("actor",)).from_source(lambda: [(("a",), 5), (("b",), len(queue))])
    assert samples(metrics)["queued", (("of", "main"),)] == 3
    queue.append(4)
    assert samples(metrics) == {
        ("queued", (("of", "main"),)): 4,
        ("handled_total", (("actor", "a"),)): 5,
        ("handled_total", (("actor", "b"),)): 4,
    }


# S-911
def test_a_broken_figure_is_left_out_and_counted_and_hides_no_other() -> None:
    metrics = Metrics()
    broken = metrics.gauge("test_broken_figure", "b")
    metrics.gauge("sound", "s").set(1)

    def fail() -> float:
        raise RuntimeError("gone")

    def misfit() -> Iterable[tuple[tuple[str, ...], float]]:
        return [(("one label too many",), 1.0)]

    broken.from_callback((), fail)
    assert samples(metrics) == {("sound", ()): 1}
    broken.from_callback((), lambda: 2)
    broken.from_source(misfit)
    assert samples(metrics) == {("sound", ()): 1, ("test_broken_figure", ()): 2}
    counted = samples(METRICS)["atlas_metrics_callback_errors_total", (("metric", "test_broken_figure"),)]
    assert counted == 2


# S-912
def test_label_values_that_run_wild_share_one_series() -> None:
    metrics = Metrics()
    wild = metrics.counter("wild_total", "w", labels=("customer",))
    for customer in range(MAX_SERIES + 50):
        wild.labels(str(customer)).inc()
    seen = samples(metrics)
    assert len(seen) == MAX_SERIES + 1
    assert seen["wild_total", (("customer", "other"),)] == 50


def test_a_series_can_be_forgotten() -> None:
    metrics = Metrics()
    up = metrics.gauge("up", "u", labels=("node",))
    up.labels("a").set(1)
    up.labels("b").set(1)
    up.remove("a")
    up.remove("a")
    assert samples(metrics) == {("up", (("node", "b"),)): 1}


@pytest.mark.parametrize(
    ("declare", "complaint"),
    [
        (lambda m: m.counter("requests", "r"), "must be named requests_total"),
        (lambda m: m.gauge("1st", "r"), "not a metric name"),
        (lambda m: m.gauge("g", "r", labels=("a-b",)), "not a label name"),
        (lambda m: m.gauge("g", "r", labels=("__a",)), "not a label name"),
        (lambda m: m.histogram("h", "r", labels=("le",)), "not a label name"),
        (lambda m: m.gauge("g", "r", labels=("a", "a")), "declares a label twice"),
        (lambda m: m.histogram("h", "r", buckets=(1, 1)), "strictly increasing"),
        (lambda m: m.histogram("h", "r", buckets=()), "strictly increasing"),
        (lambda m: m.histogram("h", "r", buckets=(1, math.inf)), "strictly increasing"),
        (lambda m: [m.gauge("g", "r"), m.gauge("g", "r")], "declared twice"),
        (lambda m: m.gauge("g", "r", labels=("a",)).labels(), "0 values were given"),
        (lambda m: m.gauge("g", "r", labels=("a",)).set(1), "needs its labels"),
        (lambda m: m.gauge("g", "r").from_callback(("x",), float), "1 values were given"),
        (lambda m: m.counter("c_total", "r").inc(-1), "only grows"),
    ],
)
def test_a_wrong_declaration_or_use_says_what_is_wrong(declare: object, complaint: str) -> None:
    assert callable(declare)
    with pytest.raises(ValueError, match=complaint):
        declare(Metrics())


# S-911
def test_writing_takes_no_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock in the metrics code froze the predecessor: creating one while instruments are used is a failure here."""

    def refuse() -> None:
        raise AssertionError("a lock was created by the metrics code")

    metrics = Metrics()
    monkeypatch.setattr(threading, "Lock", refuse)
    monkeypatch.setattr(threading, "RLock", refuse)
    counter = metrics.counter("c_total", "c", labels=("a",))
    histogram = metrics.histogram("h", "h")
    counter.labels("x").inc()
    histogram.observe(1)
    assert "c_total" in metrics.render()
    reachable = [vars(metrics), vars(counter), vars(histogram), *counter.__dict__.values()]
    assert not [thing for thing in reachable if "lock" in type(thing).__name__.lower()]


def test_a_second_rendering_amid_the_first_cannot_freeze() -> None:
    """The predecessor's freeze: a figure read while rendering touched the metrics again, on the same thread."""
    metrics = Metrics()
    renders = metrics.counter("renders_total", "r")

    def reenter() -> float:
        renders.inc()
        if renders.value < 3:
            metrics.render()
        return renders.value

    metrics.gauge("reentrant", "r").from_callback((), reenter)
    assert samples(metrics)["reentrant", ()] == 3
