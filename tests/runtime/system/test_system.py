"""`atlas run` as a real process: start, order, signals, exit codes, one per socket."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.control.client import ControlUnreachable, call
from tests.runtime.atlas_process import AtlasProcess, atlas, short_directory, write_config

Launch = Callable[..., AtlasProcess]

TWO = """
[actor.second]
actor = "{actors}:Echo"
needs = ["first"]
[actor.first]
actor = "{actors}:Echo"
"""


@pytest.fixture
def place() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


@pytest.fixture
def launch(place: Path) -> Iterator[Launch]:
    with contextlib.ExitStack() as stack:

        def start(text: str, *, more: str = "", **env: str) -> AtlasProcess:
            write_config(place, text, more=more)
            process = AtlasProcess(place, env=env)
            stack.callback(process.close)
            return process

        yield start


def positions(process: AtlasProcess, *texts: str) -> list[int]:
    return [next(n for n, line in enumerate(process.lines) if text in line) for text in texts]


def test_children_start_in_the_order_of_their_needs_and_the_screen_says_what_is_next(launch: Launch) -> None:
    process = launch(TWO, more='[supervisor]\nname = "demo"\nnext_steps = ["open the door"]')
    process.until("next:")
    process.until("  open the door")
    process.until("  atlas inspect second")
    assert positions(process, "first starts", "second starts") == sorted(
        positions(process, "first starts", "second starts")
    )
    screen = process.lines[
        next(n for n, line in enumerate(process.lines) if line.startswith("demo is up: 2 children")) :
    ]
    assert "  first   running  greeting hello" in screen
    assert f"  control socket  {process.socket}" in screen
    process.signal(signal.SIGTERM)
    assert process.wait() == 0


# S-610
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_stops_everything_in_reverse_order_and_exits_0(launch: Launch, number: signal.Signals) -> None:
    process = launch(TWO)
    process.until("next:")
    process.signal(number)
    assert process.wait() == 0
    second, first = positions(process, "second stops: shutdown", "first stops: shutdown")
    assert second < first
    assert "exit code 0" in process.output
    assert not process.socket.exists()


# S-608 S-1005
def test_an_orderly_stop_drains_what_was_accepted(launch: Launch) -> None:
    text = """
        [actor.echo]
        actor = "{actors}:Echo"
        paused = true
        [actor.sender]
        actor = "{actors}:Sender"
        args = {{ to = "echo", count = 3 }}
        needs = ["echo"]
    """
    process = launch(text)
    process.until("next:")
    inspected = process.call("inspect", name="echo")
    assert isinstance(inspected, dict)
    assert (inspected["state"], inspected["depth"], inspected["actor"]) == ("up", 3, {"done": [], "interval": 60.0})
    process.call("resume", name="echo")
    process.call("drain", name="echo")
    process.until("echo stops: terminated")
    letters = process.call("deadletters")
    assert isinstance(letters, dict)
    assert letters["total"] == 0


# S-1002
def test_a_second_run_on_the_same_socket_is_refused_with_the_pid_of_the_first(launch: Launch, place: Path) -> None:
    process = launch(TWO)
    process.until("next:")
    refused = atlas(place, "run")
    assert refused.returncode == 69
    assert (
        f"another atlas run holds the control socket {process.socket}: pid {process.process.pid}, for" in refused.stderr
    )
    assert "Traceback" not in refused.stderr
    assert isinstance(process.call("status"), dict)


# S-1002
def test_after_a_sigkill_the_stale_socket_is_replaced(launch: Launch, place: Path) -> None:
    first = launch(TWO)
    first.until("next:")
    first.signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    assert first.socket.exists()
    with pytest.raises(ControlUnreachable, match=r"is `atlas run` running\?"):
        call(first.socket, "status")
    second = AtlasProcess(place)
    try:
        second.until("next:")
        found = second.call("status")
        assert isinstance(found, dict)
        assert found["pid"] == second.process.pid
        second.signal(signal.SIGINT)
        assert second.wait() == 0
    finally:
        second.close()


# S-1001
def test_the_socket_is_for_its_owner_alone(launch: Launch) -> None:
    process = launch(TWO)
    process.until("next:")
    found = process.socket.stat()
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_uid == os.geteuid()


# S-612
@pytest.mark.parametrize(
    ("how", "code", "text"),
    [
        ("refused", 69, "error: bad did not start: the schema is newer than this program"),
        ("fatal", 70, "nothing can work here"),
        ("bug", 70, "error: bad did not start: ValueError: a bug in on_start"),
        ("hang", 70, "bad did not start"),
    ],
)
def test_a_child_whose_first_start_fails_ends_the_start_with_its_error_and_code(
    launch: Launch, how: str, code: int, text: str
) -> None:
    process = launch(
        f"""
        [actor.good]
        actor = "{{actors}}:Echo"
        [actor.bad]
        actor = "{{actors}}:Refusing"
        args = {{{{ how = "{how}" }}}}
        start_timeout = 0.2
        needs = ["good"]
        [actor.never]
        actor = "{{actors}}:Echo"
        needs = ["bad"]
        """
    )
    assert process.wait() == code
    assert text in process.output
    assert "good stops: shutdown" in process.output
    assert "never starts" not in process.output
    assert "next:" not in process.output
    assert not process.socket.exists()


# S-514
def test_a_child_that_declines_to_run_is_no_failure(launch: Launch) -> None:
    process = launch('[actor.bad]\nactor = "{actors}:Refusing"\nargs = {{ how = "ignore" }}\n')
    process.until("next:")
    found: Any = process.call("status")
    assert found["ready"] is True
    assert found["children"][0]["state"] == "down"


# S-613
def test_a_tree_that_gives_up_exits_69(launch: Launch) -> None:
    process = launch('[actor.bad]\nactor = "{actors}:Crashing"\nbackoff = {{ initial = 0 }}\n')
    assert process.wait() == 69
    assert "error: supervisor atlas gave up: bad made restart attempt 6 within 60 s" in process.output


# S-613
def test_what_does_not_stop_is_reported_and_the_process_leaves_with_75(launch: Launch) -> None:
    process = launch(
        """
        [actor.echo]
        actor = "{actors}:Echo"
        [actor.stubborn]
        actor = "{actors}:Stubborn"
        needs = ["echo"]
        shutdown = 0.2
        kill_grace = 0.2
        """
    )
    process.until("next:")
    process.signal(signal.SIGTERM)
    assert process.wait() == 75
    assert "stubborn did not stop" in process.output
    assert "echo stops: shutdown" in process.output
    assert "error: supervisor atlas could not stop stubborn" in process.output
    assert not process.socket.exists()


SLOW = """
[actor.slow]
actor = "{actors}:Slow"
args = {{ seconds = 600 }}
shutdown = 600
"""


# S-611
def test_a_second_signal_shortens_the_stop(launch: Launch) -> None:
    process = launch(SLOW, more="[supervisor]\nshutdown_budget = 700\nsecond_signal_budget = 0.2")
    process.until("next:")
    process.signal(signal.SIGTERM)
    process.until("slow is asked to stop")
    process.signal(signal.SIGTERM)
    assert process.wait() == 0, "without the second signal it would take ten minutes, which nobody here waits for"
    assert "stops within 0.2 s: a second SIGTERM" in process.output
    assert "slow was cut off in its on_stop" in process.output


# S-611
def test_a_third_signal_leaves_at_once_with_75(launch: Launch) -> None:
    process = launch('[actor.slow]\nactor = "{actors}:Stubborn"\nshutdown = 20\n')
    process.until("next:")
    process.signal(signal.SIGTERM)
    process.until("drains and stops within 30 s: SIGTERM")
    process.signal(signal.SIGTERM)
    process.until("a second SIGTERM")
    process.signal(signal.SIGTERM)
    assert process.wait() == 75
    assert "leaving at once" in process.output


@pytest.fixture
def full_pipe() -> Iterator[int]:
    """The end of a pipe that takes nothing more."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 65536)
    os.set_blocking(writer, True)
    yield writer
    os.close(reader)
    os.close(writer)


