"""The command line on a database of the test's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtime.cli import run_command_line
from tests.postgres_cluster import cluster as cluster
from tests.postgres_cluster import database_dsn as database_dsn
from tests.postgres_cluster import empty_database_dsn as empty_database_dsn

Atlas = Callable[..., Any]


@pytest.fixture
def atlas(
    database_dsn: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Atlas:
    """`atlas("customer", "add", "42")` runs a command as an operator does and returns what `--json` prints.

    With `fails=65` the command has to exit with that code; the error text is returned. `text=True` returns what a
    person reads.
    """
    monkeypatch.setenv("ATLAS__DATABASE__DSN", database_dsn)
    monkeypatch.setenv("ATLAS__WITHDRAWALS__KEY_FILE", str(tmp_path / "payout.key"))

    def call(*words: str, fails: int = 0, text: bool = False) -> Any:
        code = run_command_line([*words, *([] if text or fails else ["--json"])])
        printed = capsys.readouterr()
        assert code == fails, printed.err + printed.out
        if fails:
            return printed.err
        return printed.out if text else json.loads(printed.out)

    return call
