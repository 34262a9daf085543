"""What waits for a human is listed, credited or closed, once; money is never left behind."""

import pytest
import trio

from db.billing.cases import Case, close_case, credit_case, find_case, list_cases, open_case
from db.billing.ledger import balance, purses
from db.billing.payment_facts import FinalizePurchase
from db.billing.purchases import finalize_purchase
from db.billing.referrals import paying_friends
from db.errors import BusinessError, UnknownCustomer
from db.money import Money
from tests.db.database import Database


async def parked(database: Database, amount: Money | None = None, charge_id: str = "c1") -> int:
    captured = amount or Money(20000)
    outcome = await database.run(finalize_purchase, FinalizePurchase("test", charge_id, captured, None, 404))
    assert outcome.case_id is not None
    return outcome.case_id


async def credit(database: Database, number: int, telegram_id: int = 1001, amount: Money | None = None) -> Case:
    return await database.run(credit_case, number, telegram_id, actor="operator", amount=amount)


async def test_open_cases_are_listed_with_what_they_hold_oldest_first(database: Database) -> None:
    first = await parked(database)
    second = await parked(database, Money(3, "TON"), "c2")
    found = await database.run(list_cases)
    assert [(case.id, case.suspended, case.captured, case.charge) for case in found] == [
        (first, Money(20000), Money(20000), "test c1"),
        (second, Money(0), Money(3, "TON"), "test c2"),
    ]
    assert [case.id for case in await database.run(list_cases, after=first)] == [second]


async def test_captured_money_is_credited_once_and_rewarded_when_it_is_spent(database: Database) -> None:
    referrer = await database.add_customer(2002)
    customer = await database.add_customer(1001, referrer=2002)
    number = await parked(database)
    cases = []

    async def settle() -> None:
        cases.append(await credit(database, number))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(settle)
    assert {(case.state, case.resolution, case.suspended) for case in cases} == {
        ("closed", "credited to customer 1001", Money(0))
    }
    assert (await database.run(purses, customer.id)).paid == Money(20000)
    assert await database.run(paying_friends, referrer.id) == 0
    assert await database.run(balance, referrer.id) == Money(0)
    assert await database.fetchval("SELECT count(*) FROM outbox WHERE kind = 'balance_credited'") == 1
    with pytest.raises(BusinessError, match=r"was closed by operator at .*credited to customer 1001"):
        await credit(database, number, 2002)
    assert await database.broken_invariants(at_rest=True) == []
    await database.buy_from_balance()
    assert await database.run(balance, referrer.id) == Money(1490)
    assert await database.run(paying_friends, referrer.id) == 1


async def test_a_value_that_nobody_knows_is_said_by_the_operator(database: Database) -> None:
    customer = await database.add_customer()
    number = await parked(database, Money(3_000_000_000, "TON"))
    with pytest.raises(BusinessError, match=r"value of 3\.000000000 TON in roubles is not known"):
        await credit(database, number)
    await credit(database, number, amount=Money(70000))
    assert (await database.run(purses, customer.id)).credit == Money(70000)


async def test_another_amount_than_is_held_is_refused(database: Database) -> None:
    await database.add_customer()
    number = await parked(database)
    with pytest.raises(BusinessError, match=r"holds 200\.00 RUB, and all of it is credited, not 1\.00 RUB"):
        await credit(database, number, amount=Money(100))
    with pytest.raises(UnknownCustomer):
        await credit(database, number, 5)


async def test_a_case_with_money_is_not_just_closed(database: Database) -> None:
    number = await parked(database)
    with pytest.raises(BusinessError, match=r"holds 200\.00 RUB.*refund` sends test c1 back"):
        await database.run(close_case, number, resolution="never mind", actor="operator")


async def test_a_case_without_money_is_closed_once_and_says_how(database: Database) -> None:
    await database.add_customer()
    number = await database.run(open_case, "removal_failed", "key:1:1")
    for _ in range(2):
        closed = await database.run(close_case, number, resolution="removed by hand", actor="operator")
    assert (closed.state, closed.closed_by, closed.resolution) == ("closed", "operator", "removed by hand")
    with pytest.raises(BusinessError, match="was closed by operator"):
        await database.run(close_case, number, resolution="otherwise", actor="operator")
    with pytest.raises(BusinessError, match="about key:2:1, not about captured money"):
        await credit(database, await database.run(open_case, "removal_failed", "key:2:1"))
    with pytest.raises(BusinessError, match="there is no case 99"):
        await database.run(find_case, 99)


async def test_cases_are_kept(database: Database) -> None:
    number = await database.run(open_case, "removal_failed", "key:1:1")
    await database.run(close_case, number, resolution="done", actor="operator")
    async with database.connect() as connection:
        for change in ("DELETE FROM cases", "TRUNCATE cases", "UPDATE cases SET resolution = 'x'"):
            with pytest.raises(Exception, match="is refused"):
                await connection.execute(change)
