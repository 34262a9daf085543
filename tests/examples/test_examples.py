"""Each example as a newcomer runs it: `atlas run`, a look, a kill, a stop."""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.runtime.atlas_process import ROOT, AtlasProcess, atlas, short_directory

SOCKET = {"ATLAS__CONTROL__SOCKET": "atlas.sock"}

Launch = Callable[[str], AtlasProcess]


@pytest.fixture
def place() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


@pytest.fixture
def launch(place: Path) -> Iterator[Launch]:
    with contextlib.ExitStack() as stack:

        def start(example: str) -> AtlasProcess:
            shutil.copy(ROOT / "examples" / example / "supervisor.toml", place)
            checked = atlas(place, "check", **SOCKET)
            assert checked.returncode == 0, checked.stderr
            process = AtlasProcess(place, env=SOCKET)
            stack.callback(process.close)
            process.until("next:")
            return process

        yield start


def killed_it_comes_back(process: AtlasProcess, place: Path, name: str) -> None:
    assert f"{name} up, ready" in atlas(place, "status", **SOCKET).stdout
    assert atlas(place, "kill", name, **SOCKET).stdout == f"killed {name}\n"
    process.until(f"{name} started (incarnation 2")


def stops_in_order(process: AtlasProcess) -> None:
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    assert "Traceback" not in process.output


def test_the_bell_rings_is_killed_and_rings_again_from_the_beginning(launch: Launch, place: Path) -> None:
    process = launch("bell")
    process.saw("dong rung=2")
    killed_it_comes_back(process, place, "bell")
    process.until("dong rung=1")
    stops_in_order(process)


def test_the_sweeper_sweeps_is_killed_and_sweeps_again(launch: Launch, place: Path) -> None:
    spool = place / "spool"
    spool.mkdir()
    (spool / "old.tmp").touch()
    (spool / "kept.txt").touch()
    process = launch("sweeper")
    process.saw("iteration done=1")  # it may have been quicker than the start screen
    assert [file.name for file in spool.iterdir()] == ["kept.txt"]
    (spool / "new.tmp").touch()
    killed_it_comes_back(process, place, "sweeper")
    process.until("iteration done=1")
    assert [file.name for file in spool.iterdir()] == ["kept.txt"]
    stops_in_order(process)
