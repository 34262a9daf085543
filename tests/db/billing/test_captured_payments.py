"""A captured payment always ends in entitlement, balance credit or a visible case, whatever happens in which order."""

import shutil
from collections.abc import Iterator
from decimal import Decimal
from itertools import permutations

import asyncpg
import pytest
import trio
import trio_asyncio

from db.access.subscriptions import get_subscription
from db.billing.cases import list_cases
from db.billing.ledger import balance
from db.billing.orders import Order, Quote, cancel_order, expire_orders, open_order
from db.billing.payment_facts import FinalizePurchase, PaymentResult, PurchaseOutcome
from db.billing.promos import add_promo, find_promo, stop_promo
from db.billing.purchases import finalize_purchase
from db.money import Money
from db.tx import Tx
from tests.db.database import Database
from tests.postgres_cluster import Cluster, temporary_root

PRICE = Money(14900)


async def order(database: Database, key: str = "o", tariff: str = "basic", quote: Quote | None = None) -> Order:
    return await database.run(open_order, 1001, tariff, 30, idempotency_key=key, quote=quote)


async def pay(
    database: Database,
    order_id: int | None,
    charge_id: str = "c1",
    amount: Money = PRICE,
    telegram_id: int | None = None,
) -> PurchaseOutcome:
    return await database.run(finalize_purchase, FinalizePurchase("test", charge_id, amount, order_id, telegram_id))


async def ends(database: Database) -> tuple[int, int, int]:
    """How many entitlements, credits and cases the captured charges have ended in."""
    async with database.connect() as connection:
        row = await connection.fetchrow(
            """
            SELECT (SELECT count(*) FROM entitlement_events WHERE money_in_id IS NOT NULL) AS entitlements,
                   (SELECT count(*) FROM journals WHERE kind IN ('topup', 'payment_credit')) AS credits,
                   (SELECT count(*) FROM cases WHERE money_in_id IS NOT NULL) AS cases
            """
        )
    assert row is not None
    return row["entitlements"], row["credits"], row["cases"]


async def test_late_by_a_microsecond_is_late_and_the_last_moment_is_not(database: Database) -> None:
    await database.add_customer()
    opened = await order(database)

    async def at_the_end(tx: Tx) -> PurchaseOutcome:
        # Inside one transaction the clock stands still: the end is set to it, and then equals now.
        await tx.execute("UPDATE orders SET expires_at = atlas_now() WHERE id = $1", opened.id)
        return await finalize_purchase(tx, FinalizePurchase("test", "c1", PRICE, opened.id))

    async def just_before(tx: Tx) -> PurchaseOutcome:
        await tx.execute(
            "UPDATE orders SET expires_at = atlas_now() + interval '1 microsecond' WHERE id = $1", opened.id
        )
        return await finalize_purchase(tx, FinalizePurchase("test", "c2", PRICE, opened.id))

    late = await database.run(at_the_end)
    assert (late.result, late.problem) == (PaymentResult.BALANCE_CREDIT, "late")
    assert (await database.run(just_before)).result is PaymentResult.ENTITLEMENT


@pytest.mark.parametrize("swept", [False, True])
async def test_an_expired_order_is_credited_whether_or_not_it_was_marked(database: Database, swept: bool) -> None:
    customer = await database.add_customer()
    opened = await order(database)
    await database.move_clock(minutes=31)
    if swept:
        assert await database.run(expire_orders) == 1
    assert (await pay(database, opened.id)).problem == "late"
    assert await database.run(balance, customer.id) == PRICE


async def test_a_cancelled_order_is_credited(database: Database) -> None:
    await database.add_customer()
    opened = await order(database)
    await database.run(cancel_order, opened.id, actor="customer")
    assert (await pay(database, opened.id)).result is PaymentResult.BALANCE_CREDIT


@pytest.mark.parametrize(
    ("amount", "result"),
    [
        (Money(14899), PaymentResult.BALANCE_CREDIT),
        (Money(14901), PaymentResult.BALANCE_CREDIT),
        (Money(1), PaymentResult.BALANCE_CREDIT),
        (Money(14900, "USD"), PaymentResult.CASE),
        (Money(186, "XTR"), PaymentResult.CASE),
    ],
)
async def test_another_amount_is_credited_and_another_currency_is_a_case(
    database: Database, amount: Money, result: PaymentResult
) -> None:
    await database.add_customer()
    opened = await order(database)
    outcome = await pay(database, opened.id, amount=amount)
    assert (outcome.result, outcome.problem) == (result, "amount")
    assert (await pay(database, opened.id, "c2")).result is PaymentResult.ENTITLEMENT, "the order stays payable"


async def test_a_quote_in_crypto_that_is_paid_in_another_crypto_is_a_case(database: Database) -> None:
    await database.add_customer()
    opened = await order(database, quote=Quote(Money(1_862_500, "USDT"), Decimal(80)))
    assert (await pay(database, opened.id, amount=Money(1_862_500, "USDC"))).result is PaymentResult.CASE
    [case] = await database.run(list_cases)
    assert (case.captured, case.telegram_id) == (Money(1_862_500, "USDC"), 1001)


