"""A front end does all its business through signed requests; the ledger agrees afterwards."""

from __future__ import annotations

import pytest

from actors.announcements import PurchaseFinal
from db.billing.adjustments import adjust_balance
from db.billing.pricing import set_vip
from db.billing.promos import add_promo
from db.billing.purchases import record_manual_purchase
from db.billing.referrals import set_hold_days
from db.customers import add_customer
from db.money import Money
from db.tx import Tx
from tests.actors.shop.front import OTHER_SECRET, Front, front

ME = "/customers/1001"
PLAN = {"tariff": "basic", "days": 30}
SEEN = {**PLAN, "price": 14900}


async def fund(here: Front, amount: int, telegram_id: int = 1001) -> None:
    """Put money on a customer's balance."""

    async def book(tx: Tx) -> int:
        await add_customer(tx, telegram_id)
        return await adjust_balance(
            tx, telegram_id, Money(amount), reason="test", actor="test", idempotency_key=f"fund:{telegram_id}:{amount}"
        )

    await here.harness.run(book)


async def earn(here: Front, spent: int, telegram_id: int = 1001) -> None:
    """Let a friend whom the customer invited top up and spend so much, of which the customer earns a tenth."""

    async def book(tx: Tx) -> None:
        await add_customer(tx, 77, referrer_telegram_id=telegram_id)
        await set_hold_days(tx, 0)
        await tx.execute("INSERT INTO prices (tariff, days, amount) VALUES ('plus', 1000, $1)", spent)
        await record_manual_purchase(tx, 77, "plus", 1000, "manual", "friend", Money(spent), actor="test")

    await here.harness.run(book)


async def test_a_contact_adds_the_customer_once_and_the_referrer_is_final(database_dsn: str) -> None:
    async with front(database_dsn) as here:
        assert (await here.call("GET", ME)).status_code == 404
        await here.ok("PUT", "/customers/7", {})
        first = await here.ok("PUT", ME, {"language": "en", "referrer": 7})
        assert first == {
            "telegram_id": 1001, "language": "en", "balance": 0, "paid": 0, "credit": 0, "earned": 0, "debt": 0,
            "withdrawable": 0, "currency": "RUB", "is_reachable": True,
        }  # fmt: skip
        await here.ok("PUT", ME, {"language": "ru", "referrer": 8})
        referrer = (
            "SELECT r.telegram_id FROM customers c JOIN customers r ON r.id = c.referrer_id WHERE c.telegram_id = 1001"
        )
        assert await here.harness.value(referrer) == 7
        standing = await here.ok("GET", "/customers/7/referral")
        assert standing == {"paying_friends": 0, "percent": 10, "earned": 0, "currency": "RUB"}


async def test_the_price_list_and_a_quote_with_a_promo_agree_with_the_order(database_dsn: str) -> None:
    async with front(database_dsn) as here:
        await here.ok("PUT", ME, {})

        async def offer(tx: Tx) -> None:
            await add_promo(tx, "may", 20, actor="test")

        await here.harness.run(offer)
        plans = (await here.ok("GET", "/plans"))["plans"]
        assert {"tariff": "basic", "days": 30, "amount": 14900, "currency": "RUB"} in plans
        assert (await here.ok("POST", f"{ME}/promo", {"promo": "MAY"}))["percent"] == 20
        quote = await here.ok("POST", f"{ME}/quote", {**PLAN, "promo": "may"})
        assert (quote["list_amount"], quote["amount"], quote["discount_source"]) == (14900, 11920, "promo")
        order = await here.ok("POST", f"{ME}/orders", {**PLAN, "promo": "may", "idempotency_key": "a"})
        assert order["amount"] == 11920 and order["state"] == "pending"
        assert (quote["promo_used"], order["promo_used"]) == (True, True)
        assert await here.ok("POST", f"{ME}/orders", {**PLAN, "promo": "may", "idempotency_key": "a"}) == order
        assert await here.ok("GET", f"{ME}/orders/{order['order_id']}") == order


