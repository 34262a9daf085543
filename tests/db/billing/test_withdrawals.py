"""Money that is to be paid out is set aside at once and leaves the reserve by one way only."""

import pytest
import trio

from db.billing.adjustments import adjust_balance
from db.billing.ledger import Purses, balance, purses
from db.billing.referrals import set_hold_days, withdrawable
from db.billing.refunds import refund_charge
from db.billing.withdrawals import (
    Withdrawal,
    approve_withdrawal,
    list_withdrawals,
    masked,
    reject_withdrawal,
    request_withdrawal,
)
from db.errors import BusinessError, InsufficientFunds
from db.money import Money
from tests.db.database import SEAL, Database

CARD = "4111 1111 1111 1234"


async def funded(database: Database, kopecks: int = 100_000) -> int:
    customer = await database.add_customer()
    await database.earn(1001, kopecks)
    return customer.id


async def request(database: Database, kopecks: int = 60_000, key: str = "w") -> Withdrawal:
    return await database.run(
        request_withdrawal,
        1001,
        Money(kopecks),
        destination=CARD,
        idempotency_key=key,
        actor="front_end:test",
        seal=SEAL,
    )


async def held(database: Database, kind: str) -> int:
    total: int = await database.fetchval(
        "SELECT coalesce(sum(p.amount), 0) FROM postings p JOIN accounts a ON a.id = p.account_id WHERE a.kind = $1",
        kind,
    )
    return total


async def test_a_request_reserves_the_money_and_tells_customer_and_operator(database: Database) -> None:
    customer_id = await funded(database)
    found = await request(database)
    assert (found.state, found.amount, found.destination) == ("reserved", Money(60_000), "…1234")
    assert await database.run(balance, customer_id) == Money(40_000)
    assert await held(database, "withdrawal_reserve") == 60_000
    assert await database.fetchval("SELECT count(*) FROM outbox WHERE kind = 'withdrawal_requested'") == 2
    assert await database.run(list_withdrawals) == [found]


async def test_the_same_key_is_one_withdrawal_also_twice_at_once(database: Database) -> None:
    customer_id = await funded(database)
    numbers = []

    async def ask() -> None:
        numbers.append((await request(database)).id)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(ask)
    assert len(set(numbers)) == 1
    assert await database.run(balance, customer_id) == Money(40_000)
    with pytest.raises(BusinessError, match=r"already stands for withdrawal 1 of 600\.00 RUB to …1234"):
        await request(database, 60_001)


@pytest.mark.parametrize("amount", [Money(49_999), Money(0), Money(-60_000), Money(60_000, "USD")])
async def test_less_than_500_roubles_is_refused(database: Database, amount: Money) -> None:
    await funded(database)
    with pytest.raises(BusinessError, match=r"500\.00 RUB or more"):
        await database.run(
            request_withdrawal, 1001, amount, destination=CARD, idempotency_key="w", actor="front_end:test", seal=SEAL
        )


async def test_more_than_the_balance_is_refused_and_nothing_is_reserved(database: Database) -> None:
    customer_id = await funded(database)
    with pytest.raises(InsufficientFunds):
        await request(database, 100_001)
    assert await database.run(balance, customer_id) == Money(100_000)
    assert await database.count("withdrawals") == 0


async def test_an_approved_one_leaves_for_outside_once(database: Database) -> None:
    await funded(database)
    found = await request(database)
    brought = await held(database, "world")
    for _ in range(2):
        paid = await database.run(
            approve_withdrawal, found.id, actor="operator", reference="bank 77", second_above=None
        )
    assert (paid.state, paid.reference, paid.settled_by) == ("paid", "bank 77", "operator")
    assert (await held(database, "withdrawal_reserve"), await held(database, "world") - brought) == (0, 60_000)
    with pytest.raises(BusinessError, match=r"was paid by operator at .* \(bank 77\)"):
        await database.run(reject_withdrawal, found.id, actor="operator", reason="no")
    with pytest.raises(BusinessError, match="was paid"):
        await database.run(approve_withdrawal, found.id, actor="operator", reference="bank 78", second_above=None)


async def test_a_rejected_one_is_back_on_the_balance(database: Database) -> None:
    customer_id = await funded(database)
    found = await request(database)
    for _ in range(2):
        await database.run(reject_withdrawal, found.id, actor="operator", reason="the card is blocked")
    assert await database.run(balance, customer_id) == Money(100_000)
    assert await held(database, "withdrawal_reserve") == 0
    payload = await database.fetchval("SELECT payload->>'reason' FROM outbox WHERE kind = 'withdrawal_rejected'")
    assert payload == "the card is blocked"


async def test_of_approval_and_rejection_at_once_one_wins(database: Database) -> None:
    customer_id = await funded(database)
    found = await request(database)
    refused = []

    async def settle(approve: bool) -> None:
        try:
            if approve:
                await database.run(approve_withdrawal, found.id, actor="a", reference="bank 77", second_above=None)
            else:
                await database.run(reject_withdrawal, found.id, actor="b", reason="no")
        except BusinessError as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(settle, True)
        nursery.start_soon(settle, False)
    assert len(refused) == 1
    paid = await database.fetchval("SELECT state = 'paid' FROM withdrawals")
    assert await database.run(balance, customer_id) == (Money(40_000) if paid else Money(100_000))


