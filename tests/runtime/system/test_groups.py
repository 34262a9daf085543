"""Groups of supervisor.toml on a real `atlas run`: strategies, the operator's verbs, and what is shown."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.control.protocol import ControlError
from tests.runtime.atlas_process import AtlasProcess, atlas, short_directory, write_config

Launch = Callable[..., AtlasProcess]

TREE = """
[group.line]
strategy = "rest_for_one"
intensity = 2
period = 30
[group.inner]
parent = "line"
[actor.store]
actor = "{actors}:Echo"
[actor.first]
actor = "{actors}:Echo"
group = "line"
needs = ["store"]
[actor.deep]
actor = "{actors}:Echo"
group = "inner"
[actor.last]
actor = "{actors}:Echo"
group = "line"
[actor.shop]
actor = "{actors}:Echo"
needs = ["deep"]
"""


SABOTEUR = """
[actor.saboteur]
actor = "{actors}:Sender"
args = {{ to = "first", count = 1, message = "explode" }}
needs = ["first"]
"""
"""Crashes `first` each time that it starts; an operator's kill would be no restart attempt."""


@pytest.fixture
def place() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


@pytest.fixture
def launch(place: Path) -> Iterator[Launch]:
    with contextlib.ExitStack() as stack:

        def start(text: str) -> AtlasProcess:
            write_config(place, text)
            process = AtlasProcess(place)
            stack.callback(process.close)
            process.until("next:")
            return process

        yield start


def shown(process: AtlasProcess) -> dict[str, tuple[str, int]]:
    """State and incarnation of every child and group."""
    found: Any = process.call("status")
    return {child["name"]: (child["state"], child["incarnation"]) for child in found["children"]}


# S-1110 S-503
def test_a_crash_takes_along_those_of_its_group_that_started_after_it_and_no_other(launch: Launch) -> None:
    process = launch(TREE)
    process.call("kill", name="first")
    process.until("last started (incarnation 2")
    up = "running"
    assert shown(process) == {
        "store": (up, 1),
        "line": (up, 1),
        "first": (up, 2),
        "inner": (up, 2),
        "deep": (up, 2),
        "last": (up, 2),
        "shop": (up, 1),
    }
    process.call("kill", name="last")
    process.until("last started (incarnation 3")
    assert shown(process)["first"] == (up, 2)
    process.call("kill", name="deep")
    process.until("deep started (incarnation 3")
    assert shown(process)["last"] == (up, 3), "the inner group restarts its own"


# S-1110 S-517
def test_a_group_that_gives_up_is_restarted_as_one_child_and_the_others_serve_on(launch: Launch) -> None:
    process = launch(TREE + SABOTEUR)
    process.saw("first started (incarnation 2")
    process.call("restart", name="saboteur")
    process.until("first started (incarnation 3")
    process.call("restart", name="saboteur")
    process.until("line gave up because of first")
    process.saw("line started (incarnation 2")
    states = shown(process)
    assert states["line"] == ("running", 2)
    assert states["first"] == ("running", 4)
    assert states["store"] == states["shop"] == ("running", 1)
    process.signal(signal.SIGTERM)
    assert process.wait() == 0


# S-1110 S-501
def test_groups_start_and_stop_in_order_with_everybody_else(launch: Launch) -> None:
    process = launch(TREE)
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    stops = [line.split()[3] for line in process.lines if " stops: shutdown" in line]
    assert stops == ["shop", "last", "deep", "first", "store"]


# S-1112
def test_an_operators_verbs_take_a_group_for_all_that_is_in_it(launch: Launch, place: Path) -> None:
    process = launch(TREE)
    assert process.call("restart", name="line") == {"name": "line", "incarnation": 2}
    process.call("pause", name="inner")
    assert shown(process)["deep"] == ("paused", 2)
    process.call("restart", name="line")
    assert shown(process)["deep"] == ("paused", 3)
    process.call("resume", name="line")
    assert shown(process)["deep"] == ("running", 3)
    process.call("drain", name="line")
    assert shown(process)["line"] == ("down", 3)
    assert "first" not in shown(process)
    refused = atlas(place, "restart", "first")
    assert (refused.returncode, refused.stderr) == (64, "error: line: not_running: supervisor line is not running\n")
    assert process.call("restart", name="line") == {"name": "line", "incarnation": 4}
    process.call("kill", name="line")
    process.until("line started (incarnation 5")
    assert shown(process)["deep"] == ("running", 5)
    inspected: Any = process.call("inspect", name="line")
    assert (inspected["strategy"], inspected["children"]) == ("rest_for_one", ["first", "inner", "last"])
    unknown = atlas(place, "kill", "lin")
    assert "no actor is named 'lin'; did you mean 'line'?" in unknown.stderr
    refused = atlas(place, "kill", "line", "--at", "x")
    assert "line is a group of actors; name one of them: first, deep, last" in refused.stderr


# S-1112
def test_check_and_status_show_every_actor_below_its_group(launch: Launch, place: Path) -> None:
    launch(TREE)
    check = atlas(place, "check").stdout.splitlines()
    rows = [line.split()[:2] for line in check if "rest_for_one" in line or ":Echo" in line or "group," in line]
    assert rows == [
        ["1", "store"],
        ["line", "group,"],
        ["2", "first"],
        ["inner", "group,"],
        ["3", "deep"],
        ["4", "last"],
        ["5", "shop"],
    ]
    assert any("    deep  " in line for line in check), "indented by two groups"
    status = atlas(place, "status").stdout
    names = [line[: len("    deep")].rstrip() for line in status.splitlines()[4:11]]
    assert names == ["store", "line", "  first", "  inner", "    deep", "  last", "shop"]
    told = json.loads(atlas(place, "status", "--json").stdout)
    assert [child["group"] for child in told["children"]] == [None, None, "line", "line", "inner", "line", None]


# S-1112 S-606
def test_an_unstopped_actor_deep_in_a_group_is_named_and_leaves_with_75(launch: Launch) -> None:
    text = TREE.replace(
        '[actor.last]\nactor = "{actors}:Echo"',
        '[actor.last]\nactor = "{actors}:Stubborn"\nshutdown = 0.2\nkill_grace = 0.2',
    )
    process = launch(text)
    with pytest.raises(ControlError, match="could not stop last"):
        process.call("stop", name="last")
    found: Any = process.call("status")
    assert found["unstopped"] == ["last"]
    process.signal(signal.SIGTERM)
    assert process.wait() == 75