@pytest.mark.parametrize(
    ("telegram_id", "result"),
    [(1001, PaymentResult.BALANCE_CREDIT), (404, PaymentResult.CASE), (None, PaymentResult.CASE)],
)
async def test_an_unknown_order_is_credited_to_a_known_payer_and_otherwise_a_case(
    database: Database, telegram_id: int | None, result: PaymentResult
) -> None:
    await database.add_customer()
    outcome = await pay(database, 999, telegram_id=telegram_id)
    assert (outcome.result, outcome.problem) == (result, "orphan")


@pytest.mark.parametrize("sequence", list(permutations(["older", "newer", "again"])))
async def test_two_open_orders_are_paid_in_any_order_and_a_second_payment_is_credited(
    database: Database, sequence: tuple[str, ...]
) -> None:
    await database.add_customer()
    older, newer = await order(database, "a"), await order(database, "b", "plus")
    bills = {"older": (older.id, PRICE), "newer": (newer.id, Money(29900)), "again": (older.id, PRICE)}
    for name in sequence:
        order_id, amount = bills[name]
        await pay(database, order_id, name, amount)
    assert await ends(database) == (2, 1, 0)
    assert await database.fetchval("SELECT expires_at > atlas_now() + interval '59 days' FROM subscriptions")


async def test_each_charge_ends_once_whatever_the_order_of_reports_and_repetitions(
    database: Database,
) -> None:
    await database.add_customer()
    steps = ["pay", "pay again", "other charge", "expire"]
    async with database.connect() as connection:
        for number, sequence in enumerate(permutations(steps)):
            opened = await open_order(connection, 1001, "basic", 30, idempotency_key=f"o{number}")
            results = {}
            for step in sequence:
                await connection.execute("BEGIN")
                if step == "expire":
                    await connection.execute("UPDATE orders SET expires_at = atlas_now() WHERE id = $1", opened.id)
                    await expire_orders(connection)
                else:
                    charge = f"{'other' if step == 'other charge' else 'own'}-{number}"
                    command = FinalizePurchase("test", charge, PRICE, opened.id)
                    results[step] = (await finalize_purchase(connection, command)).result
                await connection.execute("COMMIT")
            assert results["pay"] is results["pay again"], sequence
            bought = [
                step for step, result in results.items() if result is PaymentResult.ENTITLEMENT and step != "pay again"
            ]
            assert len(bought) == (0 if sequence[0] == "expire" else 1), sequence
    assert sum(await ends(database)) == await database.count("money_in") == 48


async def test_a_promo_that_runs_out_after_the_invoice_is_honoured(database: Database) -> None:
    await database.add_customer()
    await database.run(add_promo, "half", 50, max_uses=1, actor="operator")
    opened = await database.run(open_order, 1001, "basic", 30, idempotency_key="o", promo_code="half")
    await database.run(stop_promo, "half", actor="operator")
    assert (await pay(database, opened.id, amount=opened.price)).result is PaymentResult.ENTITLEMENT
    assert (await database.run(find_promo, "half")).uses == 1


async def test_a_tariff_that_is_sold_no_more_is_still_given_to_who_has_paid_for_it(database: Database) -> None:
    await database.add_customer()
    opened = await order(database)
    async with database.connect() as connection:
        await connection.execute("UPDATE tariffs SET is_sold = false; DELETE FROM prices WHERE tariff = 'basic'")
    assert (await pay(database, opened.id)).result is PaymentResult.ENTITLEMENT


async def test_without_any_vpn_the_access_is_recorded_and_the_key_waits(database: Database) -> None:
    await database.add_customer()
    opened = await order(database)
    assert (await pay(database, opened.id)).result is PaymentResult.ENTITLEMENT
    view = await database.run(get_subscription, 1001)
    assert view is not None
    assert view.key is not None
    assert (view.is_running, view.key.status, view.key.nodes) == (True, "pending", ())


async def test_a_blocked_customer_is_a_customer_all_the_same(database: Database) -> None:
    await database.add_customer()
    opened = await order(database)
    async with database.connect() as connection:
        await connection.execute("UPDATE customers SET is_reachable = false")
    assert (await pay(database, opened.id)).result is PaymentResult.ENTITLEMENT


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    """A server that a test may stop."""
    cluster = Cluster(temporary_root())
    try:
        cluster.initialise()
        cluster.start()
        cluster.template()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(cluster.root, ignore_errors=True)


async def test_after_an_outage_between_receipt_and_booking_the_repetition_books_it(
    own_cluster: Cluster,
) -> None:
    async with trio_asyncio.open_loop():
        database = Database(own_cluster.dsn(own_cluster.create_database(own_cluster.template())))
        await database.add_customer()
        opened = await order(database)
        own_cluster.sql("CHECKPOINT")  # the test's server writes late; what was told to the customer is on disk

        async def dies(tx: Tx) -> None:
            await finalize_purchase(tx, FinalizePurchase("test", "c1", PRICE, opened.id))
            await trio.to_thread.run_sync(own_cluster.stop)

        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await database.run(dies)
        with pytest.raises(OSError, match=r"No such file|refused"):
            await pay(database, opened.id)
        await trio.to_thread.run_sync(own_cluster.start)
        assert await database.count("money_in") == 0
        outcome = await pay(database, opened.id)
        assert (outcome.result, outcome.replayed) == (PaymentResult.ENTITLEMENT, False)
        assert (await pay(database, opened.id)).replayed
        assert await ends(database) == (1, 0, 0)
        assert await database.broken_invariants() == []
