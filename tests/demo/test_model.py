"""The demo's own idea of what ought to be, by hand-computed examples; and that a difference is never overlooked."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest

from demo.actions import ActionRunner
from demo.customers import PERSONAS, Action, make_population
from demo.figures import Figures, Waits, read_waits
from demo.model import DAY, HOUR, Account, Model, Span
from demo.month import in_turn
from demo.summary import differences

NOW = Span(0.0, 2.0)


def customer(model: Model, telegram_id: int = 1, referrer: int | None = None) -> Account:
    return model.join(telegram_id, referrer)


def test_time_is_additive_and_an_end_equal_to_now_has_passed() -> None:
    model = Model()
    account = customer(model)
    model.purchase(account, ("basic", 30), NOW)
    model.purchase(account, ("plus", 90), Span(10 * DAY, 10 * DAY))
    assert account.end == Span(120 * DAY, 120 * DAY + 2)
    assert account.has_access(120 * DAY - 1)
    assert not account.has_access(120 * DAY)


def test_a_renewal_needs_the_window_and_the_money() -> None:
    model = Model()
    account = customer(model)
    model.purchase(account, ("basic", 30), NOW)
    account.auto_renew = True
    model.settle(30 * DAY - 5 * HOUR)
    assert model.renewals == 0
    model.topup(account, 15_000)
    model.settle(20 * DAY)
    assert model.renewals == 0
    model.settle(30 * DAY - 6 * HOUR)
    assert (model.renewals, account.balance) == (1, 100)
    assert account.end == Span(60 * DAY, 60 * DAY + 2)


def test_each_end_is_reminded_of_at_its_times_and_a_moved_one_anew() -> None:
    model = Model()
    account = customer(model)
    model.purchase(account, ("basic", 30), NOW)
    model.settle(27 * DAY - 1)
    assert model.reminders == 0
    for hours in (72, 24):
        model.settle(30 * DAY - hours * HOUR)
    assert model.reminders == 2
    model.purchase(account, ("basic", 30), Span(29 * DAY + HOUR, 29 * DAY + HOUR))
    model.settle(30 * DAY - 3 * HOUR)
    assert model.reminders == 2
    for hours in (72, 24, 3, 0):
        model.settle(60 * DAY - hours * HOUR)
    assert model.reminders == 5


def test_referrers_get_their_share_of_outside_money_that_buys_access() -> None:
    model = Model()
    referrer = customer(model, 1)
    friend = customer(model, 2, referrer=1)
    model.topup(friend, 29_999)
    assert (referrer.earned, friend.is_paying) == (0, False)
    model.buy_from_balance(friend, ("basic", 30), NOW)
    model.trial(customer(model, 3, referrer=1), NOW)
    assert (referrer.earned, friend.is_paying, friend.paid) == (1_490, True, 15_099)
    model.purchase(friend, ("basic", 30), NOW)
    assert referrer.earned == 2_980
    # What was earned buys access, and earns nobody anything.
    referrer.referrer, referrer.earned = 2, 14_900
    model.buy_from_balance(referrer, ("basic", 30), NOW)
    assert (referrer.earned, referrer.is_paying, friend.earned) == (0, False, 0)
    assert model.revenue == 29_999 + 14_900


def test_a_balance_is_spent_from_what_was_paid_in_then_credits_then_rewards() -> None:
    model = Model()
    account = customer(model)
    account.paid, account.credit, account.earned = 10_000, 4_000, 2_000
    model.buy_from_balance(account, ("basic", 30), NOW)
    assert (account.paid, account.credit, account.earned, account.balance) == (0, 0, 1_100, 1_100)


def test_a_friends_renewal_earns_what_the_referrers_own_renewal_lacked() -> None:
    model = Model()
    referrer, friend = customer(model, 1), customer(model, 2, referrer=1)
    for account in (referrer, friend):
        model.purchase(account, ("basic", 30), NOW)
        account.auto_renew = True
    referrer.earned = 14_900 - 1_490
    model.topup(friend, 14_900)
    model.settle(30 * DAY - 6 * HOUR)
    assert (model.renewals, referrer.earned) == (2, 0)


def test_what_goes_back_takes_its_time_and_its_reward_with_it() -> None:
    model = Model()
    referrer, friend = customer(model, 1), customer(model, 2, referrer=1)
    model.purchase(friend, ("basic", 30), NOW)
    referrer.earned = 490
    model.refund(friend, Span(10 * DAY, 10 * DAY))
    assert (referrer.earned, referrer.debt, friend.is_paying, model.revenue) == (0, -1_000, False, 0)
    assert model.with_access(10 * DAY) == set()
    model.purchase(friend, ("basic", 30), Span(20 * DAY, 20 * DAY))
    assert (referrer.earned, referrer.debt) == (490, 0)
    assert model.compensate(friend, 14_900 * 20 // 30, Span(30 * DAY, 30 * DAY))
    assert (friend.credit, friend.end) == (9_933, Span(30 * DAY, 30 * DAY))


def test_a_chargeback_owes_what_was_used_and_nothing_else() -> None:
    model = Model()
    account = customer(model)
    for owed, is_right in ((4_967, True), (4_990, False)):
        model.topup(account, 14_900)
        model.buy_from_balance(account, ("basic", 30), Span(0.0, 0.0))
        assert model.chargeback(account, owed, Span(10 * DAY, 10 * DAY)) is is_right
        account.end = None
    assert (account.debt, model.revenue, model.given_back) == (-9_957, 0, 29_800)


def test_the_same_seed_makes_the_same_customers() -> None:
    assert make_population(7, 40) == make_population(7, 40)
    assert make_population(7, 40) != make_population(8, 40)


@pytest.mark.parametrize("seed", range(20))
def test_nobody_refers_before_they_came(seed: int) -> None:
    here: set[int] = set()
    for action in make_population(seed, len(PERSONAS) + 30).actions:
        if action.kind == "join":
            assert action.referrer is None or action.referrer in here
            here.add(action.telegram_id)
        assert action.telegram_id in here


def test_every_difference_is_told() -> None:
    right = Figures(0, 0, {}, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.0, 0.0, {}, 0, 0, Waits(0, {}, 0), {})
    assert differences(right, Model(), 0) == []
    wrong = (
        attrs.evolve(right, customers=1),
        attrs.evolve(right, money_from_outside=1),
        attrs.evolve(right, purchases=1),
        attrs.evolve(right, balance_purchases=1),
        attrs.evolve(right, topups=1),
        attrs.evolve(right, credited=1),
        attrs.evolve(right, renewals=1),
        attrs.evolve(right, rewards=1),
        attrs.evolve(right, refunds=1),
        attrs.evolve(right, chargebacks=1),
        attrs.evolve(right, compensations=1),
        attrs.evolve(right, withdrawals=1),
        attrs.evolve(right, notices={"purchase": 1}),
        attrs.evolve(right, undelivered=1),
        attrs.evolve(right, open_cases=1),
    )
    assert [len(differences(each, Model(), 0)) for each in wrong] == [1] * len(wrong)
    assert len(differences(right, Model(), 1)) == 1
    assert len(differences(right, Model(), 0, ["activation"])) == 1


def test_waits_are_added_up_over_pools() -> None:
    read = read_waits(
        "# HELP atlas_lease_wait_spikes_total Requests that waited too long\n"
        'atlas_lease_wait_seconds_bucket{pool="a",le="0.001"} 98\natlas_lease_wait_seconds_bucket{pool="a",le="+Inf"} 99\n'
        'atlas_lease_wait_seconds_bucket{pool="b",le="0.001"} 1\natlas_lease_wait_seconds_bucket{pool="b",le="+Inf"} 1\n'
        'atlas_lease_wait_spikes_total{pool="a",severity="warning"} 2\n'
    )
    assert read == Waits(100, {0.001: 99, math.inf: 100}, 2)
    assert (read.quantile_within(0.99), read.quantile_within(1.0)) == (0.001, math.inf)


def test_friends_of_one_referrer_act_in_turn_and_everybody_else_at_once() -> None:
    model = Model()
    model.join(10, None)
    model.join(11, 1)
    actions = [
        Action(0, 11, "buy"),
        Action(0, 12, "join", referrer=1),
        Action(0, 10, "buy"),
        Action(0, 13, "join", referrer=2),
        Action(1, 12, "buy"),
        Action(1, 10, "topup"),
    ]
    turns = [[(action.telegram_id, action.kind) for action in turn] for turn in in_turn(actions, model)]
    assert turns == [
        [(11, "buy"), (12, "join"), (12, "buy")],
        [(10, "buy"), (10, "topup")],
        [(13, "join")],
    ]


def test_what_a_customer_meets_is_the_seeds_and_not_the_others() -> None:
    def runner(seed: int) -> ActionRunner:
        nobody: Any = None
        return ActionRunner(nobody, nobody, "", nobody, nobody, Model(), seed)

    alone, among = runner(1), runner(1)
    for _ in range(5):
        among._random_of(2).random()
    assert [alone._key(1) for _ in range(3)] == [among._key(1) for _ in range(3)]
    assert runner(1)._key(1) != runner(2)._key(1)
