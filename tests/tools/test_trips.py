"""Moves are counted as `tools/moves.py` defines them, and the four trips are made and give the same figures again."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tools.moves import ROOMS, MoveCounter

ROOT = Path(__file__).parents[2]


@pytest.fixture
def counter(tmp_path: Path) -> MoveCounter:
    return MoveCounter(tmp_path)


def defined(root: Path, path: str, source: str, **names: object) -> dict[str, Any]:
    """What a file of the fake tree defines; `names` are what it would import."""
    module: dict[str, Any] = dict(names)
    exec(compile(source, root / path, "exec"), module)  # noqa: S102  the test's own text
    return module


def traced(counter: MoveCounter, call: Callable[[], object]) -> Mapping[tuple[str, str], int]:
    counter.begin()
    with contextlib.suppress(LookupError):
        call()
    counter.end()
    return counter.trace.moves


def test_a_call_and_its_return_are_two_moves_and_calls_inside_a_file_none(tmp_path: Path, counter: MoveCounter) -> None:
    b = defined(tmp_path, "db/b.py", "def inner(): pass\ndef low(): return [inner() for _ in 'ab']")
    a = defined(tmp_path, "runtime/a.py", "def high(): low(); low()", **b)
    assert traced(counter, a["high"]) == {("runtime/a.py", "db/b.py"): 2, ("db/b.py", "runtime/a.py"): 2}
    assert counter.trace.files == ["runtime/a.py", "db/b.py"]
    assert list(counter.trace.functions) == [("runtime/a.py", "high"), ("db/b.py", "low"), ("db/b.py", "inner")]
    assert counter.trace.pairs() == [("db/b.py", "runtime/a.py", 4)]
    assert counter.trace.awaits == 0


def test_other_files_are_looked_through_and_an_exception_is_a_return(tmp_path: Path, counter: MoveCounter) -> None:
    b = defined(tmp_path, "vpn/b.py", "def low(): raise LookupError")
    library = defined(tmp_path, "lib/python/library.py", "def between(): low()", **b)
    a = defined(tmp_path, "actors/a.py", "def high(): between()", **library)
    assert traced(counter, a["high"]) == {("actors/a.py", "vpn/b.py"): 1, ("vpn/b.py", "actors/a.py"): 1}
    assert traced(counter, library["between"]) == {}
    assert counter.trace.files == ["vpn/b.py"]


async def test_each_wait_and_each_waking_passes_the_whole_chain_of_awaits(tmp_path: Path, counter: MoveCounter) -> None:
    checkpoint = trio.lowlevel.checkpoint
    c = defined(tmp_path, "db/c.py", "async def low():\n  await wait()\n  await wait()", wait=checkpoint)
    b = defined(tmp_path, "db/b.py", "async def middle(): await low()", **c)
    a = defined(tmp_path, "db/a.py", "async def high(): await middle()", **b)
    counter.begin()
    await a["high"]()
    counter.end()
    assert counter.trace.moves.total() == 2 * (2 + 2 * 2)  # two borders; there and back once, and for each of two waits
    assert counter.trace.awaits == 2 * 2 * 2
    assert counter.trace.files == ["db/a.py", "db/b.py", "db/c.py"]


async def test_a_task_that_works_periodically_or_asks_to_be_left_out_is_not_counted(
    tmp_path: Path, counter: MoveCounter, autojump_clock: trio.testing.MockClock
) -> None:
    b = defined(tmp_path, "db/b.py", "def low(): pass")
    a = defined(tmp_path, "db/a.py", "def high(): low()", **b)

    async def every_second() -> None:
        while True:
            a["high"]()
            await trio.sleep(1)

    async def bystander() -> None:
        counter.ignore_caller()
        a["high"]()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(every_second)
        await counter.ignore_clocks(2)
        counter.begin()
        nursery.start_soon(bystander)
        await trio.sleep(3)
        assert counter.trace.files == []
        a["high"]()
        counter.end()
        assert counter.trace.moves.total() == 2
        nursery.cancel_scope.cancel()


def trips(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """What the tool found, in a process of its own."""
    file = tmp_path / "trips.json"
    command = [sys.executable, str(ROOT / "tools" / "trips.py"), *arguments, "--paths", "--json", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    for trip in found.values():
        row = [str(trip[name]) for name in ("files", "functions", "moves", "awaits")]
        assert any([cell.strip() for cell in line.split("│")][2:6] == row for line in done.stdout.splitlines())
        for place, step in enumerate(trip["path"], start=1):
            assert f"{place}. {step['file']}: {step['functions'][0]}" in done.stdout
    return found


def assert_plausible(trip: dict[str, Any]) -> None:
    files = [step["file"] for step in trip["path"]]
    assert all(file.split("/")[0] in ROOMS and (ROOT / file).is_file() for file in files)
    assert len(set(files)) == len(files) == trip["files"]
    assert trip["functions"] == sum(len(step["functions"]) for step in trip["path"]) >= trip["files"]
    assert trip["moves"] == sum(moves for _, _, moves in trip["pairs"]) >= trip["files"] - 1
    assert 0 <= trip["awaits"] < trip["moves"]
    assert trip["moves"] in trip["moves_of_each_run"]


def test_tell_and_crash_are_made_and_give_the_same_figures_again(tmp_path: Path) -> None:
    first = trips(tmp_path, "tell", "crash", "--rounds", "5")
    again = trips(tmp_path, "crash", "tell", "--rounds", "5")
    assert list(first) == ["tell", "crash"]
    assert first == again
    for trip in first.values():
        assert_plausible(trip)
        assert len(set(trip["moves_of_each_run"])) == 1
    assert first["tell"]["moves"] < first["crash"]["moves"]
    assert {step["file"].split("/")[0] for trip in first.values() for step in trip["path"]} == {"runtime"}


def test_lease_and_purchase_are_made_on_a_real_database_and_a_real_node(tmp_path: Path) -> None:
    found = trips(tmp_path, "lease", "purchase", "--rounds", "5")
    for trip in found.values():
        assert_plausible(trip)
        assert trip["moves"] < 1.2 * min(trip["moves_of_each_run"])
    rooms = {name: {step["file"].split("/")[0] for step in trip["path"]} for name, trip in found.items()}
    assert rooms["lease"] >= {"actors", "db"}
    assert rooms["purchase"] == set(ROOMS)


def test_an_unknown_trip_is_refused_with_the_known_ones() -> None:
    command = [sys.executable, str(ROOT / "tools" / "trips.py"), "tel"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no such trip: tel; there are tell, lease, crash, purchase" in done.stderr