EXPLODING = """
[actor.echo]
actor = "{actors}:Echo"
[actor.sender]
actor = "{actors}:Sender"
args = {{ to = "echo", count = 1, message = "explode" }}
needs = ["echo"]
"""


# S-610 S-611
def test_a_signal_that_comes_after_the_tree_is_down_changes_nothing(place: Path, full_pipe: int) -> None:
    write_config(place, EXPLODING)
    process = AtlasProcess(place, stdout=full_pipe)
    try:
        process.until("echo crashed")
        with process.socket.with_name("atlas.sock.lock").open("rb") as lock:
            process.signal(signal.SIGTERM)
            fcntl.flock(
                lock, fcntl.LOCK_SH
            )  # free once the system is down; now the process waits for its log to be taken
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
                process.signal(number)
        assert process.wait() == 0
    finally:
        process.close()


# S-1009
RELOADED = """
[actor.first]
actor = "{actors}:Echo"
args = {{ interval = 10, greeting = "hello" }}
[actor.worker]
actor = "{actors}:Worker"
args = {{ interval = 3600, start_jitter = [0, 0] }}
"""


# S-1009
def test_sighup_applies_what_is_safe_and_names_what_is_not(launch: Launch, place: Path) -> None:
    process = launch(RELOADED)
    process.until("worker looks for work every 3600 s")
    changed = RELOADED.replace("3600", "1800").replace("= 10", "= 30").replace("hello", "hej")
    write_config(place, changed, more='[log]\nlevel = "debug"\n[watchdog]\nworker_stale = 80\ninterval = 4')
    process.signal(signal.SIGHUP)
    line = process.until("configuration reloaded")
    assert line.endswith(
        "configuration reloaded: applied actor.first.args.interval (from its next start), actor.worker.args.interval, "
        "log.level, watchdog.worker_stale; needs a restart of the process: actor.first.args.greeting, watchdog.interval"
    )
    process.until("worker looks for work every 1800 s")
    process.call("restart", name="first")
    inspected: Any = process.call("inspect", name="first")
    assert inspected["actor"]["interval"] == 30.0
    assert inspected["facts"]["greeting"] == "hello"
    process.signal(signal.SIGHUP)
    line = process.until("configuration reloaded")
    assert "applied nothing; needs a restart of the process: actor.first.args.greeting, watchdog.interval" in line


