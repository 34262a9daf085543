"""The start screen says who runs, where they listen, who is not ready, and what to type next."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

from runtime.log.record import as_text
from runtime.log.writer import LogWriter
from runtime.system.start_screen import ScreenLine, how_to_call_atlas, render, show

LINES = [
    ScreenLine(
        "admin", "running", {"listening": "http://127.0.0.1:8600", "next": "curl -s localhost:8600/readyz"}, True, ""
    ),
    ScreenLine("pool.main", "running", {}, False, "no connection yet"),
    ScreenLine("agent", "down not needed", {}, False, "dead"),
]


def test_it_shows_facts_readiness_and_the_next_steps_of_the_configuration_first() -> None:
    rows = render("atlas", 1.25, LINES, "/run/a.sock", ("atlas customer add 42",)).splitlines()
    assert rows == [
        "",
        "atlas is up: 3 children in 1.25 s, 1 ready",
        "",
        "  admin      running  listening http://127.0.0.1:8600",
        "  pool.main  not ready: no connection yet",
        "  agent      down not needed",
        "",
        "  control socket  /run/a.sock",
        "",
        "next:",
        "  atlas customer add 42",
        "  curl -s localhost:8600/readyz",
        "",
    ]


def test_without_any_next_step_it_still_names_two() -> None:
    assert render("atlas", 0.1, [], "/s", ()).splitlines()[-3:-1] == ["  atlas status", "  atlas events --follow"]


def test_who_declined_says_why_and_does_not_count() -> None:
    lines = [*LINES, ScreenLine("updates", "not needed: token is not set", {}, False, "dead", is_needed=False)]
    rows = render("atlas", 1.25, lines, "/s", ()).splitlines()
    assert rows[1] == "atlas is up: 3 children in 1.25 s, 1 ready, 1 not needed"
    assert "  updates    not needed: token is not set" in rows


def test_what_makes_the_shell_find_atlas_comes_before_the_other_steps() -> None:
    rows = render("atlas", 0.1, [], "/s", ("atlas status",), ". .venv/bin/activate").splitlines()
    assert rows[-3:-1] == ["  . .venv/bin/activate", "  atlas status"]
    assert render("atlas", 0.1, [], "/s", (), "alias atlas=x").splitlines()[-4:-1] == [
        "  alias atlas=x",
        "  atlas status",
        "  atlas events --follow",
    ]


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\necho $0\n")
    path.chmod(0o755)
    return path


def test_a_shell_that_finds_this_very_atlas_is_told_nothing(tmp_path: Path) -> None:
    own = program(tmp_path / "env" / "bin" / "atlas")
    link = tmp_path / "usr" / "atlas"
    link.parent.mkdir()
    link.symlink_to(own)
    for path in (own.parent, link.parent):
        assert how_to_call_atlas(own.parent / "python", tmp_path, str(path)) is None


def test_a_shell_that_finds_none_or_another_is_told_how(tmp_path: Path) -> None:
    own = program(tmp_path / "an env" / "bin" / "atlas")
    python = own.parent / "python"
    other = program(tmp_path / "usr" / "atlas")
    for path in ("/nowhere", str(other.parent)):
        told = how_to_call_atlas(python, tmp_path, path)
        assert told == f"alias atlas={shlex.quote(shlex.quote(str(own)))}"
        ran = subprocess.run(
            ["/bin/sh", "-c", f"{told}\natlas"], capture_output=True, text=True, check=True, env={"PATH": path}
        )
        assert ran.stdout == f"{own}\n", "a shell can type it"
    program(own.parent / "activate")
    assert how_to_call_atlas(python, tmp_path, "/nowhere") == ". 'an env/bin/activate'"
    assert how_to_call_atlas(python, other.parent, "/nowhere") == f". {shlex.quote(str(own.parent / 'activate'))}"


def test_a_program_that_is_not_installed_is_called_as_a_module(tmp_path: Path) -> None:
    told = how_to_call_atlas(tmp_path / "python", tmp_path, "/nowhere")
    assert told == f"alias atlas='{tmp_path}/python -m runtime.cli.main'"


def test_it_goes_out_through_the_logs_writer_without_a_prefix_and_redacted() -> None:
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    writer = LogWriter(as_text, out=out_write, err=err_write)
    writer.start()
    show(writer, "plain\n  123e4567-e89b-42d3-a456-426614174000\n")
    assert writer.stop()
    os.close(out_write)
    os.close(err_write)
    with os.fdopen(out_read) as out, os.fdopen(err_read) as err:
        text = out.read()
        assert text.startswith("plain\n  123e4567")
        assert "426614174000" not in text
        assert err.read() == ""
