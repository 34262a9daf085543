"""Prices are data; discounts never add up and round in the customer's disfavour by less than a kopeck."""

import pytest

from db.money import Money
from db.plans import Discount, best_discount, find_plan, price_list
from tests.db.database import Database

LIST = {
    ("basic", 30): 149,
    ("basic", 90): 399,
    ("basic", 180): 749,
    ("basic", 365): 1399,
    ("plus", 30): 299,
    ("plus", 90): 699,
    ("plus", 180): 1199,
    ("plus", 365): 2299,
}


async def test_the_seeded_list_is_the_price_list(database: Database) -> None:
    plans = await database.run(price_list)
    assert {(plan.tariff, plan.days): plan.price for plan in plans} == {
        plan: Money(roubles * 100) for plan, roubles in LIST.items()
    }


async def test_a_changed_price_is_read_at_run_time(database: Database) -> None:
    async with database.connect() as connection:
        await connection.execute("UPDATE prices SET amount = 15900 WHERE tariff = 'basic' AND days = 30")
    assert (await database.run(find_plan, "basic", 30)).price == Money(15900)


@pytest.mark.parametrize(
    ("promo", "vip", "personal", "expected"),
    [
        (None, False, 0, None),
        (None, False, 40, Discount("personal", 40)),
        (None, True, 40, Discount("vip", 30)),
        (5, True, 40, Discount("promo", 5)),
    ],
)
def test_promo_goes_before_vip_before_personal(
    promo: int | None, vip: bool, personal: int, expected: Discount | None
) -> None:
    assert best_discount(promo, is_vip=vip, personal_percent=personal) == expected


@pytest.mark.parametrize(
    ("price", "percent", "left"),
    [(14900, 30, 10430), (14901, 30, 10431), (14900, 99, 6400), (6400, 50, 6400), (5000, 50, 5000)],
)
def test_the_discount_is_floored_and_stops_at_the_smallest_purchase(price: int, percent: int, left: int) -> None:
    assert Discount("promo", percent).off(Money(price)) == Money(left)
