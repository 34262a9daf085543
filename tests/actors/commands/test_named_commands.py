"""Every command that a text tells an operator to type is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from runtime.cli import cli

ROOT = Path(__file__).parent.parent.parent.parent
NAMED = re.compile(r"(?:[`\"']|\$ |^[ ]*)atlas ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?(?= |`|\"|'|$)", re.MULTILINE)
ROOMS = ("runtime", "actors", "db", "vpn")
PLACES = (
    "README.md",
    "SECURITY.md",
    "CONTRIBUTING.md",
    "supervisor.toml",
    "docs/**/*.md",
    *(f"{room}/**/*.py" for room in ROOMS),
)


def texts() -> Iterator[tuple[str, str]]:
    """What people read: documents, and the programs with their errors."""
    for pattern in PLACES:
        for path in ROOT.glob(pattern):
            name = str(path.relative_to(ROOT))
            yield name, path.read_text()


def missing(first: str, second: str | None) -> bool:
    context = click.Context(cli)
    command = cli.get_command(context, first) if first in cli.list_commands(context) else None
    if command is None:
        return True
    if not isinstance(command, click.Group) or second is None:
        return False
    return second not in command.list_commands(context)


def test_every_command_that_is_named_somewhere_exists() -> None:
    found = [(name, match) for name, text in texts() for match in NAMED.finditer(text)]
    named = {match[1] for _, match in found}
    assert {"run", "status", "buy", "refund", "db", "node"} <= named, "the search finds what it is for"
    wrong = [f"{name}: {match[0].strip()}" for name, match in found if missing(match[1], match[2])]
    assert wrong == []


def test_a_command_that_is_not_there_would_be_found() -> None:
    assert NAMED.search("run `atlas frobnicate`") is not None
    assert missing("frobnicate", None)
    assert missing("db", "frobnicate")
    assert not missing("db", "migrate")
