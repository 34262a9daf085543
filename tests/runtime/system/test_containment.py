"""Whatever an actor raises, wherever, is that actor's crash: all others serve, and a TERM ends the process with 0."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.atlas_process import AtlasProcess, short_directory, write_config
from tests.runtime.hostile_actors import FAULTS, SECRET

HOSTILE = "tests.runtime.hostile_actors"
ASYNC_FAULTS = (*FAULTS, "stray cancelled", "cancelled group")
PARKS = """
give_up = "park"
backoff = {{ initial = 0 }}
"""


@pytest.fixture
def place() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


def run_beside_an_echo(place: Path, *tables: str) -> AtlasProcess:
    """A real `atlas run` of these actors, with another that is good; each may crash once before it is parked."""
    echo = '[actor.echo]\nactor = "{actors}:Echo"\n'
    write_config(place, echo + "".join(tables), more="[supervisor]\nintensity = 1")
    return AtlasProcess(place)


def hostile(name: str, how: str, where: str) -> str:
    return f'[actor.{name}]\nactor = "{HOSTILE}:Hostile"\nargs = {{{{ how = "{how}", where = "{where}" }}}}{PARKS}'


def children(process: AtlasProcess) -> dict[str, Any]:
    status: Any = process.call("status")
    assert status["state"] == "up"
    return {child["name"]: child for child in status["children"]}


def until_parked(process: AtlasProcess, names: Sequence[str]) -> dict[str, Any]:
    for name in names:
        process.saw(f"{name} is parked")
    found = children(process)
    assert {name: found[name]["state"] for name in names} == dict.fromkeys(names, "parked")
    return found


def still_serves_and_stops(process: AtlasProcess) -> None:
    """The good actor was never touched, and the process stops as it should, having said nothing secret."""
    echo: Any = process.call("inspect", name="echo")
    assert (echo["state"], echo["incarnation"]) == ("up", 1)
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    assert "echo stops: shutdown" in process.output
    assert SECRET not in process.output
    assert "defect" not in process.output


# S-406 S-519 S-903
@pytest.mark.parametrize("where", ["handler", "task", "nursery", "after_start", "on_start again"])
def test_whatever_an_actor_raises_crashes_that_actor_alone(place: Path, where: str) -> None:
    # A nursery that a cancellation comes out of cancels itself, and then takes it for its own: trio's rule, and no crash.
    faults = [how for how in ASYNC_FAULTS if (where, how) != ("nursery", "stray cancelled")]
    hows = {f"bad{number}": how for number, how in enumerate(faults)}
    process = run_beside_an_echo(place, *(hostile(name, how, where) for name, how in hows.items()))
    try:
        found = until_parked(process, list(hows))
        assert SECRET not in str(found)
        if where == "task":
            assert {found[name]["last_exit"]["task"] for name in hows} == {"poll"}
        still_serves_and_stops(process)
    finally:
        process.close()


# S-406 S-526
@pytest.mark.parametrize("where", ["on_stop", "on_undelivered"])
def test_what_a_last_word_raises_ends_neither_the_others_nor_the_process(place: Path, where: str) -> None:
    hows = {f"bad{number}": how for number, how in enumerate(FAULTS)}
    process = run_beside_an_echo(place, *(hostile(name, how, where) for name, how in hows.items()))
    try:
        process.saw("is up")
        if where == "on_undelivered":
            until_parked(process, list(hows))
        else:
            for name in hows:
                process.call("stop", name=name)
            assert {children(process)[name]["state"] for name in hows} == {"down"}
        still_serves_and_stops(process)
    finally:
        process.close()


# S-414
def test_an_inspect_that_raises_or_shows_itself_is_shown_and_hurts_nobody(place: Path) -> None:
    hows = {f"bad{number}": how for number, how in enumerate(FAULTS)}
    mirrors = [
        f'[actor.{what}]\nactor = "{HOSTILE}:Mirror"\nargs = {{{{ what = "{what}" }}}}{PARKS}'
        for what in ("self", "itself")
    ]
    process = run_beside_an_echo(place, *(hostile(name, how, "inspect") for name, how in hows.items()), *mirrors)
    try:
        until_parked(process, ["self", "itself"])
        for name in hows:
            seen: Any = process.call("inspect", name=name)
            assert seen["state"] == "up"
            assert seen["actor"]["error"].startswith("inspect raised ")
            assert SECRET not in str(seen)
        mirror: Any = process.call("inspect", name="self")
        assert mirror["last_crash"]["state"] == {"error": "inspect returned Mirror, no mapping"}
        itself: Any = process.call("inspect", name="itself")
        assert itself["last_crash"]["error"] == "RuntimeError: goes down"
        assert itself["last_crash"]["state"]["3"] == "three"
        still_serves_and_stops(process)
    finally:
        process.close()