async def test_an_order_in_a_providers_asset_is_invoiced_and_paid_there(database_dsn: str) -> None:
    async with front(database_dsn) as here:
        await here.ok("PUT", ME, {})
        wish = {**PLAN, "idempotency_key": "a", "provider": "cryptobot"}
        order = await here.ok("POST", f"{ME}/orders", wish)
        assert (order["quoted_asset"], order["amount"]) == ("USDT", 14900)
        path = f"{ME}/orders/{order['order_id']}/invoice"
        pay = {"provider": "cryptobot", "price": 14900}
        other = await here.call("POST", path, {**pay, "price": 10430})
        assert other.status_code == 409 and "costs 149.00 RUB, not 104.30 RUB" in other.json()["detail"]
        assert (await here.call("POST", path, {"provider": "cryptobot"})).status_code == 400
        invoice = await here.ok("POST", path, pay)
        assert invoice["pay_url"].startswith("http")
        assert await here.ok("POST", path, pay) == invoice
        await here.harness.deliver_until_taken(
            "cryptobot", here.harness.outside.cryptobot.pay(int(invoice["invoice_id"]))
        )
        assert (await here.ok("GET", f"{ME}/orders/{order['order_id']}"))["state"] == "paid"
        assert (await here.ok("GET", f"{ME}/subscription"))["state"] == "activating"
        wrong = await here.call("POST", path, {**pay, "provider": "nobody"})
        assert wrong.status_code == 422 and "yookassa" in wrong.json()["detail"]


async def test_a_purchase_from_the_balance_counts_once_however_often_it_is_clicked(database_dsn: str) -> None:
    async with front(database_dsn) as here:
        listener = await here.harness.system.probe()
        here.harness.system.services.topics.subscribe(PurchaseFinal, listener.ref.address)
        await fund(here, 20000)
        wish = {**SEEN, "idempotency_key": "double-click"}
        for price in (None, 14800, 0):
            asked = {**wish, "price": price} if price is not None else {**PLAN, "idempotency_key": "double-click"}
            refused = await here.call("POST", f"{ME}/purchases", asked)
            assert refused.status_code == (409 if price == 14800 else 400)
        assert (await here.ok("GET", ME))["credit"] == 20000
        first = await here.ok("POST", f"{ME}/purchases", wish)
        second = await here.ok("POST", f"{ME}/purchases", wish)
        assert (first["replayed"], second["replayed"]) == (False, True)
        final = PurchaseFinal("balance", "entitlement", None, first["order_id"])
        assert (await listener.receive(PurchaseFinal), listener.received) == (final, [final])
        assert first["expires_at"] == second["expires_at"]
        assert (await here.ok("GET", ME))["balance"] == 20000 - 14900
        poor = await here.call("POST", f"{ME}/purchases", {**SEEN, "idempotency_key": "more"})
        assert poor.status_code == 402 and poor.json()["title"] == "Payment Required"


async def test_the_trial_auto_renewal_a_new_key_and_a_withdrawal(database_dsn: str) -> None:
    async with front(database_dsn) as here:
        await fund(here, 74900)
        assert (await here.ok("GET", f"{ME}/subscription"))["state"] == "none"
        assert (await here.ok("POST", f"{ME}/trial"))["tariff"] == "basic"
        again = await here.call("POST", f"{ME}/trial")
        assert again.status_code == 422 and "one per customer" in again.json()["detail"]
        unpaid = await here.call("PUT", f"{ME}/auto-renew", {"enabled": True})
        assert unpaid.status_code == 422 and "never bought a plan" in unpaid.json()["detail"]
        await here.ok("POST", f"{ME}/purchases", {**SEEN, "idempotency_key": "p"})
        await here.ok("PUT", f"{ME}/auto-renew", {"enabled": True})
        await earn(here, 590_000)
        key = (await here.ok("POST", f"{ME}/reissue", {"idempotency_key": "r"}))["key"]
        assert (await here.ok("POST", f"{ME}/reissue", {"idempotency_key": "r"}))["key"] == key
        assert (await here.ok("GET", f"{ME}/subscription"))["auto_renew"] is True
        asked = await here.ok(
            "POST", f"{ME}/withdrawals", {"amount": 50000, "destination": "card 1", "idempotency_key": "w"}
        )
        assert asked["amount"] == 50000
        assert (await here.ok("GET", ME))["earned"] == 9000
        more = await here.call(
            "POST", f"{ME}/withdrawals", {"amount": 50000, "destination": "card 1", "idempotency_key": "y"}
        )
        assert more.status_code == 402 and "90.00 RUB can be withdrawn" in more.json()["detail"]
        small = await here.call(
            "POST", f"{ME}/withdrawals", {"amount": 100, "destination": "card 1", "idempotency_key": "x"}
        )
        assert small.status_code == 422


async def test_an_order_of_somebody_else_is_not_found(database_dsn: str) -> None:
    async with front(database_dsn) as here:
        await here.ok("PUT", ME, {})
        await here.ok("PUT", "/customers/7", {})
        order = await here.ok("POST", f"{ME}/orders", {"amount": 50000, "idempotency_key": "a"})
        other = f"/customers/7/orders/{order['order_id']}"
        assert (await here.call("GET", other)).status_code == 404
        assert (
            await here.call("POST", f"{other}/invoice", {"provider": "yookassa", "price": 50000})
        ).status_code == 404