# S-1009
def test_sighup_reads_secrets_again_and_names_those_that_changed_without_values(launch: Launch, place: Path) -> None:
    for name, secret in (("first", "hunter2"), ("second", "unchanged")):
        (place / name).write_text(secret)
        (place / name).chmod(0o600)
    process = launch("""
[actor.first]
actor = "{actors}:Keeper"
args = {{ password_file = "first" }}
[actor.second]
actor = "{actors}:Keeper"
args = {{ password_file = "second" }}
""")
    process.until("next:")
    (place / "first").write_text("correct-horse-battery")
    process.signal(signal.SIGHUP)
    line = process.until("configuration reloaded")
    assert line.endswith("applied actor.first.args.password (a secret, from the next start of first)")
    process.call("kill", name="first")
    process.until("first started (incarnation 2")
    inspected: Any = process.call("inspect", name="first")
    assert inspected["actor"] == {"length": len("correct-horse-battery")}
    process.signal(signal.SIGHUP)
    assert process.until("configuration reloaded").endswith("applied nothing")
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    assert "hunter2" not in process.output
    assert "correct-horse-battery" not in process.output


def test_a_wrong_configuration_is_not_reloaded_and_changes_nothing(launch: Launch, place: Path) -> None:
    process = launch(TWO)
    process.until("next:")
    (place / "supervisor.toml").write_text("[nonsense]\n")
    process.signal(signal.SIGHUP)
    line = process.until("configuration not reloaded, the running one stays")
    assert "supervisor.toml:1: nonsense: unknown table" in line
    assert isinstance(process.call("status"), dict)
    refused = atlas(place, "reload", "--socket", str(process.socket))
    assert refused.returncode == 78
    assert "nonsense: unknown table" in refused.stderr


