"""The process around the actors: threads left behind, streams that take nothing, PID 1, a terminal that is closed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.control import client
from tests.runtime.atlas_process import PATIENCE, AtlasProcess, environment, short_directory, write_config

HOSTILE = "tests.runtime.hostile_actors"
ECHO = '[actor.echo]\nactor = "{actors}:Echo"\n'
RUN = [sys.executable, "-m", "runtime.cli.main", "run"]


@pytest.fixture
def place() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


def started(place: Path, *, stop_after: float = PATIENCE) -> dict[str, Any]:
    """Wait until the system of this directory serves."""
    deadline = time.monotonic() + stop_after
    while time.monotonic() < deadline:
        with contextlib.suppress(client.ControlUnreachable, client.ControlTimeout):
            status: Any = client.call(place / "atlas.sock", "status", timeout=PATIENCE)
            if status["state"] == "up":
                return dict(status)
    raise AssertionError("it never came up")


# S-614
@pytest.mark.parametrize("how", ["thread", "pool"])
def test_threads_left_behind_are_named_and_hold_up_the_end_for_two_seconds(place: Path, how: str) -> None:
    write_config(place, ECHO + f'[actor.threads]\nactor = "{HOSTILE}:Threads"\nargs = {{{{ how = "{how}" }}}}\n')
    process = AtlasProcess(place)
    try:
        process.until("next:")
        process.signal(signal.SIGTERM)
        process.until("exit code 0")
        down = time.monotonic()
        assert process.wait() == 0
        assert time.monotonic() - down < 10.0  # two, and what a busy machine adds
        (line,) = [line for line in process.lines if "threads that were left behind" in line]
        assert line.count("left-behind") == (1 if how == "thread" else 3)
    finally:
        process.close()


def spawn(place: Path, redirection: str, *arguments: str, **more: Any) -> subprocess.Popen[bytes]:
    """`atlas` with its streams redirected by a shell."""
    command = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-m", "runtime.cli.main", *arguments]
    return subprocess.Popen(command, cwd=place, env=environment(place), **more)


# S-615
@pytest.mark.parametrize(
    "redirection",
    [">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full", ">/dev/full 2>/dev/full"],
)
def test_streams_that_are_closed_or_full_do_not_end_a_run(place: Path, redirection: str) -> None:
    write_config(
        place, ECHO + f'[actor.bad]\nactor = "{HOSTILE}:Hostile"\nargs = {{{{ how = "plain" }}}}\ngive_up = "park"\n'
    )
    process = spawn(place, redirection, "run")
    try:
        children = {child["name"]: child for child in started(place)["children"]}
        assert children["echo"]["state"] == "running"
        for descriptor in (0, 1, 2):
            target = str(Path(f"/proc/{process.pid}/fd/{descriptor}").readlink())
            assert target.startswith(("/dev/", "pipe:", "/"))
            assert "socket" not in target
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=PATIENCE) == 0
    finally:
        process.kill()
        process.wait()


# S-615
@pytest.mark.parametrize(
    ("redirection", "arguments", "code"),
    [
        (">&-", ["check"], 0),
        (">/dev/full", ["check"], 74),
        (">/dev/full", ["--help"], 74),
        ("2>&-", ["check"], 0),
        ("2>&-", ["chek"], 64),
        ("2>/dev/full", ["chek"], 64),
        (">&- 2>&-", ["status"], 69),
        (">/dev/full 2>/dev/full", ["status"], 69),
        (">/dev/full 2>/dev/full", ["check"], 74),
    ],
)
def test_a_command_with_closed_or_full_streams_has_a_documented_code(
    place: Path, redirection: str, arguments: list[str], code: int
) -> None:
    write_config(place, ECHO)
    process = spawn(place, redirection, *arguments, stderr=subprocess.PIPE)
    _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert b"Traceback" not in told
    if code == 74 and "2>" not in redirection:
        assert told == b"error: stdout does not take the output: No space left on device\n"


@contextlib.contextmanager
def in_own_pid_namespace(place: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`atlas run` as PID 1; what it says goes to the file `log`."""
    command = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc", *RUN]
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=place, env=environment(place), stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def until_said(place: Path, text: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while text not in (place / "log").read_text():
        assert time.monotonic() < deadline, f"never said {text!r}"
        os.sched_yield()


def below(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


# S-616
def test_as_pid_1_it_reaps_orphans_and_passes_a_term_on(place: Path) -> None:
    write_config(place, ECHO + f'[actor.orphans]\nactor = "{HOSTILE}:Orphans"\n')
    with in_own_pid_namespace(place) as process:
        started(place)
        (init,) = below(process.pid)
        until_said(place, "orphans are made")
        deadline = time.monotonic() + PATIENCE
        while len(below(init)) > 1 and time.monotonic() < deadline:
            os.sched_yield()
        (system,) = below(init)
        assert b"runtime.cli.main" in Path(f"/proc/{system}/cmdline").read_bytes()
        os.kill(init, signal.SIGTERM)
        assert process.wait(timeout=PATIENCE) == 0
        assert "exit code 0" in (place / "log").read_text()


# S-616
def test_as_pid_1_a_term_that_comes_at_once_counts(place: Path) -> None:
    write_config(place, ECHO)
    for _ in range(3):
        with in_own_pid_namespace(place) as process:
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline:
                with contextlib.suppress(OSError, ValueError, AssertionError):
                    (init,) = below(process.pid)
                    assert b"unshare" not in Path(f"/proc/{init}/cmdline").read_bytes(), "which blocks it for itself"
                    # The mask of what is blocked: from its first imports on, TERM is.
                    blocked = re.search(r"SigBlk:\s+(\w+)", Path(f"/proc/{init}/status").read_text())
                    if blocked is not None and int(blocked[1], 16) >> (signal.SIGTERM - 1) & 1:
                        break
            os.kill(init, signal.SIGTERM)
            assert process.wait(timeout=PATIENCE) == 0


@contextlib.contextmanager
def on_a_terminal(place: Path, *command: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A process whose controlling terminal is a pty; gives the other end of it, which may be closed."""
    ours, its = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(its, termios.TIOCSCTTY, 0)

    log = (place / "log").open("wb")
    process = subprocess.Popen(
        command,
        cwd=place,
        env=environment(place),
        stdin=its,
        stdout=log,
        stderr=log,
        preexec_fn=take_terminal,  # this test has no other thread
    )
    os.close(its)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait()
        log.close()
        with contextlib.suppress(OSError):
            os.close(ours)


# S-617
def test_a_closed_terminal_stops_the_system_and_a_hup_before_reloads_it(place: Path) -> None:
    write_config(place, ECHO)
    with on_a_terminal(place, *RUN) as (process, terminal):
        started(place)
        process.send_signal(signal.SIGHUP)
        until_said(place, "configuration")
        assert started(place)["state"] == "up"
        os.close(terminal)
        assert process.wait(timeout=PATIENCE) == 0
        assert "SIGHUP, the terminal is gone" in (place / "log").read_text()


# S-617
def test_what_nohup_started_outlives_its_terminal(place: Path) -> None:
    write_config(place, ECHO)
    with on_a_terminal(place, "nohup", *RUN) as (process, terminal):
        started(place)
        os.close(terminal)
        process.send_signal(signal.SIGHUP)
        assert started(place)["state"] == "up"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=PATIENCE) == 0


# S-410
def test_stopping_after_an_actor_was_parked_logs_no_error(place: Path) -> None:
    text = '[actor.bad]\nactor = "{actors}:Crashing"\nbackoff = {{ initial = 0 }}\ngive_up = "park"\n'
    write_config(place, ECHO + text, more="[supervisor]\nintensity = 1")
    process = AtlasProcess(place)
    try:
        process.until("bad is parked")
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
        assert [line for line in process.lines if " ERROR " in line and "bad crashed" not in line] == []
    finally:
        process.close()
