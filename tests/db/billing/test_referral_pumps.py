"""What used to pump money out of the shop earns nothing: money that turns in circles, puppets, and money that goes back."""

import pytest

from db.billing.adjustments import adjust_balance
from db.billing.compensation import compensate
from db.billing.ledger import Purses, purses
from db.billing.referrals import paying_friends, referral_percent, withdrawable
from db.billing.refunds import refund_charge
from db.billing.renewal_schedule import claim_renewals
from db.billing.renewals import RenewalResult, renew, set_auto_renew
from db.billing.withdrawals import reject_withdrawal, request_withdrawal
from db.errors import BusinessError, InsufficientFunds
from db.money import Money
from db.work.claims import enlist_claimer
from tests.db.database import SEAL, Database

NOTHING = Money(0)


async def pair(database: Database) -> tuple[int, int]:
    """A referrer, 2002, and a friend, 1001."""
    referrer = await database.add_customer(2002)
    friend = await database.add_customer(1001, referrer=2002)
    return referrer.id, friend.id


async def give_back(database: Database, charge_id: str, key: str = "r", *, write_off: bool = False) -> Money:
    done = await database.run(
        refund_charge, "test", charge_id, actor="operator", idempotency_key=key, write_off=write_off
    )
    return done.clawed_back


async def test_100_000_roubles_topped_up_and_withdrawn_three_times_earn_nothing(database: Database) -> None:
    referrer, friend = await pair(database)
    for turn in range(3):
        await database.topup(1001, 10_000_000, charge_id=f"turn-{turn}")
        with pytest.raises(InsufficientFunds, match=r"0\.00 RUB can be withdrawn, less than 100000\.00 RUB"):
            await database.run(
                request_withdrawal,
                1001,
                Money(10_000_000),
                destination="card",
                idempotency_key=f"w{turn}",
                actor="front_end:test",
                seal=SEAL,
            )
        await give_back(database, f"turn-{turn}", f"r{turn}")
    assert (await database.run(purses, referrer)).balance == NOTHING
    assert (await database.run(purses, friend)).balance == NOTHING
    assert await database.count("referral_rewards") == 0
    assert await database.run(paying_friends, referrer) == 0


async def test_50_puppets_that_top_up_and_take_it_back_raise_no_tier_and_earn_nothing(database: Database) -> None:
    referrer = await database.add_customer(2002)
    for puppet in range(50):
        await database.add_customer(5000 + puppet, referrer=2002)
        await database.topup(5000 + puppet, 10_000, charge_id=f"puppet-{puppet}")
        if puppet % 2:
            await give_back(database, f"puppet-{puppet}", f"r{puppet}")
    assert await database.run(paying_friends, referrer.id) == 0
    await database.add_customer(1001, referrer=2002)
    await database.buy()
    assert (await database.run(purses, referrer.id)).earned == Money(1490)


async def test_puppets_that_buy_and_take_it_back_leave_no_tier_and_a_debt(
    database: Database,
) -> None:
    referrer = await database.add_customer(2002)
    for puppet in range(25):
        await database.add_customer(5000 + puppet, referrer=2002)
        await database.buy(5000 + puppet, "plus", 365, charge_id=f"puppet-{puppet}")
    # 24 rewards of 10 % and one of 25 % of 2 299 roubles, all of them held back for 14 days.
    earned = 24 * 22_990 + 57_475
    assert (await database.run(withdrawable, referrer.id)).amount == NOTHING
    await database.move_clock(days=14.01)
    await database.run(
        request_withdrawal,
        2002,
        Money(earned),
        destination="card",
        idempotency_key="w",
        actor="front_end:test",
        seal=SEAL,
    )
    for puppet in range(25):
        await give_back(database, f"puppet-{puppet}", f"r{puppet}")
    held = await database.run(purses, referrer.id)
    assert (held.balance, held.debt) == (NOTHING, Money(-earned))
    assert await database.run(paying_friends, referrer.id) == 0
    assert referral_percent(0) == 10
    # The next reward pays the debt; nothing of it can be withdrawn.
    await database.earn(2002, 100_000)
    held = await database.run(purses, referrer.id)
    assert (held.earned, held.debt) == (NOTHING, Money(100_000 - earned))


