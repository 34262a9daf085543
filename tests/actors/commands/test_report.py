"""`atlas report`: a table for people, a file for spreadsheets, JSON for programs."""

from __future__ import annotations

import csv
import io

import pytest

from tests.actors.commands.conftest import Atlas

pytestmark = pytest.mark.system


def test_a_report_is_a_table_a_file_and_json_with_the_same_figures(atlas: Atlas) -> None:
    atlas("customer", "add", "42")
    plan = ("--customer", "42", "--tariff", "basic", "--days", "30", "--provider", "manual")
    atlas("buy", *plan, "--charge", "first", "--amount", "14900")
    found = atlas("report", "--days", "2")
    assert found["all"]["revenue"] == 14_900 and found["all"]["new"] == 1 and len(found["by"]["day"]) == 2
    rows = list(csv.DictReader(io.StringIO(atlas("report", "--by", "provider", "--csv", text=True))))
    assert [(row["provider"], row["revenue"], row["arpu"]) for row in rows] == [("manual", "149.00", "149.00")]
    text = atlas("report", "--by", "plan", text=True)
    assert "basic 30" in text and "149.00 RUB" in text and "purses" in text
    assert atlas("report", "--from", "2020-01-01", "--to", "2020-01-31")["all"]["sales"] == 0
    assert "1 to 3660 days" in atlas("report", "--from", "2020-01-02", "--to", "2020-01-01", fails=65)
    assert "choose one" in atlas("report", "--csv", "--json", fails=64)
