"""A chargeback of spent money takes back what it bought, newest first, and nothing that other money bought."""

from datetime import timedelta

import pytest

from db.auditor.audit import audit
from db.billing.adjustments import adjust_balance
from db.billing.cases import list_cases
from db.billing.compensation import compensate
from db.billing.grants import grant_access
from db.billing.ledger import Purses, purses
from db.billing.refunds import Refund, refund_charge
from db.billing.renewals import renew_now, set_auto_renew
from db.errors import BusinessError
from db.money import Money
from tests.db.database import Database

DAY = timedelta(days=1)
MONTH = 30 * DAY


async def charge_back(
    database: Database, charge_id: str = "top", amount: int | None = None, key: str = "cb", *, write_off: bool = False
) -> Refund:
    part = None if amount is None else Money(amount)
    return await database.run(
        refund_charge,
        "test",
        charge_id,
        amount=part,
        actor="o",
        idempotency_key=key,
        chargeback=True,
        write_off=write_off,
    )


async def held(database: Database) -> Purses:
    number = await database.fetchval("SELECT id FROM customers WHERE telegram_id = 1001")
    return await database.run(purses, number)


async def left(database: Database) -> timedelta:
    rest: timedelta = await database.fetchval("SELECT greatest(expires_at - atlas_now(), '0') FROM subscriptions")
    return rest


async def system(database: Database, kind: str) -> int:
    total: int = await database.fetchval(
        "SELECT coalesce(sum(p.amount), 0)::bigint FROM postings p JOIN accounts a ON a.id = p.account_id WHERE a.kind = $1",
        kind,
    )
    return total


def about(actual: timedelta, expected: timedelta) -> bool:
    return abs(actual - expected) < timedelta(minutes=2)


async def test_a_spent_topup_that_goes_back_at_once_undoes_what_it_bought_and_owes_nothing(database: Database) -> None:
    await database.add_customer()
    await database.topup(1001, 14900)
    await database.buy_from_balance()
    done = await charge_back(database)
    assert done.owed <= Money(1), "a few milliseconds of it were used"
    assert done.taken_back is not None
    assert about(done.taken_back, MONTH)
    assert await left(database) == timedelta(0)
    assert await database.fetchval("SELECT state || ' ' || auto_renew FROM subscriptions") == "revoked false"
    assert await database.fetchval("SELECT activation_status FROM vpn_keys") == "removing"
    assert await system(database, "world") == 0


async def test_what_was_used_is_a_debt_and_the_case_has_the_numbers(database: Database) -> None:
    await database.add_customer()
    await database.topup(1001, 20000)
    await database.buy_from_balance()
    await database.move_clock(days=10)
    done = await charge_back(database)
    assert Money(4966) <= done.owed <= Money(4968), "ten of thirty days of 149.00"
    assert (await held(database)).debt == -done.owed
    assert (await held(database)).paid == Money(0)
    [case] = await database.run(list_cases)
    assert (case.id, case.kind, case.details["owed"], case.details["spent"]) == (
        done.case_id,
        "chargeback",
        done.owed.amount,
        14900,
    )
    assert case.details["took_back_hours"] in (479, 480)
    again = await charge_back(database)
    assert (again.replayed, again.owed, again.taken_back, again.case_id) == (
        True,
        done.owed,
        done.taken_back,
        done.case_id,
    )


async def test_writing_off_is_the_operators_choice_and_leaves_no_debt(database: Database) -> None:
    await database.add_customer()
    await database.topup(1001, 14900)
    await database.buy_from_balance()
    await database.move_clock(days=15)
    done = await charge_back(database, write_off=True)
    assert Money(7449) <= done.written_off <= Money(7451)
    assert (done.owed, (await held(database)).debt) == (Money(0), Money(0))
    assert await left(database) == timedelta(0)


async def test_the_newest_purchases_go_first_and_only_as_many_as_the_money_bought(database: Database) -> None:
    await database.add_customer()
    await database.topup(1001, 14900, charge_id="first")
    await database.buy_from_balance(key="first")
    await database.topup(1001, 14900, charge_id="second")
    await database.buy_from_balance(key="second")
    done = await charge_back(database, "first")
    assert done.taken_back == MONTH
    assert done.owed == Money(0)
    assert about(await left(database), MONTH)
    assert await database.fetchval("SELECT period FROM entitlement_events WHERE kind = 'refund'") == MONTH
    await charge_back(database, "second", key="cb2")
    assert await left(database) == timedelta(0)


@pytest.mark.parametrize("other", ["payment", "gift", "credit"])
async def test_time_that_other_money_bought_is_never_taken(database: Database, other: str) -> None:
    await database.add_customer()
    if other == "payment":
        await database.buy()
    elif other == "gift":
        await database.run(grant_access, 1001, "basic", MONTH, idempotency_key="g", actor="o")
    else:
        await database.run(adjust_balance, 1001, Money(14900), reason="x", actor="o", idempotency_key="x")
        await database.buy_from_balance(key="credit")
    await database.topup(1001, 14900)
    await database.buy_from_balance(key="paid")
    await database.move_clock(days=5)
    done = await charge_back(database)
    assert done.taken_back == MONTH
    assert about(await left(database), 25 * DAY)