async def test_a_repeated_request_is_refused_whoever_sends_it_and_changes_nothing(database_dsn: str) -> None:
    async with front(database_dsn) as here:
        await fund(here, 40000)
        await here.ok("POST", f"{ME}/purchases", {**SEEN, "idempotency_key": "a"})
        repeated = await here.again()
        assert repeated.status_code == 409 and "nonce" in repeated.json()["detail"]
        assert (await here.ok("GET", ME))["balance"] == 40000 - 14900


async def test_a_request_that_a_rule_refused_cannot_be_repeated_by_who_overheard_it(database_dsn: str) -> None:
    async with front(database_dsn) as here:
        await fund(here, 100)
        wish = {**SEEN, "idempotency_key": "a"}
        assert (await here.call("POST", f"{ME}/purchases", wish)).status_code == 402
        await fund(here, 40000)
        assert (await here.again()).status_code == 409
        assert (await here.ok("GET", ME))["balance"] == 40100
        assert (await here.call("POST", f"{ME}/purchases", wish)).status_code == 200


async def test_two_keys_serve_while_a_key_is_rotated_and_a_wrong_one_leaves_no_trace(database_dsn: str) -> None:
    async with front(database_dsn) as here:
        assert (await here.call("PUT", ME, {}, key="next", secret=OTHER_SECRET)).status_code == 200
        for key, secret in (("front", OTHER_SECRET), ("nobody", OTHER_SECRET), ("front", "x" * 32)):
            refused = await here.call("PUT", "/customers/5", {}, key=key, secret=secret)
            assert refused.status_code == 401
            assert refused.headers["content-type"] == "application/problem+json"
        assert await here.harness.value("SELECT count(*) FROM customers") == 1
        assert await here.harness.value("SELECT count(*) FROM shop_nonces") == 1


async def test_what_is_not_served_is_a_problem_like_any_other(database_dsn: str) -> None:
    async with front(database_dsn) as here:
        for method, path, status in (
            ("GET", "/nope", 404),
            ("POST", "/plans", 405),
            ("PATCH", ME, 405),
            ("GET", "", 404),
        ):
            assert (await here.call(method, path)).status_code == status, path
        assert "GET" in (await here.call("POST", "/plans")).headers["allow"]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"{", "not JSON"),
        (b'{"enabled": true, "enabled": false}', "not JSON"),
        (b'{"enabled": NaN}', "not JSON"),
        (b'{"enabled": "\xff"}', "not JSON"),
        (b"[" * 5000, "not JSON"),
        (b"{}", "'enabled' is a required property"),
        (b'{"enabled": 1}', "type: 'boolean'"),
        (b'{"enabled": true, "x": 1}', "allowed are enabled"),
    ],
)
async def test_a_malformed_body_is_refused_by_place(database_dsn: str, raw: bytes, said: str) -> None:
    async with front(database_dsn) as here:
        refused = await here.call("PUT", f"{ME}/auto-renew", raw=raw)
        assert refused.status_code == 400 and said in refused.json()["detail"]


async def test_a_large_body_is_refused_before_it_is_read_whole(database_dsn: str) -> None:
    async with front(database_dsn) as here:
        assert (await here.call("PUT", ME, raw=b" " * 20_000)).status_code == 413


async def test_a_code_that_does_not_lower_the_price_is_not_used_and_the_answers_say_so(database_dsn: str) -> None:
    async with front(database_dsn) as here:
        await here.ok("PUT", ME, {})

        async def offer(tx: Tx) -> None:
            await add_promo(tx, "may", 20, actor="test")
            await set_vip(tx, 1001, True, actor="test")

        await here.harness.run(offer)
        quote = await here.ok("POST", f"{ME}/quote", {**PLAN, "promo": "may"})
        assert (quote["amount"], quote["discount_source"], quote["promo_used"]) == (10430, "vip", False)
        order = await here.ok("POST", f"{ME}/orders", {**PLAN, "promo": "may", "idempotency_key": "a"})
        assert (order["amount"], order["promo_used"]) == (10430, False)
        assert await here.ok("POST", f"{ME}/orders", {**PLAN, "promo": "may", "idempotency_key": "a"}) == order
        assert (await here.ok("POST", f"{ME}/quote", PLAN))["promo_used"] is None
