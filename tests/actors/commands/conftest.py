"""The command line on a database of the test's own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from db.billing.referrals import set_hold_days
from db.driver.session import open_session
from db.tx import Tx
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


def earn(atlas: Atlas, kopecks: int) -> None:
    """A friend of customer 42 buys a plan that is dear enough for a reward of so much, which is not held back."""

    async def prepare(tx: Tx) -> None:
        await set_hold_days(tx, 0)
        await tx.execute("INSERT INTO prices (tariff, days, amount) VALUES ('plus', 1000, $1)", 10 * kopecks)

    async def run() -> None:
        async with open_session(os.environ["ATLAS__DATABASE__DSN"], "test") as session:
            await session.run("prepare", prepare)

    trio.run(run)
    atlas("customer", "add", "43", "--referrer", "42")
    plan = ("--tariff", "plus", "--days", "1000", "--amount", str(10 * kopecks))
    atlas("buy", "--customer", "43", "--provider", "manual", "--charge", "friend", *plan)
