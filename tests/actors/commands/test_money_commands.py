"""Every operation on money has a command that says what it did and may be repeated."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import pytest
import trio

from db.billing.payment_facts import FinalizePurchase
from db.billing.purchases import finalize_purchase
from db.driver.session import open_session
from db.money import Money
from tests.actors.commands.conftest import Atlas, earn

BUY = ("buy", "--customer", "42", "--tariff", "basic", "--days", "30", "--provider", "manual", "--charge", "first")


def test_a_refund_takes_the_access_along_and_repeats(atlas: Atlas) -> None:
    atlas("customer", "add", "42")
    atlas(*BUY, "--amount", "14900")
    done = atlas("refund", "--provider", "manual", "--charge", "first")
    assert (done["amount"], done["replayed"]) == (14900, False)
    assert done["access_taken_back_seconds"] > 29 * 86400
    assert "(recorded before; nothing was changed)" in atlas(
        "refund", "--provider", "manual", "--charge", "first", text=True
    )
    assert atlas("subscription", "42")["state"] == "revoked"
    assert "0.00 RUB can be refunded" in atlas(
        "refund", "--provider", "manual", "--charge", "first", "--amount", "100", fails=65
    )
    assert atlas("verify")["holds"]


def test_a_topup_is_spent_withdrawn_and_shown(atlas: Atlas) -> None:
    atlas("customer", "add", "42")
    topup = ("topup", "--customer", "42", "--provider", "manual", "--charge", "t1", "--amount", "100000")
    assert atlas(*topup)["credited"] == 100000
    assert atlas(*topup)["replayed"] is True
    spend = ("buy-from-balance", "--customer", "42", "--tariff", "basic", "--days", "30", "--key", "b1")
    said = atlas(*spend, fails=65)
    assert "costs customer 42 149.00 RUB; nothing was debited" in said and "--price 14900" in said
    assert "costs 149.00 RUB, not 104.30 RUB as the customer saw it" in atlas(*spend, "--price", "10430", fails=65)
    assert atlas("customer", "show", "42")["paid"] == 100000
    assert atlas(*spend, "--price", "14900")["price"] == 14900
    assert "nothing was changed" in atlas(*spend, "--price", "14900", text=True)
    refused = atlas("withdrawals", "request", "42", "60000", "--to", "card 4111111111111234", "--key", "w1", fails=65)
    assert "0.00 RUB can be withdrawn, less than 600.00 RUB" in refused and "refund of its charge" in refused
    earn(atlas, 689_70)
    asked = atlas("withdrawals", "request", "42", "60000", "--to", "card 4111111111111234", "--key", "w1")
    assert (asked["state"], asked["destination"]) == ("reserved", "…1234")
    shown = atlas("customer", "show", "42")
    assert {name: shown[name] for name in ("balance", "paid", "credit", "earned", "debt", "withdrawable")} == {
        "balance": 94070, "paid": 85100, "credit": 0, "earned": 8970, "debt": 0, "withdrawable": 8970,
    }  # fmt: skip
    assert "4111" not in atlas("withdrawals", "list", text=True)
    assert "card 4111111111111234" in atlas("withdrawals", "show", "1", text=True)
    assert "was paid out (bank 7)" in atlas("withdrawals", "approve", "1", "--reference", "bank 7", text=True)
    assert "leaves the reserve once" in atlas("withdrawals", "reject", "1", "--reason", "no", fails=65)
    assert atlas("withdrawals", "list", text=True) == "no withdrawal is reserved\n"
    waiting = [
        line.partition("] ")[2].split()[0]
        for line in atlas("verify", fails=75).splitlines()
        if not line.endswith(" holds")
    ]
    assert waiting == ["money_i10_nodes_have_the_active"], "there is no node that could have the key"


def test_a_rejected_withdrawal_and_an_adjustment_move_the_balance(atlas: Atlas) -> None:
    atlas("customer", "add", "42")
    assert atlas("adjust", "42", "70000", "--reason", "gift", "--key", "a1")["balance"] == 70000
    earn(atlas, 689_70)
    atlas("withdrawals", "request", "42", "60000", "--to", "a wallet", "--key", "w1")
    assert "back on the balance" in atlas("withdrawals", "reject", "1", "--reason", "unknown wallet", text=True)
    assert "the balance is 1339.70 RUB" in atlas("adjust", "42", "-5000", "--reason", "fee", "--key", "a2", text=True)
    assert "credited or earned, which is 1339.70 RUB" in atlas(
        "adjust", "42", "-133971", "--reason", "fee", "--key", "a3", fails=65
    )


def test_a_payment_of_nobody_is_a_case_that_says_what_to_do_and_is_credited(atlas: Atlas) -> None:
    atlas("customer", "add", "42")
    atlas("customer", "add", "43")
    atlas(*BUY, "--amount", "14900")
    assert atlas("cases", "list", text=True) == "no case is open\n"
    _pay_nobody()
    [case] = atlas("cases", "list")
    assert (case["held"], case["charge"], case["details"]["why"]) == (5000, "test orphan", "orphan")
    assert "atlas refund --provider test --charge orphan" in atlas("cases", "show", "1", text=True)
    assert "holds 50.00 RUB" in atlas("cases", "close", "1", "--resolution", "x", fails=65)
    assert "credited to customer 43" in atlas("cases", "credit", "1", "43", text=True)
    assert atlas("customer", "show", "43")["balance"] == 5000
    assert [one["state"] for one in atlas("cases", "list", "--state", "all")] == ["closed"]


def test_promo_codes_discounts_and_gifts(atlas: Atlas) -> None:
    atlas("customer", "add", "42")
    assert "takes 20 % off" in atlas("promo", "add", "Spring", "20", "--max-uses", "5", text=True)
    assert "spring" in atlas("promo", "list", text=True)
    assert atlas("customer", "vip", "42", "on")["changed"] is True
    assert atlas("customer", "discount", "42", "15")["changed"] is True
    assert "VIP" in atlas("customer", "show", "42", text=True)
    assert atlas("promo", "stop", "spring")["changed"] is True
    assert atlas("trial", "42")["tariff"] == "basic"
    assert "there is one per customer" in atlas("trial", "42", fails=65)
    first = atlas("grant", "42", "--tariff", "plus", "--days", "7", "--key", "sorry")
    assert first["replayed"] is False
    again = ("grant", "42", "--tariff", "plus", "--days", "7", "--key", "sorry")
    assert atlas(*again) == {**first, "replayed": True}
    assert "given before; nothing was changed" in atlas(*again, text=True)
    other = atlas("grant", "42", "--tariff", "plus", "--days", "30", "--key", "sorry", fails=65)
    assert "already stands for plus for 7 days" in other
    assert "not for plus for 30 days" in other


def test_an_outage_is_made_good_once_and_a_wrong_window_changes_nothing(atlas: Atlas) -> None:
    atlas("customer", "add", "42")
    atlas("trial", "42")
    now = datetime.now(UTC)
    window = (
        "--since",
        f"{now - timedelta(hours=3):%Y-%m-%dT%H:%M}",
        "--until",
        f"{now - timedelta(minutes=1):%Y-%m-%dT%H:%M:%S}",
    )
    assert "has ended" in atlas("prolong", *window[2:], "--since", "2100-01-01", "--reason", "x", fails=65)
    assert "no node 'mars'" in atlas("prolong", *window, "--node", "mars", "--reason", "x", fails=65)
    assert "--reason" in atlas("prolong", *window, fails=64)
    assert "2030-13-01" in atlas("prolong", "--since", "2030-13-01", "--until", "2030-01-02", "--reason", "x", fails=64)
    before = atlas("subscription", "42")["expires_at"]
    assert atlas("prolong", *window, "--reason", "the line was cut")["customers"] == 0, "it had no access then"
    assert "0 customers got back" in atlas("prolong", *window, "--reason", "the line was cut", text=True)
    assert atlas("subscription", "42")["expires_at"] == before


@pytest.mark.parametrize("amount", ["0", "-5", "9000000000000000000"])
def test_an_amount_that_nobody_captured_buys_and_credits_nothing(atlas: Atlas, amount: str) -> None:
    atlas("customer", "add", "42")
    assert "is not in the range" in atlas(*BUY, "--amount", amount, fails=64)
    topup = ("topup", "--customer", "42", "--provider", "manual", "--charge", "t", "--amount", amount)
    assert "is not in the range" in atlas(*topup, fails=64)
    assert "never had a subscription" in atlas("subscription", "42", fails=65)
    assert atlas("customer", "show", "42")["balance"] == 0
    assert atlas(*BUY, "--amount", "14900")["replayed"] is False, "the charge was not recorded before"
    assert atlas("verify", fails=75)


def test_compensation_credits_what_never_worked(atlas: Atlas) -> None:
    atlas("customer", "add", "42")
    atlas(*BUY, "--amount", "14900")
    assert atlas("compensate", "42", "--reason", "it never worked")["amount"] == 14900
    assert "nothing was changed" in atlas("compensate", "42", "--reason", "it never worked", text=True)
    assert atlas("customer", "show", "42")["balance"] == 14900


def test_an_order_that_does_not_exist_is_named(atlas: Atlas) -> None:
    assert "there is no order 5" in atlas("orders", "cancel", "5", fails=65)


def _pay_nobody() -> None:
    """A provider reports a charge of somebody unknown."""

    async def report() -> None:
        async with open_session(os.environ["ATLAS__DATABASE__DSN"], "test") as session:
            await session.run("pay", finalize_purchase, FinalizePurchase("test", "orphan", Money(5000), None, 404))

    trio.run(report)
