"""What a command says of a database that is away, empty, older than the program, or refuses a value."""

from __future__ import annotations

import json
import os
import re

import pytest

from db.errors import AmbiguousCommit, ConnectionLost, LeaseExpired, LeaseMisused
from db.schema.migrate import load_migrations
from runtime.cli import run_command_line
from tests.actors.commands.conftest import Atlas
from tests.postgres_cluster import Cluster


def test_a_database_without_the_schema_says_what_makes_it_and_that_does(
    empty_database_dsn: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATLAS__DATABASE__DSN", empty_database_dsn)
    for words in (["customer", "add", "42"], ["verify"], ["db", "check"]):
        assert run_command_line(words) == os.EX_CONFIG
        assert "the database has no ATLAS schema; run `atlas db migrate` or `atlas run`" in capsys.readouterr().err
    assert run_command_line(["db", "migrate", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["applied"]) == len(load_migrations())
    assert run_command_line(["db", "migrate"]) == 0
    assert capsys.readouterr().out == "the schema is up to date\n"
    assert run_command_line(["db", "check"]) == 0
    assert str(load_migrations()[-1]) in capsys.readouterr().out
    assert run_command_line(["customer", "add", "42"]) == 0


def test_an_older_schema_is_told_from_a_defect(atlas: Atlas, cluster: Cluster, database_dsn: str) -> None:
    last = load_migrations()[-1]
    name = database_dsn.partition("@/")[2].partition("?")[0]
    cluster.sql(
        f"DELETE FROM schema_migrations WHERE version = {last.version}; ALTER TABLE customers RENAME TO c", name
    )
    refused = atlas("customer", "add", "42", fails=os.EX_CONFIG)
    assert re.search(rf"lacks 1 migrations, the first is {last}; run `atlas db migrate`", refused)


def test_a_value_that_only_the_server_refuses_is_worded_without_the_row(
    atlas: Atlas, cluster: Cluster, database_dsn: str
) -> None:
    name = database_dsn.partition("@/")[2].partition("?")[0]
    cluster.sql("ALTER TABLE customers ADD CONSTRAINT nobody_of_this_age CHECK (telegram_id > 100)", name)
    refused = atlas("customer", "add", "42", fails=os.EX_DATAERR)
    assert "nobody_of_this_age" in refused
    assert "nothing was changed" in refused
    assert "DETAIL" not in refused


def test_a_server_that_takes_no_writes_is_not_a_defect(atlas: Atlas, cluster: Cluster, database_dsn: str) -> None:
    name = database_dsn.partition("@/")[2].partition("?")[0]
    cluster.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on", name)
    refused = atlas("customer", "add", "42", fails=os.EX_UNAVAILABLE)
    assert "read-only" in refused
    assert "othing was changed" in refused
    assert "Traceback" not in refused


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (AmbiguousCommit("COMMIT was not answered"), os.EX_TEMPFAIL, "repeat the command as it is"),
        (LeaseExpired("not done within 10 s"), os.EX_UNAVAILABLE, "not done within 10 s"),
        (ConnectionLost("the connection broke"), os.EX_UNAVAILABLE, "the connection broke"),
        (LeaseMisused("used by a task of ours"), os.EX_SOFTWARE, "used by a task of ours"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_became_of_a_command_that_lost_its_connection_is_said(
    atlas: Atlas, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, words: str
) -> None:
    async def lose(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("db.driver.session.transact", lose)
    assert words in atlas("customer", "add", "42", fails=code)


def test_an_embedded_database_that_does_not_run_says_how_to_start_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATLAS__DATABASE__DSN", "")
    monkeypatch.setenv("ATLAS__EMBEDDED__DATA_DIR", "/tmp/atlas-that-nobody-started")
    assert run_command_line(["customer", "add", "42"]) == os.EX_UNAVAILABLE
    refused = capsys.readouterr().err
    assert "start that, and repeat the command" in refused
    assert "`atlas run`" in refused
    assert "/tmp/atlas-that-nobody-started (setting embedded.data_dir)" in refused
    assert "cannot be reached" not in refused
