"""`atlas verify` says of each invariant whether it holds, and its exit code says it to scripts."""

from __future__ import annotations

import json

import pytest

from runtime.cli import run_command_line
from tests.actors.commands.conftest import Atlas
from tests.postgres_cluster import Cluster


def sql(cluster: Cluster, dsn: str, statement: str) -> None:
    name = dsn.partition("@/")[2].partition("?")[0]
    cluster.sql(f"SET session_replication_role = replica; {statement}", name)


def test_a_sound_database_holds_and_progress_goes_to_stderr(atlas: Atlas, capsys: pytest.CaptureFixture[str]) -> None:
    atlas("customer", "add", "42")
    assert run_command_line(["verify"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("all ")
    lines = printed.err.splitlines()
    assert len(lines) >= 15
    assert all(line.endswith(" holds") for line in lines)
    assert lines[0].startswith("[ 1/")


@pytest.mark.unchecked_money("it breaks a balance")
def test_a_violation_is_65_and_shows_examples(
    atlas: Atlas, cluster: Cluster, database_dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(1, 8):
        atlas("customer", "add", str(number))
    sql(cluster, database_dsn, "UPDATE accounts SET balance = 5 WHERE kind = 'paid'")
    assert run_command_line(["verify"]) == 65
    printed = capsys.readouterr()
    assert "money_i03_balances_equal_postings is VIOLATED: 7" in printed.out
    assert "balance 5, postings sum to 0" in printed.out
    assert "and 2 more; the view money_i03_balances_equal_postings lists them all" in printed.out
    assert run_command_line(["verify", "--json"]) == 65
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)["invariants"]}
    assert found["money_i03_balances_equal_postings"]["violations"] == 7


def test_what_only_waits_for_the_workers_is_75(
    atlas: Atlas, cluster: Cluster, database_dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    atlas("customer", "add", "42")
    atlas("trial", "42")
    sql(cluster, database_dsn, "UPDATE vpn_keys SET pending_since = now() - interval '1 hour'")
    assert run_command_line(["verify"]) == 75
    printed = capsys.readouterr()
    assert "is not at rest" in printed.out
    assert "look again in a minute" in printed.out