# S-908
def test_json_logs_hold_nothing_but_json(launch: Launch) -> None:
    process = launch(TWO, more='[log]\nformat = "json"')
    process.until("is up: 2 children")
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    assert all(isinstance(json.loads(line), dict) for line in process.lines)


# S-1004
def test_hostile_bytes_on_the_socket_cost_their_sender_and_nobody_else(launch: Launch) -> None:
    process = launch(TWO, more="max_request = 1024\nmax_connections = 4")
    process.until("next:")

    def talk(*chunks: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(str(process.socket))
            answer = b""
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for chunk in chunks:
                    connection.sendall(chunk)
                connection.shutdown(socket.SHUT_WR)
                while data := connection.recv(65536):
                    answer += data
            return answer

    assert b"is not JSON" in talk(b"\x00\xff\xfe\n")
    assert b"is not a JSON object" in talk(b"[1]\n")
    assert b"is not JSON" in talk(b"[" * 900 + b"\n")
    assert b"at most 1024 bytes" in talk(b"x" * 5000)
    assert b"and nothing else" in talk(b'{"command": 3}\n')
    assert b"and nothing else" in talk(b'{"command": "status", "x": 1}\n')
    assert b'there is no command \\"statu\\"; did you mean \\"status\\"?' in talk(b'{"command": "statu"}\n')
    assert b'missing key \\"name\\"' in talk(b'{"command": "kill"}\n')
    assert b"expected a string" in talk(b'{"command": "kill", "arguments": {"name": {"a": 1}}}\n')
    assert b"unknown key" in talk(b'{"command": "status", "arguments": {"a": 1}}\n')
    assert b"no actor is named" in talk(b'{"command": "kill", "arguments": {"name": "\\ud800\\u0000"}}\n')
    assert talk(b"no end of line") == b""
    both = talk(b'{"command": "status"}\n\n{"command": "status"}\n')
    assert both.count(b'"result"') == 2
    idle = [socket.socket(socket.AF_UNIX) for _ in range(4)]
    try:
        for connection in idle:
            connection.connect(str(process.socket))
            connection.sendall(b'{"command": "status"}\n')
            assert connection.recv(1)
        assert b"4 connections are open already" in talk(b'{"command": "status"}\n')
    finally:
        for connection in idle:
            connection.close()
    process.signal(signal.SIGTERM)
    assert process.wait() == 0
    assert "Traceback" not in process.output


# S-1003
def test_the_socket_answers_while_an_actor_is_wedged(launch: Launch) -> None:
    text = """
        [actor.echo]
        actor = "{actors}:Echo"
        [actor.sender]
        actor = "{actors}:Sender"
        args = {{ to = "echo", count = 2, message = "block" }}
        needs = ["echo"]
    """
    process = launch(text)
    process.until("next:")
    seen: Any = process.call("inspect", name="echo")
    assert seen["handling"] == "Block"
    assert seen["handling_for"] >= 0
    assert seen["depth"] == 1
    assert any("demo_actors.py" in line for line in seen["stack"])
    process.call("kill", name="echo")
    process.until("echo started (incarnation 2")
    found: Any = process.call("status")
    echo = next(child for child in found["children"] if child["name"] == "echo")
    assert echo["last_exit"]["reason"] == "killed"
    assert echo["last_exit"]["last_message"] == "Block"


def test_a_blocked_stdout_does_not_keep_the_system_from_serving_and_stopping(place: Path, full_pipe: int) -> None:
    write_config(place, EXPLODING)
    process = AtlasProcess(place, stdout=full_pipe)
    try:
        assert "Explode" in process.until("echo crashed")
        assert isinstance(process.call("status"), dict)
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
    finally:
        process.close()
