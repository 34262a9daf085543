"""`atlas verify` says of each invariant whether it holds, and its exit code says it to scripts."""

from __future__ import annotations

import json
import re

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


NODES = """
INSERT INTO vpn_nodes (name, endpoint, inbounds)
SELECT name, '{"tag": "vless", "host": "127.0.0.1", "port": 443, "network": "tcp", "security": "none"}', '{vless}'
FROM unnest('{bern,oslo,rome}'::text[]) AS name;
INSERT INTO key_placements (key_id, node_id, applied, applied_generation, missing_since)
SELECT k.id, n.id, CASE n.name WHEN 'rome' THEN 'unknown' ELSE 'present' END, k.generation,
       CASE n.name WHEN 'bern' THEN now() END FROM vpn_keys k, vpn_nodes n;
INSERT INTO key_sightings (node_id, key_id, first_pass, last_pass, generation, is_known)
SELECT id, 'kended', 1, 1, 1, true FROM vpn_nodes WHERE name = 'oslo';
UPDATE vpn_keys SET pending_since = now() - interval '1 hour';
"""


def test_each_node_is_named_with_how_many_keys_are_wrong_there(
    atlas: Atlas, cluster: Cluster, database_dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    atlas("customer", "add", "42")
    atlas("trial", "42")
    sql(cluster, database_dsn, NODES)
    assert run_command_line(["verify"]) == 75
    said = capsys.readouterr().out
    assert "node bern: 1 it had and does not have any more; it was never seen" in said
    assert "node oslo: 1 should not be there any more" in said
    assert "node rome: 1 wait to be put there" in said
    assert run_command_line(["verify", "--json"]) == 75
    found = [
        (node["name"], node["missing"], node["late"], node["ended"])
        for node in json.loads(capsys.readouterr().out)["nodes"]
    ]
    assert found == [("bern", 1, 0, 0), ("oslo", 0, 0, 1), ("rome", 0, 1, 0)]
    shown = atlas("subscription", "42")
    assert [(node["name"], node["as_wanted"]) for node in shown["nodes"]] == [
        ("bern", False),
        ("oslo", True),
        ("rome", False),
    ]
    assert run_command_line(["subscription", "42"]) == 0
    said = capsys.readouterr().out
    assert "1 of 3 have the key as it is wanted" in said
    assert "bern had it, and was seen without it since" in said
    assert "rome has not confirmed it yet" in said


def test_the_auditor_derives_everything_once_and_again_when_asked(
    atlas: Atlas, capsys: pytest.CaptureFixture[str]
) -> None:
    atlas("customer", "add", "42")
    assert run_command_line(["verify"]) == 0
    assert "everything stored follows from the facts" in capsys.readouterr().out
    assert run_command_line(["verify"]) == 0
    assert "nothing changed since its last clean audit" in capsys.readouterr().out
    assert run_command_line(["verify", "--whole"]) == 0
    printed = capsys.readouterr()
    assert "everything stored follows from the facts" in printed.out
    steps = [line.removeprefix("auditor: ") for line in printed.err.splitlines() if line.startswith("auditor: ")]
    assert steps[0] == "comparing everything with what was audited before"
    assert re.fullmatch(r"\[(\d+)/\1\] .*: holds", steps[-1]), "each of so many, and the last is the last"
    assert len(steps) > 40


@pytest.mark.unchecked_money("it makes up a payment")
def test_what_the_auditor_finds_is_65_with_both_values(
    atlas: Atlas, cluster: Cluster, database_dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    atlas("customer", "add", "42")
    sql(cluster, database_dsn, "UPDATE customers SET telegram_id = 43")
    assert run_command_line(["verify"]) == 65
    printed = capsys.readouterr().out
    assert printed.startswith("all ")  # no view sees it
    assert "customers 1, telegram_id of customer 1: derived 42, stored 43" in printed
    assert run_command_line(["verify", "--json"]) == 65
    [found] = json.loads(capsys.readouterr().out)["auditor"]["findings"]
    assert (found["customer"], found["derived"], found["stored"]) == (1, "42", "43")


@pytest.mark.unchecked_money("it alters a purse")
def test_explain_shows_one_customer_side_by_side(
    atlas: Atlas, cluster: Cluster, database_dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    atlas("customer", "add", "42")
    atlas("trial", "42")
    assert run_command_line(["verify", "--explain", "42"]) == 0
    printed = capsys.readouterr().out
    assert "= interval of event 1: basic 3 days" in printed
    assert "everything stored follows from the facts" in printed
    sql(cluster, database_dsn, "UPDATE accounts SET balance = 5 WHERE kind = 'paid'")
    assert run_command_line(["verify", "--explain", "42"]) == 65
    printed = capsys.readouterr().out
    assert "≠ purse paid: 0\n    stored: 5" in printed
    assert "a purse holds what the facts lead to: purse paid of customer 1: derived 0, stored 5" in printed


def test_explaining_nobody_is_an_error_that_says_so(atlas: Atlas, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["verify", "--explain", "7"]) == 67
    assert "no customer with Telegram id 7" in capsys.readouterr().err
