"""Prices are data; discounts never add up and round in the customer's disfavour by less than a kopeck."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.billing.pricing import SMALLEST_PURCHASE, VIP_PERCENT, Discount, best_discount, find_plan, price_list
from db.billing.referrals import TIERS, referral_percent
from db.money import Money
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
        (None, True, 40, Discount("personal", 40)),
        (None, True, 20, Discount("vip", 30)),
        (None, True, 30, Discount("vip", 30)),
        (5, True, 40, Discount("personal", 40)),
        (30, True, 0, Discount("vip", 30)),
        (31, True, 0, Discount("promo", 31)),
        (5, False, 5, Discount("personal", 5)),
        (100, True, 99, Discount("personal", 99)),  # both stop at the smallest purchase
        (5, False, 0, Discount("promo", 5)),
    ],
)
def test_the_best_discount_applies_and_of_equal_ones_the_one_that_lasts(
    promo: int | None, vip: bool, personal: int, expected: Discount | None
) -> None:
    assert best_discount(Money(14900), promo, is_vip=vip, personal_percent=personal) == expected


@pytest.mark.parametrize(
    ("price", "percent", "left"),
    [(14900, 30, 10430), (14901, 30, 10431), (14900, 99, 6400), (6400, 50, 6400), (5000, 50, 5000)],
)
def test_the_discount_is_floored_and_stops_at_the_smallest_purchase(price: int, percent: int, left: int) -> None:
    assert Discount("promo", percent).off(Money(price)) == Money(left)


prices = st.integers(1, 10**12)
percents = st.integers(0, 100)


@given(prices, percents)
def test_a_discount_is_floored_and_never_goes_below_the_smallest_purchase(price: int, percent: int) -> None:
    paid = Discount("personal", percent).off(Money(price)).amount
    assert paid == max(price - price * percent // 100, min(price, SMALLEST_PURCHASE.amount))
    assert 0 < paid <= price


@given(prices, percents, percents)
def test_a_bigger_discount_never_costs_more(price: int, one: int, other: int) -> None:
    low, high = sorted((one, other))
    assert Discount("promo", high).off(Money(price)) <= Discount("promo", low).off(Money(price))


@given(prices, st.none() | st.integers(1, 100), st.booleans(), percents)
def test_exactly_one_discount_applies_the_best_and_they_never_add_up(
    price: int, promo: int | None, is_vip: bool, personal: int
) -> None:
    found = best_discount(Money(price), promo, is_vip=is_vip, personal_percent=personal)
    paid = price if found is None else found.off(Money(price)).amount
    percents_offered = [promo or 0, VIP_PERCENT if is_vip else 0, personal]
    least = min(price, SMALLEST_PURCHASE.amount)
    assert paid == max(price - price * max(percents_offered) // 100, least)
    if found is not None and found.source == "promo":
        assert all(max(price - price * other // 100, least) > paid for other in percents_offered[1:])


@given(st.integers(0, 10**6))
def test_the_share_is_that_of_the_last_tier_reached(friends: int) -> None:
    expected = 10 if friends < 25 else 25 if friends < 50 else 45
    assert referral_percent(friends) == expected
    assert referral_percent(friends + 1) >= expected


@given(prices, st.sampled_from([percent for _, percent in TIERS]))
def test_a_share_is_floored_and_never_more_than_its_percentage(amount: int, percent: int) -> None:
    share = Money(amount).percent(percent).amount
    assert share * 100 <= amount * percent < share * 100 + 100


@given(st.lists(prices, min_size=1, max_size=20), st.sampled_from([percent for _, percent in TIERS]))
def test_shares_of_parts_are_never_more_than_the_share_of_the_whole(amounts: list[int], percent: int) -> None:
    parts = sum(Money(amount).percent(percent).amount for amount in amounts)
    assert parts <= Money(sum(amounts)).percent(percent).amount < parts + len(amounts)
