"""A limit of a customer is 75 on the command line, with the setting; an operator exceeds it with a flag, which is audited."""

from __future__ import annotations

import os

import pytest

from runtime.operators.identity import account_of
from tests.actors.commands.conftest import Atlas
from tests.actors.commands.test_roles import rows

ME = account_of(os.getuid())


def test_reissues_and_orders_have_limits_that_a_flag_exceeds(atlas: Atlas, database_dsn: str) -> None:
    atlas("customer", "add", "42")
    atlas("grant", "42", "--tariff", "basic", "--days", "30", "--key", "g")
    for number in range(3):
        atlas("reissue", "42", "--idempotency-key", f"r{number}")
    said = atlas("reissue", "42", fails=75)
    assert "3 are allowed (setting limits.reissues)" in said
    assert "Again from" in said
    atlas("reissue", "42", "--beyond-limits")
    open_one = ("orders", "open", "--customer", "42", "--tariff", "basic", "--days", "30", "--key")
    for number in range(5):
        atlas(*open_one, f"o{number}")
    assert "limits.open_orders" in atlas(*open_one, "o5", fails=75)
    atlas(*open_one, "o5", "--beyond-limits")
    told = rows(database_dsn, "SELECT actor, subject FROM audit WHERE action = 'limit_exceeded' ORDER BY id")
    assert [(row["actor"], row["subject"]) for row in told] == [
        (f"operator:{ME}", "limits.reissues"),
        (f"operator:{ME}", "limits.open_orders"),
    ]


def test_a_setting_changes_a_limit_and_a_wrong_one_is_refused(atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    atlas("customer", "add", "42")
    monkeypatch.setenv("ATLAS__LIMITS__OPEN_ORDERS", "1")
    open_one = ("orders", "open", "--customer", "42", "--tariff", "basic", "--days", "30", "--key")
    atlas(*open_one, "a")
    assert "1 are allowed" in atlas(*open_one, "b", fails=75)
    for wrong in ("0", "-1", "many", "1e9"):
        monkeypatch.setenv("ATLAS__LIMITS__OPEN_ORDERS", wrong)
        assert "limits.open_orders" in atlas(*open_one, "c", fails=78)


def test_the_trial_follows_its_rules(atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    atlas("customer", "add", "42")
    atlas("buy", "--customer", "42", "--tariff", "basic", "--days", "30", "--provider", "manual", "--charge", "c",
          "--amount", "14900")  # fmt: skip
    atlas("revoke", "42")
    assert "trials.past_payers" in atlas("trial", "42", fails=65)
    monkeypatch.setenv("ATLAS__TRIALS__PAST_PAYERS", "true")
    monkeypatch.setenv("ATLAS__TRIALS__REVOKED", "false")
    assert "trials.revoked" in atlas("trial", "42", fails=65)
    monkeypatch.setenv("ATLAS__TRIALS__REVOKED", "true")
    assert atlas("trial", "42")["tariff"] == "basic"
