"""A front end is told with 429 which limit a customer has reached and when to ask again; it can give up an order."""

from __future__ import annotations

from typing import Any

import pytest

from db.settings import LimitSettings
from tests.actors.shop.front import Front, front
from tests.actors.shop.test_operations import ME, PLAN, SEEN, fund


async def place(here: Front, key: str) -> Any:
    return await here.call("POST", f"{ME}/orders", {**PLAN, "idempotency_key": key})


def assert_limited(answer: Any, setting: str, most: float) -> None:
    assert answer.status_code == 429
    assert answer.headers["content-type"] == "application/problem+json"
    assert setting in answer.json()["detail"]
    assert 1 <= int(answer.headers["retry-after"]) <= most


async def test_five_orders_are_open_and_a_cancelled_one_makes_room(database_dsn: str) -> None:
    async with front(database_dsn) as here:
        await here.ok("PUT", ME, {})
        orders = [(await place(here, f"k{number}")).json()["order_id"] for number in range(5)]
        assert_limited(await place(here, "sixth"), "limits.open_orders", 1800)
        assert (await place(here, "k0")).json()["order_id"] == orders[0], "a repetition opens none"
        gone = await here.ok("DELETE", f"{ME}/orders/{orders[0]}")
        assert (gone["order_id"], gone["state"]) == (orders[0], "cancelled")
        assert await here.ok("DELETE", f"{ME}/orders/{orders[0]}") == gone, "again changes nothing"
        assert (await place(here, "sixth")).status_code == 200
        assert_limited(await place(here, "seventh"), "limits.open_orders", 1800)


async def test_only_ones_own_unpaid_orders_are_cancelled(database_dsn: str) -> None:
    async with front(database_dsn) as here:
        await fund(here, 74900)
        await here.ok("PUT", "/customers/7", {})
        order = (await place(here, "k")).json()["order_id"]
        other = await here.call("DELETE", f"/customers/7/orders/{order}")
        assert other.status_code == 404
        assert (await here.ok("GET", f"{ME}/orders/{order}"))["state"] == "pending"
        paid = await here.ok("POST", f"{ME}/purchases", {**SEEN, "idempotency_key": "p"})
        refused = await here.call("DELETE", f"{ME}/orders/{paid['order_id']}")
        assert refused.status_code == 422
        assert "a refund gives the money back" in refused.json()["detail"]
        for wrong in ("0", "99999", "9223372036854775808", "x", "-1", "1.5"):
            assert (await here.call("DELETE", f"{ME}/orders/{wrong}")).status_code in (400, 404)
        assert (await here.call("DELETE", f"{ME}/orders/{order}", {"why": "x"})).status_code == 400, "it takes no body"
        assert (await here.ok("GET", f"{ME}/orders/{order}"))["state"] == "pending"


async def test_three_new_keys_in_five_minutes(database_dsn: str) -> None:
    async with front(database_dsn) as here:
        await fund(here, 74900)
        await here.ok("POST", f"{ME}/purchases", {**SEEN, "idempotency_key": "p"})
        for number in range(3):
            await here.ok("POST", f"{ME}/reissue", {"idempotency_key": f"r{number}"})
        refused = await here.call("POST", f"{ME}/reissue", {"idempotency_key": "r3"})
        assert_limited(refused, "limits.reissues", 300)
        await here.ok("POST", f"{ME}/reissue", {"idempotency_key": "r0"})
        assert await here.harness.value("SELECT count(*) FROM reissues") == 3


async def test_five_checkouts_a_minute_and_the_same_one_again_is_none(database_dsn: str) -> None:
    async with front(database_dsn) as here:
        await here.ok("PUT", ME, {})
        orders = []
        for number in range(6):
            placed = await here.ok("POST", f"{ME}/orders", {**PLAN, "idempotency_key": f"k{number}"})
            orders.append(placed["order_id"])
            path = f"{ME}/orders/{placed['order_id']}/invoice"
            if number < 5:
                first = await here.ok("POST", path, {"provider": "yookassa", "price": 14900})
                assert await here.ok("POST", path, {"provider": "yookassa", "price": 14900}) == first
                if number == 4:
                    await here.ok("DELETE", f"{ME}/orders/{orders[0]}")  # room for one more order
            else:
                refused = await here.call("POST", path, {"provider": "yookassa", "price": 14900})
                assert_limited(refused, "limits.checkouts", 60)
        assert await here.harness.value("SELECT count(*) FROM invoices") == 5


async def test_one_attempt_to_start_the_trial_an_hour(database_dsn: str) -> None:
    async with front(database_dsn) as here:
        await fund(here, 74900)
        await here.ok("POST", f"{ME}/purchases", {**SEEN, "idempotency_key": "p"})
        first = await here.call("POST", f"{ME}/trial")
        assert first.status_code == 422 and "a subscription that runs" in first.json()["detail"]
        assert_limited(await here.call("POST", f"{ME}/trial"), "limits.trials", 3600)
        assert await here.harness.value("SELECT count(*) FROM trials") == 0


def test_what_a_limit_may_be_is_bounded() -> None:
    for wrong in ({"open_orders": 0}, {"reissues": -1}, {"checkout_seconds": 0.0}, {"trials": 10_001}):
        with pytest.raises(ValueError, match="must be"):
            LimitSettings(**wrong)