async def test_a_settled_one_is_final_in_the_database(database: Database) -> None:
    await funded(database)
    found = await request(database)
    async with database.connect() as connection:
        with pytest.raises(Exception, match="leaves the reserve once"):
            await connection.execute("UPDATE withdrawals SET amount = 1")
        await database.run(approve_withdrawal, found.id, actor="operator", reference="bank 77", second_above=None)
        for change in (
            "UPDATE withdrawals SET state = 'reserved'",
            "DELETE FROM withdrawals",
            "TRUNCATE withdrawals CASCADE",
        ):
            with pytest.raises(Exception, match="is refused"):
                await connection.execute(change)


async def test_the_destination_is_in_no_message_and_no_audit_entry(database: Database) -> None:
    await funded(database)
    found = await request(database)
    assert CARD not in repr(found)
    written = await database.fetchval(
        "SELECT string_agg(t, ' ') FROM (SELECT details::text AS t FROM audit UNION ALL SELECT payload::text FROM outbox) x"
    )
    assert CARD not in written
    assert "…1234" in written
    assert masked("short") == "…"


async def test_words_are_needed(database: Database) -> None:
    await funded(database)
    found = await request(database)
    with pytest.raises(BusinessError, match="names the payment out"):
        await database.run(approve_withdrawal, found.id, actor="operator", reference=" ", second_above=None)
    with pytest.raises(BusinessError, match="says why"):
        await database.run(reject_withdrawal, found.id, actor="operator", reason="")
    with pytest.raises(BusinessError, match="says where"):
        await database.run(
            request_withdrawal,
            1001,
            Money(60_000),
            destination=" ",
            idempotency_key="x",
            actor="front_end:test",
            seal=SEAL,
        )
    with pytest.raises(BusinessError, match="no withdrawal 99"):
        await database.run(approve_withdrawal, 99, actor="operator", reference="bank", second_above=None)


async def test_only_what_was_earned_and_is_not_held_back_can_be_withdrawn(database: Database) -> None:
    customer = await database.add_customer()
    await database.topup(1001, 500_000)
    await database.run(adjust_balance, 1001, Money(100_000), reason="x", actor="operator", idempotency_key="a")
    with pytest.raises(
        InsufficientFunds, match=r"0\.00 RUB can be withdrawn, less than 600\.00 RUB: 0\.00 RUB were earned"
    ):
        await request(database)
    await database.earn(1001, 100_000, hold_days=14)
    with pytest.raises(
        InsufficientFunds, match=r"0\.00 RUB can .* of which 1000\.00 RUB are held back, the first until .* UTC"
    ):
        await request(database)
    await database.move_clock(days=13.99)
    with pytest.raises(InsufficientFunds):
        await request(database)
    await database.move_clock(days=14.01)
    await request(database)
    assert await database.run(purses, customer.id) == Purses(Money(500_000), Money(100_000), Money(40_000), Money(0))
    assert (await database.run(withdrawable, customer.id)).amount == Money(40_000)


async def test_a_reward_that_is_held_back_and_half_taken_back_holds_back_the_other_half(database: Database) -> None:
    customer = await database.add_customer()
    await database.earn(1001, 100_000)
    await database.earn(1001, 80_000, hold_days=14)
    await database.run(
        refund_charge, "test", "friend-1001-1", amount=Money(400_000), actor="operator", idempotency_key="r"
    )
    found = await database.run(withdrawable, customer.id)
    assert (found.amount, found.earned, found.unmatured) == (Money(100_000), Money(140_000), Money(40_000))
    with pytest.raises(InsufficientFunds):
        await request(database, 100_001)
    await request(database, 100_000)


async def test_the_hold_is_a_setting_and_rewards_keep_the_one_of_their_day(database: Database) -> None:
    customer = await database.add_customer()
    await database.earn(1001, 100_000, hold_days=30)
    assert await database.run(set_hold_days, 30) is False
    assert await database.run(set_hold_days, 0) is True
    assert (await database.run(withdrawable, customer.id)).amount == Money(0)
    assert await database.count("referral_rules") == 3
    await database.move_clock(days=30.01)
    assert (await database.run(withdrawable, customer.id)).amount == Money(100_000)


async def test_what_is_held_back_is_told_by_its_first_day_and_not_what_was_taken_back_whole(database: Database) -> None:
    customer = await database.add_customer()
    await database.earn(1001, 10_000, hold_days=2)
    await database.earn(1001, 20_000, hold_days=9)
    await database.earn(1001, 30_000, hold_days=5)
    await database.run(refund_charge, "test", "friend-1001-0", actor="operator", idempotency_key="r")
    found = await database.run(withdrawable, customer.id)
    assert found.unmatured == Money(50_000)
    assert found.next_at == await database.fetchval("SELECT matures_at FROM referral_rewards ORDER BY id DESC LIMIT 1")
