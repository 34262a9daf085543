"""The simulators share no code with what they test, but for the listener that hands them their requests."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import simulators

OURS = frozenset({"actors", "db", "runtime", "vpn", "tests"})
LISTENER = ("server.py", "runtime.http")
FILES = sorted(Path(simulators.__file__).parent.glob("**/*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_simulator_imports_nothing_of_the_program(path: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            if (path.name, node.module) == LISTENER:
                continue
            imported.add((node.module or "").partition(".")[0])
    assert not imported & OURS
