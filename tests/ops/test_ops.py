"""The alert rules and the dashboard ask for what there is, and the rules alarm when they should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import actors.desk.admin
import actors.gateway.gateway
import actors.health.housekeeping
import actors.nodes.canary  # noqa: F401  # what is declared when these are imported is what a scrape has
from runtime.config.loader import load
from runtime.metrics import METRICS, Histogram

ROOT = Path(__file__).parent.parent.parent
OPS = ROOT / "ops"
NAMED = re.compile(r"atlas_[a-z0-9_]+")
MATCHED = re.compile(r"(atlas_[a-z0-9_]+)\{([^}]*)\}")
PROMTOOL = shutil.which("promtool") or ""


@pytest.fixture(autouse=True, scope="module")
def all_actors() -> None:
    """Every class that the shipped tree names declares its metrics."""
    load(ROOT / "supervisor.toml", {})


def rules() -> list[dict[str, Any]]:
    found = yaml.safe_load((OPS / "alerts.yml").read_text())
    return [rule for group in found["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((OPS / "dashboard.json").read_text())["panels"]
    return found


def queries() -> Iterator[tuple[str, str]]:
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def test_every_metric_that_is_asked_for_is_declared_with_these_labels() -> None:
    asked = list(queries())
    assert len(asked) > 30
    for where, query in asked:
        names = set(NAMED.findall(query))
        assert names, where
        for name in names:
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            instrument = METRICS.get(base if base in known() else name)
            if base != name and base in known():
                assert isinstance(instrument, Histogram), (where, name)
        for name, matchers in MATCHED.findall(query):
            labels = {part.partition("=")[0].strip("!~ ") for part in matchers.split(",") if part}
            assert labels <= {*METRICS.get(re.sub("_bucket$", "", name)).label_names, "le"}, (where, name)


def known() -> set[str]:
    return set(re.findall(r"^# TYPE (\S+)", METRICS.render(), re.MULTILINE))


def test_every_rule_says_how_urgent_it_is_and_has_its_paragraph() -> None:
    page = (ROOT / "docs" / "howto" / "alarms.md").read_text()
    for rule in rules():
        assert rule["labels"]["severity"] in ("page", "look"), rule["alert"]
        assert rule["annotations"]["summary"]
        assert f"| `{rule['alert']}` |" in page, rule["alert"]
    assert set(re.findall(r"^\| `(Atlas\w+)` \|", page, re.MULTILINE)) == {rule["alert"] for rule in rules()}


def test_no_two_panels_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert all(x < 24 for x, _ in cells)
        taken |= cells


@pytest.mark.system
@pytest.mark.skipif(not PROMTOOL, reason="promtool, of Debian's prometheus, is not installed")
@pytest.mark.parametrize(
    "words", [("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")], ids=" ".join
)
def test_promtool_agrees(words: tuple[str, ...]) -> None:
    done = subprocess.run([PROMTOOL, *words], cwd=OPS, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.system
@pytest.mark.skipif(not PROMTOOL, reason="promtool, of Debian's prometheus, is not installed")
def test_promtool_reads_every_query_of_the_dashboard_and_every_metric(tmp_path: Path) -> None:
    named = [
        {"record": f"panel:{number}", "expr": target["expr"].replace("$__rate_interval", "5m")}
        for number, target in enumerate(target for panel in panels() for target in panel["targets"])
    ]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": named}]}))
    read = subprocess.run([PROMTOOL, "check", "rules", file], capture_output=True, text=True, timeout=120, check=False)
    assert read.returncode == 0, read.stdout + read.stderr
    scraped = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=METRICS.render(), capture_output=True, text=True, timeout=120, check=False
    )
    assert "error while linting" not in scraped.stderr, scraped.stderr
