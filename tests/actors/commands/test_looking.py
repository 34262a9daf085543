"""Commands that tell of customers, prices and the audit trail; amounts as people write them; the doctor."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest

from runtime.cli import run_command_line
from tests.actors.commands.conftest import Atlas

HOSTILE = "\x1b[2Jgone\u202e\x9b"
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def test_a_customers_story_holds_all_that_happened(atlas: Atlas) -> None:
    atlas("customer", "add", "42")
    atlas("topup", "--customer", "42", "--provider", "manual", "--charge", "first", "--amount", "1490.00")
    atlas(
        "buy-from-balance", "--customer", "42", "--tariff", "basic", "--days", "30", "--key", "one", "--price", "149.00"
    )
    atlas("adjust", "42", "100", "--reason", HOSTILE, "--key", "a")
    told = atlas("customer", "story", "42")
    assert told["subscription"]["tariff"] == "basic"
    assert [row["charge"] for row in told["parts"]["charges"]["rows"]] == ["first"]
    assert {row["what"] for row in told["parts"]["audit"]["rows"]} >= {"adjust_balance"}
    text = atlas("customer", "story", "42", text=True)
    assert "1490.00" in text
    assert OBEYED.search(text) is None
    assert atlas("customer", "story", "43", fails=67)


def test_customers_are_listed_page_by_page(atlas: Atlas) -> None:
    for number in ("41", "42", "43"):
        atlas("customer", "add", number)
    atlas("grant", "42", "--tariff", "basic", "--days", "30", "--key", "g")
    assert [one["telegram_id"] for one in atlas("customer", "list", "--limit", "2")] == [43, 42]
    assert [one["telegram_id"] for one in atlas("customer", "list", "--before", "42")] == [41]
    [active] = atlas("customer", "list", "--active")
    assert (active["telegram_id"], active["tariff"], active["balance"]) == (42, "basic", 0)
    assert "basic" in atlas("customer", "list", text=True)


def test_the_audit_trail_is_filtered(atlas: Atlas) -> None:
    atlas("customer", "add", "42")
    atlas("customer", "vip", "42", "on")
    atlas("price", "set", "basic", "30", "159.00")
    newest = atlas("audit")[0]
    assert (newest["action"], newest["subject"]) == ("price_set", "basic")
    of_one = atlas("audit", "--customer", "42")
    assert of_one
    assert {one["telegram_id"] for one in of_one} == {42}
    assert atlas("audit", "--action", "price_set", "--by", newest["actor"])[0]["id"] == newest["id"]
    assert all(one["id"] < newest["id"] for one in atlas("audit", "--before", str(newest["id"])))
    assert "price_set" in atlas("audit", text=True)


def test_a_price_is_set_once_and_said_in_roubles(atlas: Atlas) -> None:
    before = {(one["tariff"], one["days"]): one["amount"] for one in atlas("price", "list")}
    done = atlas("price", "set", "basic", "30", "159.50")
    assert (done["amount"], done["before"], done["changed"]) == (15950, before["basic", 30], True)
    assert atlas("price", "set", "basic", "30", "15950")["changed"] is False
    assert len(atlas("audit", "--action", "price_set")) == 1, "the same price again is no change"
    assert atlas("price", "set", "basic", "77", "300.00")["before"] is None
    assert "159.50 RUB" in atlas("price", "list", text=True)
    assert "below which no discount goes" in atlas("price", "set", "basic", "30", "1.00", fails=65)
    assert "did you mean 'basic'" in atlas("price", "set", "basik", "30", "159.50", fails=65)
    quoted = atlas("customer", "add", "42")
    assert quoted
    bought = ("--tariff", "basic", "--days", "30", "--amount", "159.50")
    atlas("buy", "--customer", "42", "--provider", "manual", "--charge", "c", *bought)


@pytest.mark.parametrize("amount", ["149,00", "149.0", "149.000", "1e3", "½", "٣٠٠", "149.00 RUB", "--149.00"])
def test_an_amount_that_could_mean_two_things_is_refused(amount: str, atlas: Atlas) -> None:
    atlas("customer", "add", "42")
    code = run_command_line(["adjust", "--reason", "r", "--key", "k", "--", "42", amount])
    assert code == 64
    assert atlas("customer", "show", "42")["balance"] == 0


def test_the_doctor_names_what_is_wrong_and_how_to_mend_it(
    atlas: Atlas, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ATLAS__CONTROL__SOCKET", str(tmp_path / "none.sock"))
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("ATLAS__ADMIN__PORT", str(taken.getsockname()[1]))
        monkeypatch.setenv("ATLAS__GATEWAY__PORT", "0")
        monkeypatch.setenv("ATLAS__TELEGRAM__URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("ATLAS__TELEGRAM__TOKEN", "123456:" + "x" * 35)
        monkeypatch.setenv("ATLAS__PAYMENTS__CRYPTOBOT__TOKEN", "1:" + "y" * 35)
        monkeypatch.setenv("ATLAS__PAYMENTS__CRYPTOBOT__URL", "http://127.0.0.1:1")
        code = run_command_line(["doctor", "--json", "--within", "2"])
        printed = capsys.readouterr().out
    found = json.loads(printed)
    verdicts = {one["about"]: one for one in found["findings"]}
    assert code == 1
    assert found["ok"] is False
    assert verdicts["admin port"]["verdict"] == "wrong"
    assert "admin.port" in verdicts["admin port"]["mend"]
    assert verdicts["gateway port"]["verdict"] == "well"
    assert verdicts["database"]["verdict"] == "well"
    assert verdicts["telegram"]["verdict"] == "wrong"
    assert verdicts["provider cryptobot"]["verdict"] == "wrong"
    assert verdicts["provider yookassa"]["verdict"] == "off"
    assert "x" * 35 not in printed
    assert "y" * 35 not in printed
    assert all(one["mend"] for one in found["findings"] if one["verdict"] == "wrong")
    monkeypatch.setenv("ATLAS__DATABASE__DSN", "postgresql://nobody@127.0.0.1:1/nothing")
    assert run_command_line(["doctor"]) == 1
    assert "database" in capsys.readouterr().out
