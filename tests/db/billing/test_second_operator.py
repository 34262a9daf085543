"""Above a settable sum another person confirms a withdrawal before it is paid, and both see where the money came from."""

import pytest
import trio

from db.billing.orders import open_topup
from db.billing.payment_facts import FinalizePurchase
from db.billing.purchases import finalize_purchase
from db.billing.refunds import refund_charge
from db.billing.withdrawal_sources import money_sources
from db.billing.withdrawals import (
    Withdrawal,
    approve_withdrawal,
    confirm_withdrawal,
    find_withdrawal,
    reject_withdrawal,
    request_withdrawal,
)
from db.errors import BusinessError
from db.money import Money
from db.tx import Tx
from tests.db.database import SEAL, Database

ANNA, BORIS = "operator:anna", "operator:boris"
LIMIT = Money(50_000)


async def asked(database: Database) -> Withdrawal:
    await database.add_customer()
    await database.earn(1001, 100_000)
    return await database.run(
        request_withdrawal,
        1001,
        Money(60_000),
        destination="card 4111111111111234",
        idempotency_key="w",
        actor="front_end:test",
        seal=SEAL,
    )


async def approve(database: Database, actor: str, limit: Money | None = LIMIT) -> Withdrawal:
    return await database.run(approve_withdrawal, 1, actor=actor, reference="bank 1", second_above=limit)


async def test_more_than_the_limit_is_not_paid_without_another_operator(database: Database) -> None:
    await asked(database)
    with pytest.raises(
        BusinessError, match=r"is more than 500\.00 RUB \(withdrawals\.second_operator_above\)"
    ) as refused:
        await approve(database, ANNA)
    assert "another operator than operator:anna runs `atlas withdrawals confirm 1`" in str(refused.value)
    assert (await database.run(find_withdrawal, 1)).state == "reserved"
    await database.run(confirm_withdrawal, 1, actor=BORIS)
    paid = await approve(database, ANNA)
    assert (paid.state, paid.settled_by, paid.confirmed_by) == ("paid", ANNA, (BORIS,))
    assert (await approve(database, ANNA)).state == "paid", "repeating it changes nothing"


async def test_who_asked_for_a_withdrawal_does_not_confirm_it(database: Database) -> None:
    await asked(database)
    with pytest.raises(BusinessError, match="front_end:test asked for withdrawal 1: somebody else confirms it"):
        await database.run(confirm_withdrawal, 1, actor="front_end:test")
    assert (await database.run(find_withdrawal, 1)).confirmed_by == ()
    assert (await database.run(confirm_withdrawal, 1, actor=BORIS)).confirmed_by == (BORIS,)


async def test_ones_own_confirmation_is_none(database: Database) -> None:
    await asked(database)
    for _ in range(2):
        await database.run(confirm_withdrawal, 1, actor=ANNA)
    with pytest.raises(BusinessError, match="one's own confirmation is none"):
        await approve(database, ANNA)
    assert (await approve(database, BORIS)).state == "paid"
    assert await database.fetchval("SELECT count(*) FROM audit WHERE action = 'withdrawal_confirmed'") == 1


@pytest.mark.parametrize("limit", [None, Money(60_000), Money(10**12)])
async def test_up_to_the_limit_one_operator_is_enough(database: Database, limit: Money | None) -> None:
    await asked(database)
    assert (await approve(database, ANNA, limit)).state == "paid"


async def test_two_at_once_pay_once_and_only_with_the_other_ones_word(database: Database) -> None:
    await asked(database)
    ends: list[str] = []

    async def both(me: str) -> None:
        await database.run(confirm_withdrawal, 1, actor=me)
        try:
            ends.append((await approve(database, me)).settled_by or "")
        except BusinessError as error:
            ends.append(str(error))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(both, ANNA)
        nursery.start_soon(both, BORIS)
    assert (await database.run(find_withdrawal, 1)).state in ("paid", "reserved")
    assert await database.fetchval("SELECT count(*) FROM journals WHERE kind = 'withdrawal_paid'") <= 1
    assert len(ends) == 2


async def test_what_is_settled_or_not_there_is_not_confirmed(database: Database) -> None:
    await asked(database)
    with pytest.raises(BusinessError, match="no withdrawal 99"):
        await database.run(confirm_withdrawal, 99, actor=BORIS)
    await database.run(reject_withdrawal, 1, actor=ANNA, reason="no")
    with pytest.raises(BusinessError, match="was rejected by operator:anna; nothing is to be confirmed"):
        await database.run(confirm_withdrawal, 1, actor=BORIS)
    assert await database.count("withdrawal_confirmations") == 0


async def test_a_confirmation_is_kept(database: Database) -> None:
    await asked(database)
    await database.run(confirm_withdrawal, 1, actor=BORIS)
    async with database.connect() as connection:
        for change in (
            "UPDATE withdrawal_confirmations SET operator = 'operator:eve'",
            "DELETE FROM withdrawal_confirmations",
            "TRUNCATE withdrawal_confirmations",
        ):
            with pytest.raises(Exception, match="a confirmation is a fact"):
                await connection.execute(change)


async def test_the_sources_name_kinds_and_buyers_with_what_refunds_took_back(database: Database) -> None:
    referrer = await database.add_customer(1001)
    await database.add_customer(2002, referrer=1001)
    await database.add_customer(3003, referrer=1001)

    async def topup(tx: Tx, telegram_id: int, charge: str, kopecks: int) -> None:
        order = await open_topup(tx, telegram_id, Money(kopecks), idempotency_key=charge)
        await finalize_purchase(tx, FinalizePurchase("test", charge, order.quote.amount, order.id))

    await database.buy(2002, charge_id="friend")
    await database.buy(2002, tariff="plus", charge_id="friend-again")
    await database.buy(3003, charge_id="other")
    await database.run(topup, 1001, "own", 50_000)
    await database.run(
        refund_charge,
        "test",
        "friend-again",
        actor=ANNA,
        idempotency_key="r",
        amount=None,
        revoke=True,
        write_off=False,
    )
    found = await database.run(money_sources, referrer.id)
    assert "topup" not in found.by_kind, "what was paid in cannot be withdrawn"
    assert found.by_kind["referral_reward"] == Money(1490 + 2990 + 1490)
    assert found.by_kind["referral_clawback"] == Money(-2990)
    shown = [(one.telegram_id, one.rewards, one.earned, one.taken_back) for one in found.buyers]
    assert shown == [(2002, 2, Money(4480), Money(2990)), (3003, 1, Money(1490), Money(0))]
    assert found.buyers[0].first_at <= found.buyers[0].last_at
