"""What a terminal is shown: no wider than it is, in colour only there, and nothing in a name is obeyed."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from runtime.cli.main import run_command_line
from runtime.cli.output import Styled, display_width, emit, styled, table
from runtime.cli.show import render
from runtime.cli.top import screen
from runtime.exit_codes import INTERRUPTED, USAGE
from runtime.operations.signs import WORDS, attention
from tests.runtime.atlas_process import PATIENCE, ROOT, AtlasProcess, atlas, environment, short_directory, write_config

HOSTILE = "\x1b[31mred\x1b]0;title\x07 \u202eabc\u2066 \x9b2J\x00 line\nforged"
ONE = """
[actor.echo]
actor = "{actors}:Echo"
[actor.other]
actor = "{actors}:Echo"
"""
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def child(name: str, **more: Any) -> dict[str, Any]:
    """A child's line of `status`."""
    return {
        "name": name, "kind": "actor", "group": None, "depth_in_tree": 0, "state": "running", "word": "idle",
        "paused": False, "since": 3.0, "incarnation": 1, "restarts": 0, "ready": True, "why_not_ready": "", "reason": "",
        "next_start": None, "handling": None, "handling_for": None, "waiting_on": [], "depth": 0, "capacity": 64,
        "oldest_age": 0.0, "facts": {}, "last_exit": None,
    } | more  # fmt: skip


def document(*children: dict[str, Any]) -> dict[str, Any]:
    needs = [
        {"name": one.name, "word": one.word, "why": one.why, "seconds": one.seconds} for one in attention(children)
    ]
    return {
        "name": "atlas", "pid": 7, "state": "up", "ready": True, "not_ready": [], "degraded": [], "uptime": 90.0,
        "config": "/etc/atlas/supervisor.toml", "socket": "/var/lib/atlas/control/atlas.sock", "dead_letters": 0,
        "attention": needs, "unstopped": [], "children": list(children),
        "beats": {"event_loop": 0.1, "worker": None, "stalest_worker": None, "why_stale": None, "left_out": {},
                  "healthcheck": 1.0},
    }  # fmt: skip


MANY = document(
    *(child(f"node.number-{number}", facts={"nodes": f"{number} keys, all in place"}) for number in range(40)),
    child("pool.main", facts={"connections": "10 of 10", "url": "postgresql://db.example/atlas", "waits": "none"}),
    child("activation", state="parked", word="parked", reason="crashed 6 times in 60 s: " + "why " * 40),
)


@pytest.mark.parametrize("width", [80, 200])
def test_status_keeps_to_the_width_and_loses_nothing(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    shown = re.sub("[\ue001-\ue00f]", "", render(MANY))
    assert max(map(display_width, shown.splitlines())) <= width
    for name in (one["name"] for one in MANY["children"]):
        assert name in shown
    words = shown.split()
    assert words.count("why") >= 80, "the reason stands whole, on top and in its row"
    assert shown.index("one thing needs you") < shown.index("node.number-0")


def test_into_a_pipe_each_row_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert len(table(("a", "b"), [("x", "y " * 500)] * 3, notes=True).splitlines()) == 4


@pytest.mark.parametrize("width", range(20, 60, 7))
def test_wide_characters_are_counted_as_the_terminal_counts(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    shown = table(("who", "what"), [("дом", "鍵" * 50), ("鍵鍵鍵", "plain words " * 9)])
    assert max(map(display_width, shown.splitlines())) <= width
    assert shown.count("鍵") == 53


@pytest.mark.parametrize("as_json", [False, True])
def test_no_name_reaches_the_terminal_raw(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(HOSTILE, Styled(HOSTILE, "wrong"))]
    emit({"name": HOSTILE}, as_json, lambda: f"{HOSTILE}\n{styled(HOSTILE, 'late')}\n{table(('a', 'b'), rows)}")
    printed = capsys.readouterr().out
    assert OBEYED.search(printed) is None
    if as_json:
        assert json.loads(printed) == {"name": HOSTILE}


def test_what_was_typed_is_repeated_in_an_error_without_being_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line([f"st{HOSTILE}"]) == USAGE
    assert OBEYED.search(capsys.readouterr().err) is None
    assert run_command_line(["events", "--limit", HOSTILE, "--json"]) == USAGE
    printed = capsys.readouterr().err
    assert OBEYED.search(printed) is None
    assert json.loads(printed)["error"]["exit_code"] == USAGE


def test_every_state_has_a_word_that_is_explained() -> None:
    states = ("running", "waiting", "starting", "stopping", "restarting", "down", "parked", "unstopped", "paused")
    assert {one.word for one in attention([child("a", state=state, ready=False) for state in states])} <= WORDS.keys()


def test_the_reference_explains_the_words_and_names_the_keys() -> None:
    page = (ROOT / "docs" / "reference" / "command-line.md").read_text()
    for word, meaning in WORDS.items():
        assert re.search(rf"^\| (\*\*)?{word}(\*\*)? \| {re.escape(meaning)} \|$", page, re.MULTILINE), word
    for key in document().keys() - {"facts"}:
        assert f"`{key}`" in page


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (200, 60), (40, 10)])
def test_top_fits_its_screen_the_worst_first(columns: int, rows: int) -> None:
    console = Console(width=columns, height=rows, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(screen(MANY, rows))
    lines = capture.get().splitlines()
    assert len(lines) <= rows
    assert max(map(display_width, lines)) <= columns
    first = next(number for number, line in enumerate(lines) if line.startswith("child"))
    assert lines[first + 1].startswith("activation")


# --- on a real terminal ----------------------------------------------------------------------------------------------


@pytest.fixture
def place() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


class Terminal:
    """A command of `atlas` on a pseudo-terminal of so many columns."""

    def __init__(self, place: Path, *words: str, columns: int = 80) -> None:
        self._end, other = pty.openpty()
        ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        env = environment(place, TERM="xterm-256color")
        env.pop("NO_COLOR", None)
        env.pop("COLUMNS", None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "runtime.cli.main", *words],
            cwd=place,
            env=env,
            stdin=other,
            stdout=other,
            stderr=other,
        )
        os.close(other)
        self.text = ""

    def until(self, text: str) -> None:
        ends = time.monotonic() + PATIENCE
        while text not in self.text:
            assert time.monotonic() < ends, self.text
            if not self._read():
                raise AssertionError(f"it ended without {text!r}: {self.text}")

    def _read(self) -> bool:
        select.select([self._end], [], [], 1.0)
        try:
            found = os.read(self._end, 65536)
        except OSError:
            return False
        self.text += found.decode(errors="replace")
        return bool(found)

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def close(self) -> int:
        while self._read():
            pass
        os.close(self._end)
        return self.process.wait(timeout=PATIENCE)


