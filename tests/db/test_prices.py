"""Prices, discounts and shares for any amounts: floors go one way, bounds hold, bigger is never less."""

from hypothesis import given
from hypothesis import strategies as st

from db.money import Money
from db.plans import SMALLEST_PURCHASE, VIP_PERCENT, Discount, best_discount
from db.referrals import TIERS, referral_percent

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


@given(st.none() | st.integers(1, 100), st.booleans(), percents)
def test_exactly_one_discount_applies_and_they_never_add_up(promo: int | None, is_vip: bool, personal: int) -> None:
    found = best_discount(promo, is_vip=is_vip, personal_percent=personal)
    if promo is not None:
        assert found == Discount("promo", promo)
    elif is_vip:
        assert found == Discount("vip", VIP_PERCENT)
    else:
        assert found == (Discount("personal", personal) if personal else None)


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
