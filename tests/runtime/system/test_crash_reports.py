"""Each abnormal end leaves one report: in the log, in the event, in `status`, whole in `inspect` and `crashes`."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.control.protocol import ControlError
from tests.runtime.atlas_process import AtlasProcess, atlas, short_directory, write_config
from tests.runtime.hostile_actors import KEY, SECRET

HOSTILE = "tests.runtime.hostile_actors"
WHERE = re.compile(r".*/hostile_actors\.py:\d+ in Hostile\._raise")


@pytest.fixture
def place() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


def run(place: Path, how: str, where: str, *, more: str = "") -> AtlasProcess:
    text = f"""
        [actor.bad]
        actor = "{HOSTILE}:Hostile"
        args = {{{{ how = "{how}", where = "{where}" }}}}
        give_up = "park"
        backoff = {{{{ initial = 0 }}}}
    """
    write_config(place, text, more=f"[supervisor]\nintensity = 2\n{more}")
    return AtlasProcess(place)


def stop(process: AtlasProcess) -> None:
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    assert SECRET not in process.output
    assert KEY not in process.output


# S-416
def test_the_log_holds_the_line_the_state_and_the_whole_traceback(place: Path) -> None:
    process = run(place, "secret", "task")
    try:
        line = process.until("bad crashed")
        assert re.search(
            r"last message Misbehave, in its task poll, at .*/hostile_actors\.py:\d+ in Hostile\._raise\)", line
        )
        process.until("bad is parked")
        below = process.lines[process.lines.index(line) + 1 :]
        assert below[0] == "    in its task poll"
        assert below[1] == '    state: {"how": "secret", "password": "***"}'
        assert below[2] == "    Traceback (most recent call last):"
        assert any(row.strip() == "raise FAULTS[self.how]()" for row in below)
        assert "    RuntimeError: postgresql://atlas:***@db for 0f4cd2ab…" in below
        stop(process)
    finally:
        process.close()


# S-416 S-908
def test_a_log_for_machines_holds_the_same_in_members_of_its_line(place: Path) -> None:
    process = run(place, "secret", "task", more='[log]\nformat = "json"')
    try:
        entry = json.loads(process.until("bad crashed"))
        assert WHERE.fullmatch(entry["where"])
        assert (entry["event"], entry["incarnation"], entry["reason"]) == ("ChildExited", 1, "crashed")
        assert (entry["task"], entry["last_message"], entry["decision"]) == ("poll", "Misbehave", "restart")
        assert entry["state"] == {"how": "secret", "password": "***"}
        assert entry["traceback"].startswith("Traceback (most recent call last):\n")
        assert entry["traceback"].endswith("RuntimeError: postgresql://atlas:***@db for 0f4cd2ab…")
        process.until("bad is parked")
        stop(process)
        assert all(json.loads(line) for line in process.lines)
    finally:
        process.close()


# S-416 S-417
def test_status_inspect_and_crashes_tell_where_it_was_over_restarts(place: Path) -> None:
    process = run(place, "secret", "handler")
    try:
        process.until("bad is parked")
        status: Any = process.call("status")
        (bad,) = status["children"]
        assert WHERE.fullmatch(bad["last_exit"]["where"])
        assert "last crashed at" in atlas(place, "status").stdout
        kept: Any = process.call("crashes", name="bad")
        assert [report["incarnation"] for report in kept["crashes"]] == [1, 2, 3]
        assert [report["decision"] for report in kept["crashes"]] == ["restart", "restart", "park"]
        inspected: Any = process.call("inspect", name="bad")
        assert inspected["last_crash"] == kept["crashes"][-1]
        assert inspected["last_crash"]["traceback"][-1] == "RuntimeError: postgresql://atlas:***@db for 0f4cd2ab…"
        events: Any = atlas(place, "events", "--json").stdout.splitlines()
        crash = next(event for event in map(json.loads, events) if event["kind"] == "ChildExited")
        assert WHERE.fullmatch(crash["facts"]["where"])
        for arguments in (["crashes"], ["crashes", "bad"], ["crashes", "bad", "-n", "1"]):
            shown = atlas(place, *arguments).stdout
            assert "bad crashed (incarnation 3, last message Misbehave, lived" in shown
            assert "    Traceback (most recent call last):" in shown
            assert SECRET not in shown
        assert atlas(place, "crashes", "bad", "-n", "1").stdout.count("bad crashed") == 1
        unknown = atlas(place, "crashes", "bat")
        assert (unknown.returncode, "did you mean 'bad'" in unknown.stderr) == (64, True)
        assert atlas(place, "inspect", "bad").stdout.count("Traceback") == 1
        with pytest.raises(ControlError, match="bad was started as incarnation 4, and did not last: bad crashed"):
            process.call("restart", name="bad")
        process.until("bad is parked")
        kept = process.call("crashes", name="bad", limit=2)
        assert [report["incarnation"] for report in kept["crashes"]] == [5, 6]
        assert kept["total"] == 6
        stop(process)
    finally:
        process.close()


# S-416
def test_a_report_is_cut_at_the_size_that_is_set(place: Path) -> None:
    process = run(place, "many leaves", "handler", more="[log]\ncrash_report = 1000")
    try:
        process.until("bad is parked")
        kept: Any = process.call("crashes", name="bad")
        text = "\n".join(kept["crashes"][0]["traceback"])
        assert 1_000 < len(text) < 1_100
        assert "characters are not shown (setting [log] crash_report)" in text
        stop(process)
    finally:
        process.close()
