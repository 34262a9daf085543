"""Orders and renewals can be listed, made and tried by an operator, by the functions that the service itself uses."""

from __future__ import annotations

from tests.actors.commands.conftest import Atlas
from tests.postgres_cluster import Cluster

PLAN = ("--customer", "42", "--tariff", "basic", "--days", "30")
RENEWED_BASIC = 14900


def test_an_order_with_a_promo_code_is_opened_once_and_listed_with_what_it_holds(atlas: Atlas) -> None:
    atlas("customer", "add", "42")
    atlas("customer", "add", "43")
    atlas("promo", "add", "spring", "20", "--max-uses", "1")
    assert atlas("orders", "list", text=True) == "no order is pending\n"
    opened = ("orders", "open", *PLAN, "--promo", "SPRING", "--key", "call-1")
    first = atlas(*opened)
    assert (first["price"], first["list_price"], first["state"]) == (11920, 14900, "pending")
    assert atlas(*opened) == first
    assert "already stands for order" in atlas("orders", "open", *PLAN, "--key", "call-1", fails=65)
    other = ("orders", "open", "--customer", "43", "--tariff", "plus", "--days", "90")
    assert "used up" in atlas(*other, "--promo", "spring", "--key", "call-2", fails=65)
    second = atlas(*other, "--key", "call-2")
    assert [one["order"] for one in atlas("orders", "list")] == [second["order"], first["order"]]
    [of_42] = atlas("orders", "list", "--customer", "42")
    assert (of_42["promo"], of_42["discount_percent"], of_42["telegram_id"]) == ("spring", 20, 42)
    assert [one["order"] for one in atlas("orders", "list", "--before", str(second["order"]))] == [first["order"]]
    assert "basic 30 d" in atlas("orders", "list", text=True)
    atlas("orders", "cancel", str(first["order"]))
    assert [one["order"] for one in atlas("orders", "list", "--state", "cancelled")] == [first["order"]]
    assert atlas("verify")["holds"]


def test_a_payment_with_a_promo_code_buys_at_its_price_and_repeats_only_with_it(atlas: Atlas) -> None:
    atlas("customer", "add", "42")
    atlas("promo", "add", "spring", "20")
    atlas("promo", "add", "winter", "20")
    buy = ("buy", *PLAN, "--provider", "manual", "--charge", "c1", "--amount", "11920")
    assert atlas(*buy, "--promo", "spring")["result"] == "entitlement"
    assert atlas(*buy, "--promo", "spring")["replayed"] is True
    assert "not with promo code 'winter'" in atlas(*buy, "--promo", "winter", fails=65)
    assert "no promo code 'autumn'" in atlas(*buy, "--promo", "autumn", fails=65)
    [spring, _] = atlas("promo", "list")
    assert spring["uses"] == 1
    [order] = atlas("orders", "list", "--state", "paid")
    assert (order["promo"], order["paid_from"]) == ("spring", "provider")


def test_a_renewal_is_listed_and_tried_now_once_for_its_period(
    atlas: Atlas, cluster: Cluster, database_dsn: str
) -> None:
    atlas("customer", "add", "42")
    assert atlas("renewals", "list", text=True) == "there are no such renewals\n"
    bought = atlas("buy", *PLAN, "--provider", "manual", "--charge", "c1", "--amount", "14900")
    atlas("auto-renew", "42", "on")
    [scheduled] = atlas("renewals", "list")
    assert (scheduled["state"], scheduled["period_start"]) == ("due", bought["expires_at"])
    assert "basic 30 d" in atlas("renewals", "list", "--customer", "42", text=True)
    day = bought["expires_at"][:10]
    now = ("renewals", "now", "42", "--from", day)
    assert atlas(*now)["result"] == "lacks_funds"
    assert [one["state"] for one in atlas("renewals", "list", "--state", "lacks_funds")] == ["lacks_funds"]
    atlas("adjust", "42", "20000", "--reason", "gift", "--key", "a1")
    name = database_dsn.partition("@/")[2].partition("?")[0]
    cluster.sql("UPDATE renewal_schedule SET state = 'failed', due_at = NULL, failures = 5", name)
    done = atlas(*now)
    assert (done["result"], done["price"], done["replayed"]) == ("renewed", RENEWED_BASIC, False)
    assert atlas(*now) == {**done, "replayed": True}
    assert "renewed before; nothing was changed" in atlas(*now, text=True)
    assert atlas("customer", "show", "42")["balance"] == 20000 - RENEWED_BASIC
    assert atlas("subscription", "42")["expires_at"] == done["expires_at"] > bought["expires_at"]
    assert "no renewal from 2031-01-01 on" in atlas("renewals", "now", "42", "--from", "2031-01-01", fails=65)
    atlas("auto-renew", "42", "off")
    day = done["expires_at"][:10]
    assert "`atlas auto-renew 42 on`" in atlas("renewals", "now", "42", "--from", day, fails=65)
    assert [one["state"] for one in atlas("renewals", "list", "--state", "off")] == ["off"]
