"""No input of an operator gives a traceback: every parameter of every command refuses in words what it cannot use."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from runtime.cli import Seconds, Text, cli, run_command_line
from tests.actors.commands.conftest import Atlas

NUMBERS = ("", "-1", "0", "1.5", "nan", "inf", "1e400", "32768", str(2**31), str(2**63 - 1), str(2**63), "9" * 40)
TEXTS = ("", " ", "a\0b", "\udcff", "x" * 5000, "'; DROP TABLE customers; -- %s {0} 🙂\n")
WORDED = {0, 64, 65, 67, 69, 75, 77, 78}
"""Exit codes of a command that knew what it was doing: not 1 (a traceback; of the doctor: something is
wrong) and not 70 (a defect)."""

GOOD = {
    "amount": "60000",
    "asset": "USDT",
    "charge_id": "first",
    "code": "spring",
    "days": "30",
    "destination": "a card",
    "directory": "/dev/null/here",
    "file": "/dev/null/a.backup",
    "key": "some-key",
    "fields": "{}",
    "message": "Resume",
    "name": "pool.main",
    "number": "1",
    "on": "on",
    "percent": "10",
    "provider": "manual",
    "rate": "92.50",
    "reason": "why not",
    "reference": "bank 7",
    "resolution": "settled",
    "role": "viewer",
    "since": "2020-01-01T00:00",
    "size": "5",
    "starts": "2030-01-31",
    "shell": "bash",
    "switch": "on",
    "tariff": "basic",
    "telegram_id": "42",
    "key_id": "k1",
    "token_file": "/dev/null",
    "until": "2020-01-02T00:00",
    "url": "http://127.0.0.1:1",
    "link": "no link",
}
"""What required parameters are given while another one is being abused."""

ALWAYS = {("node", "install"): ["--dry-run"], ("verify",): ["--within", "60"]}
SERVICES = {("run",), ("node", "run")}
"""They would run for ever on good values, so that their one parameter is all they are given."""


def commands(found: click.Command = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, with the words that call it."""
    if not isinstance(found, click.Group):
        yield path, found
        return
    context = click.Context(found)
    for name in found.list_commands(context):
        below = found.get_command(context, name)
        assert below is not None
        yield from commands(below, (*path, name))


ALL = dict(commands())
OF_THE_DATABASE = {
    path: command
    for path, command in ALL.items()
    if command.callback is not None
    and command.callback.__module__.startswith("actors.commands.")
    and "socket" not in {one.name for one in command.params}
    and path[0] not in ("new", "init", "restore")  # they make files, and ask no database of the present configuration
}


def valued(command: click.Command) -> list[click.Parameter]:
    """The parameters that take a value."""
    return [one for one in command.params if not (isinstance(one, click.Option) and (one.is_flag or one.count))]


def call(path: tuple[str, ...], command: click.Command, abused: click.Parameter, value: str) -> list[str]:
    """The command line with one parameter abused, and the others as they should be."""
    options, arguments = list(ALWAYS.get(path, ())), []
    for one in valued(command):
        given = value if one is abused else None
        if given is None and one.required and path not in SERVICES:
            given = GOOD[str(one.name)]
        if given is None:
            continue
        if isinstance(one, click.Option):
            options += [one.opts[0], given]
        else:
            arguments.append(given)
    return [*path, *options, "--", *arguments]


def test_the_search_for_commands_finds_those_of_all_rooms() -> None:
    assert {("run",), ("buy",), ("customer", "add"), ("pool", "resize"), ("node", "state"), ("verify",)} <= ALL.keys()
    assert ("buy",) in OF_THE_DATABASE
    assert ("leases",) not in OF_THE_DATABASE


@pytest.mark.parametrize("path", OF_THE_DATABASE, ids=" ".join)
def test_every_parameter_of_a_business_command_has_limits(path: tuple[str, ...]) -> None:
    for one in valued(OF_THE_DATABASE[path]):
        kind = one.type
        if isinstance(kind, click.IntRange | click.FloatRange):
            assert kind.min is not None, one.name
            assert kind.max is not None, one.name
        else:
            assert isinstance(kind, Text | Seconds | click.Choice | click.DateTime | click.Path), one.name


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_no_value_of_any_parameter_gives_a_traceback(
    path: tuple[str, ...],
    atlas: Atlas,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)  # where commands that write files may leave them
    monkeypatch.setenv("ATLAS__CONTROL__SOCKET", "/nonexistent/control.sock")
    if path in OF_THE_DATABASE:
        atlas("customer", "add", "42")
    assert isinstance(sys.stderr, io.TextIOWrapper)
    sys.stderr.reconfigure(errors="backslashreplace")  # as Python sets it up in a process of its own
    command = ALL[path]
    for one in valued(command):
        numeric = isinstance(one.type, click.IntRange | click.FloatRange) or one.type in (click.INT, click.FLOAT)
        for value in NUMBERS if numeric else (*TEXTS, "/") if isinstance(one.type, click.Path) else TEXTS:
            if "\0" in value and isinstance(one.type, click.Path):
                continue  # no process can be given such a path
            words = call(path, command, one, value)
            code = run_command_line(words)
            printed = capsys.readouterr()
            assert code in WORDED or (path == ("doctor",) and code == 1), (words, code, printed.err)
            assert "Traceback" not in printed.err, words
            assert "unexpected" not in printed.err, words
            if code:
                assert printed.err.strip(), words
    if path in OF_THE_DATABASE:
        monkeypatch.delenv("ATLAS__CONTROL__SOCKET")
        assert run_command_line(["verify"]) in (0, 75), capsys.readouterr().out


def test_a_negative_number_in_the_place_of_an_id_is_explained(atlas: Atlas) -> None:
    assert "-5 is read as an option" in atlas("customer", "add", "-5", fails=64)
    assert "a number in this place is positive" in atlas("orders", "cancel", "-5", fails=64)
    assert "-5 is not in the range" in atlas("customer", "add", "--", "-5", fails=64)