def test_a_running_system_on_a_terminal(place: Path) -> None:
    write_config(place, ONE)
    process = AtlasProcess(place)
    try:
        process.until("next:")
        well = atlas(place, "status")
        assert (well.returncode, well.stderr) == (0, "")
        assert "\x1b" not in well.stdout
        atlas(place, "stop", "echo")
        assert atlas(place, "status", "--json").returncode == 1
        found = json.loads(atlas(place, "status", "--json").stdout)
        assert [(one["name"], one["word"]) for one in found["attention"]] == [("echo", "down")]

        shown = Terminal(place, "status")
        assert shown.close() == 1
        assert "\x1b[1;31mdown\x1b[0m" in shown.text
        plain = re.sub(r"\x1b\[[0-9;]*m", "", shown.text).splitlines()
        assert max(map(display_width, plain)) <= 80

        started = json.loads(atlas(place, "start", "echo", "--json").stdout)
        assert started == {"name": "echo", "incarnation": 2, "changed": True}
        assert "runs already, incarnation 2" in atlas(place, "start", "echo").stdout
        assert "did you mean" in atlas(place, "start", "ecko").stderr
        said = atlas(place, "log", "echo").stdout
        assert "echo started" in said
        entries = [json.loads(line) for line in atlas(place, "log", "--json", "--limit", "5").stdout.splitlines()]
        assert 0 < len(entries) <= 5
        assert all(one["level"] in ("INFO", "WARNING") and "text" not in one for one in entries)
        assert atlas(place, "log", "ecko").returncode == 64
        assert "child" in atlas(place, "top").stdout

        watching = Terminal(place, "top", "--every", "0.1", columns=100)
        watching.until("other")
        watching.process.send_signal(signal.SIGINT)
        assert watching.close() in (0, INTERRUPTED)

        asked = Terminal(place, "stop")
        asked.until("Go on? [y/N]:")
        asked.type("n\n")
        assert asked.close() == INTERRUPTED
        assert isinstance(process.call("status"), dict), "it runs on"
        asked = Terminal(place, "stop", "--yes")
        assert asked.close() == 0
        assert process.wait() == 0
    finally:
        process.close()
    away = atlas(place, "status", "--json")
    assert away.returncode == 69
    assert json.loads(away.stderr)["error"]["kind"] == "ControlUnreachable"
    assert away.stdout == ""


def test_config_tells_value_origin_and_what_a_change_takes(place: Path) -> None:
    write_config(place, ONE, more='[log]\nlevel = "warning"\n')
    printed = atlas(place, "config", "--json", ATLAS__WATCHDOG__INTERVAL="2")
    found = {one["key"]: one for one in json.loads(printed.stdout)}
    assert found["log.level"] == {
        "key": "log.level", "value": "warning", "origin": "supervisor.toml:4", "changes_with": "at once"
    }  # fmt: skip
    assert found["watchdog.interval"]["origin"] == "ATLAS__WATCHDOG__INTERVAL"
    assert found["supervisor.period"]["origin"] == "default"
    assert found["actor.echo.shutdown"]["changes_with"] == "restart"
    assert "log.level" in atlas(place, "config", "log", "--changed").stdout
    assert "did you mean 'log.level'?" in atlas(place, "config", "log.lvel").stderr
