"""`make bench` runs and says what it found in a form that lasts. No test here judges a duration."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks import registry, table
from benchmarks.result import Result, Sense, Target, faster, figure, share
from benchmarks.rounds import medians, percentile

ROOT = Path(__file__).parents[2]
FIELDS = {
    *("name", "value", "unit", "yardstick", "yardstick_value", "ratio", "ratio_means", "target", "limit", "met"),
}
TARGETS = {
    ("tell + handle", "an awaited trio channel hop"): "≥ 10 × (15 wanted)",
    ("tell + handle", "the same, buffer of 64"): "≥ 10 × (15 wanted)",
    (
        "tell + handle, mailbox of 64 (the default), an ask after each 64",
        "an awaited trio channel hop",
    ): "≥ 10 × (15 wanted)",
    ("tell + handle", "pykka's tell"): "≥ 5 ×",
    ("ask round trip with deadline", "a raw trio ping-pong"): "≤ 3 ×",
    ("ask round trip with deadline", "pykka's ask"): "≥ 4 ×",
    ("crash → restarted and serving, no backoff: p99", ""): "≤ 1 ms",
    ("memory per idle actor: RSS over 200", ""): "≤ 12000 bytes (8000 wanted)",
    ("memory per idle actor with its supervisor's share: RSS over 50", ""): "≤ 12000 bytes (8000 wanted)",
    ("loop lateness beside 20 busy actors with empty handlers: p99", ""): "≤ 5 ms",
    ("loop lateness beside 20 busy actors with handlers of 100 us: p99", ""): "≤ 5 ms",
}
COMPARED = {
    ("tell + handle", "an asyncio.Queue hop"),
    ("ask round trip with deadline", "an asyncio future ping-pong"),
    ("spawn, supervised, until it serves", "trio's nursery.start"),
    ("spawn, supervised, until it serves", "an asyncio task that has started"),
    ("spawn, supervised, until it serves", "pykka's start"),
    ("crash → restarted and serving, no backoff: p99", "a trio task caught and begun again: p99"),
    ("crash → restarted and serving, no backoff: p99", "the same in asyncio: p99"),
    ("memory per idle actor: RSS over 200", "a trio task with a memory channel"),
    ("memory per idle actor: RSS over 200", "an asyncio task with a queue"),
    ("memory per idle actor: RSS over 200", "a pykka actor: RSS over 50"),
    ("loop lateness beside 20 trio tasks that never rest: p99", ""),
    ("loop lateness beside 20 asyncio tasks that never rest: p99", ""),
}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, encoding="utf-8", check=False)


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, Any]]]:
    """What one quick run of the messaging group printed and wrote."""
    file = tmp_path_factory.mktemp("bench") / "found.json"
    done = run("messaging", "--quick", "--json", str(file))
    assert done.returncode == 0, done.stderr
    yield done.stdout, json.loads(file.read_text(encoding="utf-8"))


def test_every_line_has_all_fields_and_a_value_that_was_measured(quick: tuple[str, dict[str, Any]]) -> None:
    _, report = quick
    assert report["quick"] is True
    assert report["failed"] == {}
    assert report["cpus"] >= 1
    assert report["load"] >= 0.0
    assert set(report["versions"]) == {"trio", "asyncpg", "pykka"}
    assert list(report["groups"]) == ["messaging"]
    for line in report["groups"]["messaging"]:
        assert set(line) == FIELDS
        assert line["value"] > 0 or "lateness" in line["name"], line
        assert bool(line["yardstick"]) == (line["ratio"] is not None) == (line["yardstick_value"] is not None), line
        assert bool(line["target"]) == (line["limit"] is not None) == (line["met"] is not None), line


def test_every_target_of_messaging_is_judged_in_the_run(quick: tuple[str, dict[str, Any]]) -> None:
    lines = {(line["name"], line["yardstick"]): line for line in quick[1]["groups"]["messaging"]}
    assert {key: line["target"] for key, line in lines.items() if line["target"]} == TARGETS
    assert set(lines) >= COMPARED


def test_the_table_says_of_every_judged_line_whether_it_is_met(quick: tuple[str, dict[str, Any]]) -> None:
    printed, report = quick
    lines = report["groups"]["messaging"]
    missed = [line for line in lines if line["met"] is False]
    rows = [row for row in printed.splitlines() if "│" in row]
    assert sum("MISSED" in row for row in rows) == len(missed)
    assert sum(row.rstrip().endswith(" met") for row in rows) == len(TARGETS) - len(missed)


def test_an_unknown_group_is_refused_with_the_known_ones() -> None:
    done = run("massaging")
    assert done.returncode == 2
    assert "no such group: massaging; there are " in done.stderr
    assert "messaging" in done.stderr


def test_a_benchmark_without_measure_is_mentioned_and_not_run() -> None:
    groups = registry.find()
    assert "messaging" in groups.measured
    assert "main_job" in (*groups.measured, *groups.alone)
    assert not set(groups.measured) & set(groups.alone)
    assert "rounds" not in (*groups.measured, *groups.alone)


@pytest.mark.parametrize(
    ("result", "ratio", "met", "target"),
    [
        (faster("a", 2.0, "us", "b", 20.0, at_least=10), 10.0, True, "≥ 10 ×"),
        (faster("a", 2.0, "us", "b", 19.9, at_least=10, wanted=15), 9.95, False, "≥ 10 × (15 wanted)"),
        (share("a", 6.0, "us", "b", 2.0, at_most=3), 3.0, True, "≤ 3 ×"),
        (share("a", 6.2, "us", "b", 2.0, at_most=3), 3.1, False, "≤ 3 ×"),
        (share("a", 1300.0, "1/s", "b", 1000.0, at_least=1.2), 1.3, True, "≥ 1.2 ×"),
        (share("a", 1100.0, "1/s", "b", 1000.0, at_least=1.2), 1.1, False, "≥ 1.2 ×"),
        (figure("a", 1.01, "ms", at_most=1), None, False, "≤ 1 ms"),
        (figure("a", 0.99, "ms", at_most=1), None, True, "≤ 1 ms"),
        (figure("a", 0.99, "ms"), None, None, ""),
        (Result("a", 1.0, "s", target=Target(Sense.AT_LEAST, 2.0)), None, False, "≥ 2 s"),
    ],
)
def test_a_target_judges_the_ratio_or_else_the_value(
    result: Result, ratio: float | None, met: bool | None, target: str
) -> None:
    assert result.ratio == (None if ratio is None else pytest.approx(ratio))
    assert result.met is met
    assert result.target_text() == target


def test_a_missed_target_is_told_in_a_sentence() -> None:
    page = io.StringIO()
    lines = [faster("tell", 2.0, "us", "a hop", 4.0, at_least=10), figure("memory", 9.0, "bytes", at_most=12)]
    table.show({"messaging": lines}, Console(file=page, width=table.WIDTH))
    assert "1 of 2 targets MISSED:" in page.getvalue()
    assert "messaging: tell: 2.00 us is 2.00 × faster than a hop; target ≥ 10 ×" in page.getvalue()


def test_every_round_takes_everything_once_and_the_first_is_not_counted() -> None:
    order: list[str] = []
    values = iter([1000.0, 3.0, 1.0, 2.0])

    def first() -> float:
        order.append("first")
        return next(values)

    def second() -> float:
        order.append("second")
        return 7.0

    assert medians({"first": first, "second": second}, rounds=3) == {"first": 2.0, "second": 7.0}
    assert [sorted(order[n : n + 2]) for n in range(0, 8, 2)] == [["first", "second"]] * 4


def test_a_single_round_counts_since_it_proves_only_that_everything_runs() -> None:
    values = iter([5.0])
    assert medians({"only": lambda: next(values)}, rounds=1) == {"only": 5.0}


@pytest.mark.parametrize(
    ("share_of_all", "value"), [(0.0, 1.0), (0.5, 50.0), (0.99, 99.0), (0.991, 100.0), (1.0, 100.0)]
)
def test_a_percentile_is_a_value_that_occurred(share_of_all: float, value: float) -> None:
    assert percentile([float(n) for n in range(100, 0, -1)], share_of_all) == value


@pytest.mark.parametrize("group", ["leases", "overload", "activation"])
def test_the_groups_on_a_database_run_and_measure(group: str, tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    done = run(group, "--quick", "--json", str(file))
    assert done.returncode == 0, done.stderr
    lines = json.loads(file.read_text(encoding="utf-8"))["groups"][group]
    assert lines and all(line["value"] > 0 for line in lines)
    assert {line["yardstick"] for line in lines if line["target"] and line["ratio"]}


def test_the_aligned_workers_are_judged_by_waits_refusals_and_all_three_beats(tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    done = run("alignment", "--quick", "--json", str(file))
    assert done.returncode == 0, done.stderr
    lines = {line["name"]: line for line in json.loads(file.read_text(encoding="utf-8"))["groups"]["alignment"]}
    assert lines["… leases"]["value"] > 0
    assert {name for name, line in lines.items() if line["target"]} == {
        "10 workers due at once, 1,000 subscriptions, 15 connections: leases that waited at most 50 ms",
        "… requests that got no connection",
        *(f"… oldest {beat} beat" for beat in ("event_loop", "worker", "healthcheck")),
        "… restarts by the watchdog",
    }