async def test_of_a_purchase_that_two_purses_paid_the_share_that_went_back_is_taken(
    database: Database,
) -> None:
    await database.add_customer()
    await database.run(adjust_balance, 1001, Money(4900), reason="x", actor="o", idempotency_key="x")
    await database.topup(1001, 10000)
    await database.buy_from_balance()
    await database.move_clock(days=15)
    done = await charge_back(database)
    assert done.taken_back is not None
    assert about(done.taken_back, 15 * DAY * 10000 / 14900)
    assert about(await left(database), 15 * DAY * 4900 / 14900), "what the credit bought is kept"
    assert Money(4999) <= done.owed <= Money(5001)


async def test_a_charge_that_goes_back_in_parts_ends_as_one_that_goes_back_whole(database: Database) -> None:
    await database.add_customer()
    await database.topup(1001, 14900)
    await database.buy_from_balance()
    await database.move_clock(days=10)
    parts = [await charge_back(database, amount=amount, key=f"{amount}") for amount in (5000, 3000, 6900)]
    owed = sum(part.owed.amount for part in parts)
    assert 4966 <= owed <= 4971
    assert await left(database) == timedelta(0)
    assert (await held(database)).debt == Money(-owed)


async def test_a_renewal_that_the_money_paid_is_undone_like_a_purchase(database: Database) -> None:
    await database.add_customer()
    await database.buy()
    await database.topup(1001, 14900)
    await database.run(set_auto_renew, 1001, True, actor="o")
    await database.move_clock(days=29)
    day = await database.fetchval("SELECT (expires_at AT TIME ZONE 'UTC')::date FROM subscriptions")
    await database.run(renew_now, 1001, day, actor="o")
    done = await charge_back(database)
    assert done.taken_back == MONTH
    assert about(await left(database), DAY)


async def test_a_chargeback_of_a_compensated_purchase_takes_the_compensation_back(database: Database) -> None:
    await database.add_customer()
    await database.buy()
    number = await database.fetchval("SELECT id FROM subscriptions")
    await database.run(compensate, number, reason="x", actor="o")
    assert (await held(database)).credit == Money(14900)
    done = await charge_back(database, "charge-1")
    assert (done.amount, done.owed) == (Money(14900), Money(0))
    assert (await held(database)).balance == Money(0)
    with pytest.raises(BusinessError, match=r"0\.00 RUB can be refunded"):
        await charge_back(database, "charge-1", key="again")


async def test_a_compensation_that_was_spent_is_owed_when_the_charge_goes_back(database: Database) -> None:
    await database.add_customer()
    await database.buy()
    number = await database.fetchval("SELECT id FROM subscriptions")
    await database.run(compensate, number, reason="x", actor="o")
    await database.buy_from_balance()
    done = await charge_back(database, "charge-1", amount=10000)
    assert (done.owed, (await held(database)).debt) == (Money(10000), Money(-10000))
    assert about(await left(database), MONTH), "credit bought it"
    rest = await charge_back(database, "charge-1", key="rest")
    assert (rest.amount, rest.owed) == (Money(4900), Money(4900))
    assert await system(database, "world") == 0


async def test_a_chargeback_of_a_purchase_tells_what_was_used_of_it(database: Database) -> None:
    await database.add_customer()
    await database.buy()
    await database.move_clock(days=20)
    done = await charge_back(database, "charge-1")
    [case] = await database.run(list_cases)
    assert (case.id, case.kind, case.details["took_back_hours"]) == (done.case_id, "chargeback", 239)
    assert (done.owed, await left(database)) == (Money(0), timedelta(0))


async def test_what_is_still_there_goes_back_without_a_case(database: Database) -> None:
    await database.add_customer()
    await database.topup(1001, 14900)
    done = await charge_back(database)
    assert (done.case_id, done.owed, done.taken_back) == (None, Money(0), None)
    assert (await held(database)).balance == Money(0)


async def test_a_debt_is_paid_by_rewards_and_leaves_other_purses_alone(database: Database) -> None:
    await database.add_customer()
    await database.topup(1001, 14900)
    await database.buy_from_balance()
    await database.move_clock(days=30)
    await charge_back(database)
    assert (await held(database)).debt == Money(-14900)
    await database.topup(1001, 10000, charge_id="later")
    assert (await held(database)).paid == Money(10000)
    await database.earn(1001, 20000)
    after = await held(database)
    assert (after.debt, after.earned) == (Money(0), Money(5100))


async def test_parts_too_small_for_a_share_of_the_reward_add_up(database: Database) -> None:
    await database.add_customer(7)
    await database.add_customer(1001, referrer=7)
    await database.topup(1001, 14900)
    await database.buy_from_balance()
    taken = [(await charge_back(database, amount=9, key=f"part {part}")).clawed_back for part in range(3)]
    assert taken == [Money(0), Money(1), Money(1)], "10 % of 9, of 18 and of 27 kopecks"
    lost = await database.fetchval("SELECT array_agg(base || ': ' || amount ORDER BY id) FROM reward_takebacks")
    assert lost == ["9: 0", "9: 1", "9: 1"]
    assert (await database.run(audit)).findings == ()