async def test_rewards_credits_and_gifts_that_are_spent_reward_nobody(database: Database) -> None:
    referrer, friend = await pair(database)
    await database.earn(1001, 14_900)
    await database.run(adjust_balance, 1001, Money(14_900), reason="x", actor="o", idempotency_key="a")
    for key in ("credit", "earned"):
        await database.buy_from_balance(key=key)
    assert (await database.run(purses, friend)).balance == NOTHING
    assert (await database.run(purses, referrer)).balance == NOTHING
    assert await database.run(paying_friends, referrer) == 0


async def test_a_purchase_that_is_compensated_and_bought_again_is_rewarded_once(
    database: Database,
) -> None:
    referrer, friend = await pair(database)
    bought = await database.buy()
    assert bought.subscription_id is not None
    for turn in range(3):
        done = await database.run(compensate, bought.subscription_id, reason="it never worked", actor="o")
        assert done.amount == Money(14_900)
        await database.buy_from_balance(key=f"again-{turn}")
    assert (await database.run(purses, referrer)).earned == Money(1490)
    assert (await database.run(purses, friend)).balance == NOTHING


async def test_the_part_that_was_paid_in_is_rewarded_and_no_other(database: Database) -> None:
    referrer, _ = await pair(database)
    await database.topup(1001, 10_000)
    await database.run(adjust_balance, 1001, Money(10_000), reason="x", actor="o", idempotency_key="a")
    await database.buy_from_balance()
    assert (await database.run(purses, referrer)).earned == Money(1_000)


async def test_a_renewal_rewards_what_was_paid_in_once_a_period(database: Database) -> None:
    referrer, _ = await pair(database)
    await database.buy()
    await database.topup(1001, 14_900)
    await database.run(set_auto_renew, 1001, True, actor="o")
    await database.move_clock(days=29.9)
    [claim] = await database.run(claim_renewals, await database.run(enlist_claimer, "main/auto_renewal"), 50, 60.0)
    assert (await database.run(renew, claim)).result is RenewalResult.RENEWED
    assert (await database.run(renew, claim)).result is RenewalResult.DROPPED
    assert (await database.run(purses, referrer)).earned == Money(2 * 1490)
    assert await database.fetchval("SELECT count(*) FROM outbox WHERE kind = 'referral_reward'") == 2


async def test_a_rejected_withdrawal_gives_earned_money_back_as_earned(database: Database) -> None:
    referrer, _ = await pair(database)
    await database.earn(2002, 60_000)
    found = await database.run(
        request_withdrawal,
        2002,
        Money(60_000),
        destination="card",
        idempotency_key="w",
        actor="front_end:test",
        seal=SEAL,
    )
    await database.run(reject_withdrawal, found.id, actor="o", reason="x")
    assert await database.run(purses, referrer) == Purses(NOTHING, NOTHING, Money(60_000), NOTHING)


async def test_paid_money_leaves_as_a_refund_of_its_charge_and_in_no_other_way(
    database: Database,
) -> None:
    _, friend = await pair(database)
    await database.topup(1001, 20_000)
    await database.buy_from_balance()
    with pytest.raises(BusinessError, match=r"paid money, which holds 51\.00 RUB"):
        await give_back(database, "top")
    assert (await database.run(purses, friend)).paid == Money(5_100)
    with pytest.raises(InsufficientFunds, match=r"the 51\.00 RUB that the customer paid in go back by `atlas refund`"):
        await database.run(adjust_balance, 1001, Money(-100), reason="x", actor="o", idempotency_key="a")
