"""The command line: found by entry point, fast, honest in its exit codes, helpful in its errors."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from runtime.cli.main import Commands, cli, run_command_line, short_help
from runtime.cli.output import emit, emit_line, table
from runtime.exit_codes import OK, USAGE, WEDGED
from tests.permissions import OBEYING
from tests.runtime.atlas_process import ROOT, AtlasProcess, atlas, environment, short_directory, write_config

Launch = Callable[..., AtlasProcess]

TREE = """
[actor.second]
actor = "{actors}:Echo"
needs = ["first"]
[actor.first]
actor = "{actors}:Echo"
shutdown = 2
"""


@pytest.fixture
def place() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


@pytest.fixture
def launch(place: Path) -> Iterator[Launch]:
    with contextlib.ExitStack() as stack:

        def start(text: str = TREE, *, more: str = "") -> AtlasProcess:
            write_config(place, text, more=more)
            process = AtlasProcess(place)
            stack.callback(process.close)
            process.until("next:")
            return process

        yield start


# --- finding commands ------------------------------------------------------------------------------------------------


def test_help_lists_the_commands_of_all_rooms_and_imports_none_of_them() -> None:
    script = (
        "import sys\n"
        "from runtime.cli.main import run_command_line\n"
        "assert run_command_line(['--help']) == 0\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'trio', 'asyncpg', 'httpx', 'starlette'}))\n"
        "heavy = ('runtime.system.system', 'runtime.cli.run', 'vpn.commands.node')\n"
        "print(sorted(name for name in sys.modules if name in heavy))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    )
    *listed, third_party, own = found.stdout.splitlines()
    assert (third_party, own) == ("[]", "[]")
    text = "\n".join(listed)
    installed = [point.name for point in importlib.metadata.entry_points(group="atlas.commands")]
    for name in ["run", "check", "status", "kill", "events", *installed]:
        assert f"\n  {name} " in text
    assert "Show the running system: every child, its state" in text


def test_a_room_that_does_not_import_hinders_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken_room.py").write_text(
        '"""A room."""\nimport nothing_of_this_name\n\ndef command():\n    "Do it."\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    commands = Commands("atlas")
    commands._found = {"broken": "broken_room:command", "status": "runtime.cli.show:status", "odd": "json:dumps"}
    runner = CliRunner()
    listed = runner.invoke(commands, ["--help"])
    assert listed.exit_code == 0
    assert "Do it." in listed.output
    assert "status" in listed.output
    failed = runner.invoke(commands, ["broken", "with", "--any", "arguments"])
    assert failed.exit_code == 1
    assert "broken_room:command cannot be loaded: ModuleNotFoundError" in failed.output
    assert "json:dumps is no click command" in runner.invoke(commands, ["odd"]).output
    assert runner.invoke(commands, ["status", "--help"]).exit_code == 0


def test_every_command_can_be_loaded_and_has_a_first_line_that_says_what_it_does() -> None:
    assert isinstance(cli, Commands)
    context = click.Context(cli, info_name="atlas")
    for name, target in cli.targets.items():
        command = cli.get_command(context, name)
        assert command is not None
        assert not command.get_short_help_str().startswith("(broken"), target
        assert short_help(target), target


def test_the_first_sentence_of_a_docstring_is_read_without_importing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "some_room.py").write_text(
        'raise AssertionError("it was imported")\n'
        "def plain():\n    '''Say\n    it. And more.\n\n    Even more.\n    '''\n"
        "@group(help='From the decorator')\ndef decorated(): pass\n"
        "assigned = Group('x', help='Of the group.')\n"
        "silent = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert short_help("some_room:plain") == "Say it."
    assert short_help("some_room:decorated") == "From the decorator."
    assert short_help("some_room:assigned") == "Of the group."
    assert short_help("some_room:silent") is None
    assert short_help("some_room:missing") is None
    assert short_help("no_such_room:x") is None


# --- exit codes ------------------------------------------------------------------------------------------------------


def test_a_wrong_command_line_exits_64_and_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["statsu"]) == USAGE
    assert 'no such command "statsu"; did you mean "status"?' in capsys.readouterr().err
    assert run_command_line(["status", "--jsn"]) == USAGE
    assert run_command_line(["kill"]) == USAGE
    assert "Missing argument 'NAME'" in capsys.readouterr().err
    assert run_command_line(["kill", "x", "--nth", "2"]) == USAGE
    assert "name it with --at" in capsys.readouterr().err
    assert run_command_line(["events", "--limit", "-1"]) == USAGE
    assert run_command_line(["--version"]) == OK


def test_a_command_decides_its_exit_code_and_a_failure_of_its_own_is_70(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command
    @click.pass_context
    def leave(ctx: click.Context) -> None:
        ctx.exit(7)

    @click.command
    def exit_now() -> None:
        sys.exit(9)

    @click.command
    def fail() -> None:
        raise click.ClickException("it did not work")

    for command in (leave, exit_now, fail):
        assert command.name is not None
        monkeypatch.setitem(cli.commands, command.name, command)
    assert run_command_line(["leave"]) == 7
    assert run_command_line(["exit-now"]) == 9
    assert run_command_line(["fail"]) == WEDGED
    assert "it did not work" in capsys.readouterr().err


def test_an_unexpected_error_is_one_redacted_line_and_70_its_place_on_demand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command
    def fail() -> None:
        raise ExceptionGroup(
            "tasks", [ZeroDivisionError("password=hunter2 is divided\nDETAIL: a row of somebody else")]
        )

    monkeypatch.setitem(cli.commands, "fail", fail)
    assert run_command_line(["fail"]) == WEDGED
    printed = capsys.readouterr().err
    assert printed.splitlines()[0] == "error: unexpected ZeroDivisionError: password=*** is divided"
    assert "ATLAS_DEBUG=1" in printed
    assert "Traceback" not in printed
    assert "somebody else" not in printed
    monkeypatch.setenv("ATLAS_DEBUG", "1")
    assert run_command_line(["fail"]) == WEDGED
    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert "raise ExceptionGroup" in printed
    assert "hunter2" not in printed


def test_a_service_that_ends_by_an_unexpected_error_leaves_the_traceback_in_its_log(place: Path) -> None:
    write_config(place, TREE)
    script = (
        "import sys\n"
        "import runtime.system.system\n"
        "from runtime.cli.main import main\n"
        "async def run_system(config, writer): raise ZeroDivisionError('in the middle')\n"
        "runtime.system.system.run_system = run_system\n"
        "main(['run'])\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        cwd=place,
        env=environment(place),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert ended.returncode == WEDGED
    assert "the system ended by an unexpected error" in ended.stderr
    assert "in run_system" in ended.stderr
    assert "error: unexpected ZeroDivisionError: in the middle" in ended.stderr


@pytest.mark.parametrize("value", ["nan", "inf", "1e400", "-1", "0"])
def test_a_time_that_never_comes_is_a_usage_error(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["status", "--timeout", value]) == USAGE
    assert "--timeout" in capsys.readouterr().err


def test_a_wrong_configuration_prints_every_error_and_exits_78(place: Path) -> None:
    write_config(place, TREE + 'restart = "never"\nshutdwn = 1\n')
    for command in ("check", "run"):
        refused = atlas(place, command)
        assert refused.returncode == 78
        first, second, count = refused.stderr.splitlines()
        assert "supervisor.toml:11: actor.first.restart: expected one of" in first
        assert 'supervisor.toml:12: actor.first.shutdwn: unknown key; did you mean "shutdown"?' in second
        assert count == "2 errors"
        assert refused.stdout == ""


def test_a_missing_configuration_names_the_file_and_exits_78(place: Path) -> None:
    refused = atlas(place, "check", "--config", "none.toml")
    assert refused.returncode == 78
    assert refused.stderr == "error: none.toml: cannot be read: No such file or directory\n"
    assert atlas(place, "check", ATLAS_CONFIG="other.toml").stderr.startswith("error: other.toml: cannot be read")


def test_a_configuration_that_may_not_be_read_names_the_file_and_exits_77(place: Path) -> None:
    write_config(place, TREE)
    (place / "supervisor.toml").chmod(0)
    for command in (("check",), ("run",), ("status",), ("check", "--config", "supervisor.toml")):
        refused = subprocess.run(
            [*OBEYING, sys.executable, "-m", "runtime.cli.main", *command],
            cwd=place,
            env=environment(place),
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert refused.returncode == os.EX_NOPERM, refused.stderr
        assert refused.stderr.splitlines() == [
            f"error: {place}/supervisor.toml: cannot be read: Permission denied"
        ] or (refused.stderr == "error: supervisor.toml: cannot be read: Permission denied\n")


def test_a_control_command_without_a_running_system_exits_69_and_says_what_to_do(place: Path) -> None:
    write_config(place, TREE)
    refused = atlas(place, "status")
    assert refused.returncode == 69
    assert refused.stderr == (
        "error: cannot reach the system: is `atlas run` running? "
        f"socket {place}/atlas.sock: No such file or directory\n"
    )


# --- check -----------------------------------------------------------------------------------------------------------


def test_check_as_json_holds_order_stop_and_give_up(place: Path) -> None:
    write_config(place, TREE, more="[supervisor]\nintensity = 2\nshutdown_budget = 7")
    found = json.loads(atlas(place, "check", "--json").stdout)
    assert found["start_order"] == ["first", "second"]
    assert found["worst_case_stop_unlimited"] == 3.0 + 6.0
    assert found["shutdown_budget"] == 7.0
    assert found["worst_case_stop"] <= 8.0
    first, second = found["children"]
    assert (first["needed_by"], second["needs"]) == (["second"], ["first"])
    assert first["time_to_give_up"] == 0.5
    assert found["socket"] == str(place / "atlas.sock")


def test_check_refuses_a_limit_that_the_backoff_makes_unreachable(place: Path) -> None:
    write_config(place, TREE + "backoff = {{ initial = 60, maximum = 60 }}\n")
    refused = atlas(place, "check")
    assert refused.returncode == 78
    assert "supervisor.toml:8: actor.first: first would be restarted for ever" in refused.stderr
    assert 'give_up = "never"' in refused.stderr
    write_config(place, TREE + 'backoff = {{ initial = 60, maximum = 60 }}\ngive_up = "never"\n')
    assert atlas(place, "check").returncode == 0


# --- control commands ------------------------------------------------------------------------------------------------


def test_status_shows_every_child_and_its_facts(launch: Launch, place: Path) -> None:
    process = launch()
    shown = atlas(place, "status")
    assert shown.returncode == 0
    assert shown.stdout.startswith(f"atlas up, ready, pid {process.process.pid}, for ")
    lines = shown.stdout.splitlines()
    assert [line.split()[0] for line in lines[3:]] == ["child", "first", "second", "beats:"]
    assert lines[-1].startswith("beats: event_loop ")
    assert lines[-1].endswith("worker absent, healthcheck absent")
    assert "greeting hello" in lines[4]
    found = json.loads(atlas(place, "status", "--json").stdout)
    assert [(child["name"], child["state"], child["incarnation"]) for child in found["children"]] == [
        ("first", "running", 1),
        ("second", "running", 1),
    ]


def test_kill_restart_pause_and_resume_change_what_status_shows(launch: Launch, place: Path) -> None:
    process = launch()

    def state(name: str) -> tuple[str, int]:
        found = json.loads(atlas(place, "status", "--json").stdout)
        child = next(child for child in found["children"] if child["name"] == name)
        return child["state"], child["incarnation"]

    assert atlas(place, "kill", "first").stdout == "killed first\n"
    process.until("first started (incarnation 2")
    assert state("first") == ("running", 2)
    assert atlas(place, "restart", "first").stdout == "first serves, incarnation 3\n"
    assert json.loads(atlas(place, "pause", "first", "--json").stdout) == {"name": "first", "paused": True}
    assert state("first") == ("paused", 3)
    atlas(place, "resume", "first")
    assert state("first") == ("running", 3)
    assert "`atlas start first` starts it" in atlas(place, "stop", "first").stdout
    assert state("first") == ("down", 3)
    refused = atlas(place, "kill", "frist")
    assert refused.returncode == 64
    assert "did you mean 'first'?" in refused.stderr


def test_kill_at_a_failpoint_takes_effect_at_the_named_visit(launch: Launch, place: Path) -> None:
    worker = 'actor = "{actors}:Worker"\npaused = true\nrestart = "temporary"\n'
    text = f"{TREE}[actor.worker]\n{worker}args = {{{{ interval = 0.01, start_jitter = [0, 0] }}}}\n"
    process = launch(text, more="[chaos]\nfailpoints = true")
    armed = atlas(place, "kill", "worker", "--at", "task:iterate", "--nth", "2")
    assert armed.stdout == "worker dies at visit 2 of task:iterate\n"
    points = json.loads(atlas(place, "failpoints", "--json").stdout)
    assert points["allowed"] is True
    (point,) = [point for point in points["points"] if point["armed_for"] is not None]
    assert (point["actor"], point["point"], point["armed_for"]) == ("worker", "task:iterate", 2)
    assert "none armed" not in atlas(place, "failpoints").stdout
    process.call("resume", name="worker")
    assert "'worker' was killed at its failpoint 'task:iterate'" in process.until("worker crashed")
    assert sum("worker looks for work" in line for line in process.lines) == 1, "at the second visit, not the first"
    process.call("kill", name="first", at="before:Work")
    process.call("disarm")
    points = json.loads(atlas(place, "failpoints", "--json").stdout)
    assert {point["armed_for"] for point in points["points"]} == {None}
    assert {point["point"]: point["fired"] for point in points["points"]}["task:iterate"] == 1


def test_inspect_shows_what_the_actor_itself_tells(launch: Launch, place: Path) -> None:
    launch()
    found = json.loads(atlas(place, "inspect", "first", "--json").stdout)
    assert found["actor"] == {"done": [], "interval": 60.0}
    assert found["class"] == "tests.runtime.demo_actors:Echo"
    assert "class: tests.runtime.demo_actors:Echo" in atlas(place, "inspect", "first").stdout


def test_events_are_one_line_each_and_can_be_followed(launch: Launch, place: Path) -> None:
    process = launch()
    shown = atlas(place, "events", "first")
    assert [line.split("  ", 1)[1].partition(" (")[0] for line in shown.stdout.splitlines()] == ["first started"]
    follower = subprocess.Popen(
        [sys.executable, "-m", "runtime.cli.main", "events", "--follow", "--json", "--limit", "1"],
        cwd=place,
        env=environment(place),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert follower.stdout is not None
    try:
        assert json.loads(follower.stdout.readline())["kind"] == "SystemStarted"
        process.call("kill", name="second")
        followed: list[dict[str, Any]] = []
        while not followed or followed[-1]["kind"] != "ChildStarted":
            followed.append(json.loads(follower.stdout.readline()))
        assert {"OperatorCommand", "ChildExited", "ChildRestarting"} <= {event["kind"] for event in followed}
        sequences = [event["sequence"] for event in followed]
        assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
        assert "second" in followed[-1]["line"]
    finally:
        follower.kill()
        follower.wait(timeout=30)
        follower.stdout.close()
    assert isinstance(process.call("status"), dict)


# S-903 S-904
def test_what_an_error_quotes_is_shown_on_one_line_and_without_secrets(launch: Launch, place: Path) -> None:
    process = launch('[actor.first]\nactor = "{actors}:Indiscreet"\n')
    process.until("first started (incarnation 2")
    shown = {
        command: atlas(place, *command).stdout
        for command in (("events",), ("events", "--json"), ("inspect", "first"), ("status", "--json"), ("status",))
    }
    for text in (*shown.values(), process.output):
        assert "hunter2" not in text
        assert "vless://0f4c" not in text
        assert all(line.isprintable() for line in text.splitlines())
        assert not any(line.startswith("2026 CRITICAL forged") for line in text.splitlines())
    crashed = [line for line in shown["events",].splitlines() if "first crashed" in line]
    quoted = "postgresql://atlas:***@db\\n2026 CRITICAL forged \\x1b[31mvless://***"
    assert [quoted in line for line in crashed] == [True]
    assert "why_not_ready: password=***" in shown["inspect", "first"]


def test_events_into_a_closed_pipe_end_without_a_complaint(launch: Launch, place: Path) -> None:
    launch()
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "runtime.cli.main", "events"],
            cwd=place,
            env=environment(place),
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    finally:
        os.close(writer)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_stop_without_a_name_ends_the_process_and_waits_for_it(launch: Launch, place: Path) -> None:
    process = launch()
    stopped = atlas(place, "stop")
    assert stopped.stdout == "atlas has stopped\n"
    assert process.wait() == 0
    assert "stops within 30 s: asked by an operator" in process.output
    assert atlas(place, "stop").returncode == 69


def test_drain_without_a_name_drains_and_ends_the_process(launch: Launch, place: Path) -> None:
    process = launch()
    assert json.loads(atlas(place, "drain", "--no-wait", "--json").stdout)["stopping"] == "atlas"
    assert process.wait() == 0
    assert "drains and stops within 30 s" in process.output


# --- completion ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed_for_each_shell(shell: str, place: Path) -> None:
    printed = atlas(place, "completion", shell)
    assert printed.returncode == 0
    assert f"_ATLAS_COMPLETE={shell}_complete" in printed.stdout
    assert atlas(place, "completion", "tcsh").returncode == 64


def test_names_are_completed_from_the_running_system_and_else_from_the_configuration(
    launch: Launch, place: Path
) -> None:
    def complete(*words: str) -> set[str]:
        line = " ".join(("atlas", *words))
        done = atlas(place, _ATLAS_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(len(words)))
        return {entry.partition(",")[2] for entry in done.stdout.splitlines()}

    write_config(place, TREE)
    assert complete("inspect", "s") == {"second"}
    launch()
    assert complete("inspect", "f") == {"first"}
    assert "status" in complete("sta")


# --- output ----------------------------------------------------------------------------------------------------------


def test_a_table_is_as_wide_as_its_cells_and_shows_no_control_characters() -> None:
    assert table(("a", "bb"), [("long", 1), ("x", "\x1b[31m\n")]) == "a     bb\nlong  1\nx     ·[31m·"
    assert table(("a",), []) == ""


def test_json_is_printed_for_everything_a_command_returns(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"path": Path("/x"), "items": (1, {2})}, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"path": "/x", "items": [1, [2]]}
    emit({"a": 1}, False, lambda: "for people")
    assert capsys.readouterr().out == "for people\n"
    emit_line({"ü": 1})
    assert capsys.readouterr().out == '{"ü": 1}\n'
