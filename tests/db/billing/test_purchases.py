"""Every captured payment ends in exactly one of: entitlement, balance credit, case."""

from datetime import timedelta
from decimal import Decimal

import pytest
import trio

from db.billing.ledger import balance
from db.billing.orders import Quote, open_order, open_topup
from db.billing.payment_facts import PROVIDER, FinalizePurchase, PaymentResult, PurchaseOutcome
from db.billing.purchases import finalize_purchase, record_manual_purchase, record_manual_topup
from db.errors import BusinessError, ChargeConflict, UnknownCustomer, UnknownPeriod, UnknownTariff
from db.money import Money
from db.tx import Tx
from tests.db.database import Database


async def test_a_payment_of_its_order_gives_the_subscription_and_a_pending_key(database: Database) -> None:
    await database.add_customer()
    outcome = await database.buy()
    assert outcome.result is PaymentResult.ENTITLEMENT
    assert not outcome.replayed
    assert await database.fetchval("SELECT state FROM orders") == "paid"
    assert (
        await database.fetchval("SELECT activation_status FROM vpn_keys WHERE key_id = $1", outcome.key_id) == "pending"
    )
    assert await database.fetchval("SELECT expires_at - created_at FROM subscriptions") == timedelta(days=30)
    assert (
        await database.fetchval(
            "SELECT -sum(amount) FROM postings JOIN accounts a ON a.id = account_id WHERE a.kind = 'world'"
        )
        == 14900
    )


async def test_the_same_charge_again_returns_the_first_outcome_and_changes_nothing(database: Database) -> None:
    await database.add_customer()
    first = await database.buy()
    command = FinalizePurchase("test", "charge-1", Money(14900), first.order_id)
    again = await database.run(finalize_purchase, command)
    assert again.replayed
    assert (again.result, again.money_in_id, again.expires_at, again.key_id) == (
        first.result,
        first.money_in_id,
        first.expires_at,
        first.key_id,
    )
    assert await database.count("entitlement_events") == 1
    assert await database.count("journals") == 1


async def test_one_charge_from_eight_connections_at_once_has_one_effect(database: Database) -> None:
    await database.add_customer(2002)
    await database.add_customer(1001, referrer=2002)
    order = await database.run(open_order, 1001, "basic", 30, idempotency_key="click")
    outcomes: list[PurchaseOutcome] = []

    async def report() -> None:
        outcomes.append(await database.run(finalize_purchase, FinalizePurchase("test", "c", Money(14900), order.id)))

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(report)
    assert sorted(outcome.replayed for outcome in outcomes) == [False] + [True] * 7
    assert len({(outcome.expires_at, outcome.key_id) for outcome in outcomes}) == 1
    for table, rows in (("money_in", 1), ("entitlement_events", 1), ("vpn_keys", 1), ("referral_rewards", 1)):
        assert (table, await database.count(table)) == (table, rows)
    assert await database.fetchval("SELECT count(*) FROM journals WHERE kind = 'purchase'") == 1


@pytest.mark.parametrize(
    ("amount", "telegram_id", "words"),
    [
        (Money(14901), 1001, ("149.00 RUB", "149.01 RUB")),
        (Money(14900, "USD"), 1001, ("149.00 RUB", "149.00 USD")),
        (Money(14900), 3003, ("1001", "3003")),
    ],
)
async def test_a_charge_that_comes_back_changed_is_refused_and_both_sides_are_named(
    database: Database, amount: Money, telegram_id: int, words: tuple[str, str]
) -> None:
    await database.add_customer()
    await database.add_customer(3003)
    first = await database.buy()
    with pytest.raises(ChargeConflict) as refused:
        await database.run(finalize_purchase, FinalizePurchase("test", "charge-1", amount, first.order_id, telegram_id))
    assert all(word in str(refused.value) for word in words)
    assert await database.count("money_in") == 1
    assert await database.count("journals") == 1


async def test_another_amount_than_quoted_is_credited_and_the_order_stays_payable(database: Database) -> None:
    customer = await database.add_customer()
    order = await database.run(open_order, 1001, "basic", 30, idempotency_key="click")
    less = await database.run(finalize_purchase, FinalizePurchase("test", "c1", Money(10000), order.id))
    assert (less.result, less.problem, less.credited) == (PaymentResult.BALANCE_CREDIT, "amount", Money(10000))
    assert await database.run(balance, customer.id) == Money(10000)
    exact = await database.run(finalize_purchase, FinalizePurchase("test", "c2", Money(14900), order.id))
    assert exact.result is PaymentResult.ENTITLEMENT


async def test_a_second_payment_of_one_order_is_credited(database: Database) -> None:
    customer = await database.add_customer()
    first = await database.buy()
    second = await database.run(finalize_purchase, FinalizePurchase("test", "c2", Money(14900), first.order_id))
    assert (second.result, second.problem) == (PaymentResult.BALANCE_CREDIT, "duplicate")
    assert await database.run(balance, customer.id) == Money(14900)
    assert await database.count("entitlement_events") == 1


async def test_a_payment_after_the_order_has_ended_is_credited(database: Database) -> None:
    await database.add_customer()
    order = await database.run(open_order, 1001, "basic", 30, idempotency_key="click")
    await database.move_clock(minutes=31)
    late = await database.run(finalize_purchase, FinalizePurchase("test", "c1", Money(14900), order.id))
    assert (late.result, late.problem) == (PaymentResult.BALANCE_CREDIT, "late")


async def test_an_older_order_stays_payable_when_a_newer_one_is_opened(database: Database) -> None:
    await database.add_customer()
    older = await database.run(open_order, 1001, "basic", 30, idempotency_key="first")
    await database.run(open_order, 1001, "plus", 30, idempotency_key="second")
    outcome = await database.run(finalize_purchase, FinalizePurchase("test", "c1", Money(14900), older.id))
    assert outcome.result is PaymentResult.ENTITLEMENT


async def test_a_payment_that_names_no_order_is_credited_to_a_known_payer(database: Database) -> None:
    customer = await database.add_customer()
    orphan = await database.run(finalize_purchase, FinalizePurchase("test", "c1", Money(5000), None, 1001))
    assert (orphan.result, orphan.problem) == (PaymentResult.BALANCE_CREDIT, "orphan")
    assert await database.run(balance, customer.id) == Money(5000)


@pytest.mark.parametrize("amount", [Money(5000), Money(5_000_000, "USDT")])
async def test_a_payment_of_nobody_known_becomes_a_case_and_a_replay_of_it_too(
    database: Database, amount: Money
) -> None:
    command = FinalizePurchase("test", "c1", amount, 404, 9009)
    parked = await database.run(finalize_purchase, command)
    assert (parked.result, parked.problem) == (PaymentResult.CASE, "orphan")
    await database.add_customer(9009)  # who has become a customer since is still the same payer
    again = await database.run(finalize_purchase, command)
    assert (again.replayed, again.case_id) == (True, parked.case_id)
    assert await database.count("cases") == 1


async def test_a_payment_by_somebody_else_becomes_a_case_and_the_order_stays_payable(database: Database) -> None:
    await database.add_customer()
    await database.add_customer(3003)
    order = await database.run(open_order, 1001, "basic", 30, idempotency_key="click")
    parked = await database.run(finalize_purchase, FinalizePurchase("test", "c1", Money(14900), order.id, 3003))
    assert (parked.result, parked.problem) == (PaymentResult.CASE, "payer")
    paid = await database.run(finalize_purchase, FinalizePurchase("test", "c2", Money(14900), order.id, 1001))
    assert paid.result is PaymentResult.ENTITLEMENT


async def test_crypto_is_matched_by_the_quote_and_booked_in_roubles(database: Database) -> None:
    customer = await database.add_customer()
    quote = Quote(Money(1_862_500, "USDT"), Decimal("80.00"))
    order = await database.run(open_order, 1001, "basic", 30, idempotency_key="click", quote=quote)
    paid = await database.run(finalize_purchase, FinalizePurchase("cryptobot", "i1", quote.amount, order.id))
    assert paid.result is PaymentResult.ENTITLEMENT
    assert await database.fetchval("SELECT booked_amount FROM money_in") == 14900
    again = await database.run(open_order, 1001, "basic", 30, idempotency_key="click-2", quote=quote)
    other = await database.run(
        finalize_purchase, FinalizePurchase("cryptobot", "i2", Money(1_000_001, "USDT"), again.id)
    )
    assert other.credited == Money(8000)
    assert await database.run(balance, customer.id) == Money(8000)


async def test_a_topup_is_credited_once_and_rewards_nobody(database: Database) -> None:
    referrer = await database.add_customer(2002)
    customer = await database.add_customer(1001, referrer=2002)
    order = await database.run(open_topup, 1001, Money(100_000), idempotency_key="click")
    command = FinalizePurchase("test", "c1", Money(100_000), order.id)
    assert (await database.run(finalize_purchase, command)).credited == Money(100_000)
    assert (await database.run(finalize_purchase, command)).replayed
    assert await database.run(balance, customer.id) == Money(100_000)
    assert await database.run(balance, referrer.id) == Money(0)
    assert await database.fetchval("SELECT state FROM orders") == "paid"


async def test_customers_who_refer_to_each_other_do_not_deadlock(database: Database) -> None:
    first = await database.add_customer(1001)
    second = await database.add_customer(2002, referrer=1001)
    # Registration cannot make a cycle; data that was taken over from elsewhere can.
    async with database.connect() as connection:
        await connection.execute("UPDATE customers SET referrer_id = $1 WHERE id = $2", second.id, first.id)

    async def pay(telegram_id: int, number: int) -> None:
        await database.buy(telegram_id, charge_id=f"{telegram_id}-{number}")

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(pay, 1001, number)
            nursery.start_soon(pay, 2002, number)
    assert await database.count("referral_rewards") == 8


async def test_parallel_purchases_of_one_customer_add_up(database: Database) -> None:
    await database.add_customer()

    async def pay(number: int) -> None:
        await database.buy(charge_id=f"c{number}")

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(pay, number)
    assert await database.count("subscriptions") == 1
    span = await database.fetchval("SELECT expires_at - created_at FROM subscriptions")
    assert timedelta(days=180) <= span < timedelta(days=180, seconds=30)


async def test_a_purchase_that_fails_half_way_leaves_nothing(database: Database) -> None:
    await database.add_customer()
    order = await database.run(open_order, 1001, "basic", 30, idempotency_key="click")

    async def fail(tx: Tx) -> None:
        await finalize_purchase(tx, FinalizePurchase("test", "c1", Money(14900), order.id))
        raise OSError("the process died here")

    with pytest.raises(OSError, match="died"):
        await database.run(fail)
    for table in ("money_in", "journals", "subscriptions", "vpn_keys", "outbox", "audit"):
        assert (table, await database.count(table)) == (table, 0)


async def test_an_operator_records_a_purchase_in_one_step_and_repeats_it_safely(database: Database) -> None:
    await database.add_customer()
    first = await database.run(record_manual_purchase, 1001, "plus", 90, "manual", "receipt-7", Money(69900))
    again = await database.run(record_manual_purchase, 1001, "plus", 90, "manual", "receipt-7", Money(69900))
    assert (first.result, again.replayed, again.expires_at) == (PaymentResult.ENTITLEMENT, True, first.expires_at)
    with pytest.raises(ChargeConflict, match=r"699\.00 RUB.*700\.00 RUB"):
        await database.run(record_manual_purchase, 1001, "plus", 90, "manual", "receipt-7", Money(70000))
    assert await database.count("orders") == 1


@pytest.mark.parametrize("amount", [Money(0), Money(-5), Money(-14900)])
async def test_nothing_is_sold_for_a_charge_of_nothing(database: Database, amount: Money) -> None:
    await database.add_customer()
    with pytest.raises(BusinessError, match="more than zero"):
        await database.run(record_manual_purchase, 1001, "basic", 30, "manual", "receipt", amount)
    with pytest.raises(BusinessError):
        await database.run(record_manual_topup, 1001, "manual", "receipt", amount)
    for table in ("orders", "money_in", "journals", "subscriptions", "outbox"):
        assert (table, await database.count(table)) == (table, 0)


async def test_a_purchase_without_an_amount_is_of_the_price(database: Database) -> None:
    await database.add_customer()
    bought = await database.run(record_manual_purchase, 1001, "basic", 30, "manual", "receipt")
    assert bought.result is PaymentResult.ENTITLEMENT
    assert await database.fetchval("SELECT amount FROM money_in") == 14900


@pytest.mark.parametrize(
    ("provider", "charge_id", "words"),
    [
        ("manual", "", "needs the provider's id"),
        ("manual", " ", "needs the provider's id"),
        ("manual", "a\0b", "needs the provider's id"),
        ("Manual", "r", "a provider's name is"),
        ("", "r", "a provider's name is"),
        ("bank transfer", "r", "a provider's name is"),
        ("manual\n", "r", "a provider's name is"),
        ("x" * 33, "r", "a provider's name is"),
    ],
)
def test_a_charge_that_could_not_be_told_from_another_is_refused_in_words(
    provider: str, charge_id: str, words: str
) -> None:
    with pytest.raises(BusinessError, match=words):
        FinalizePurchase(provider, charge_id, Money(14900), None)


async def test_the_names_that_providers_may_have_are_those_of_the_table(database: Database) -> None:
    check = await database.fetchval(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'money_in_provider_check'"
    )
    assert f"'^{PROVIDER.pattern}$'" in check


async def test_unknown_names_are_refused_with_the_legal_ones(database: Database) -> None:
    await database.add_customer()
    with pytest.raises(UnknownCustomer) as nobody:
        await database.run(record_manual_purchase, 5, "basic", 30, "manual", "r")
    assert nobody.value.exit_code == 67
    with pytest.raises(UnknownTariff, match=r"did you mean 'plus'.*basic, plus"):
        await database.run(record_manual_purchase, 1001, "pluss", 30, "manual", "r")
    with pytest.raises(UnknownTariff, match=r"no tariff is called 'nope'\. The price list has basic, plus\."):
        await database.run(record_manual_purchase, 1001, "nope", 30, "manual", "r")
    with pytest.raises(UnknownPeriod, match="30 d, 90 d, 180 d, 365 d"):
        await database.run(record_manual_purchase, 1001, "plus", 31, "manual", "r")


async def test_no_uuid_of_a_key_is_in_audit_or_outbox(database: Database) -> None:
    await database.add_customer()
    await database.buy()
    found = await database.fetchval(
        """
        SELECT count(*) FROM vpn_keys k,
            (SELECT details::text AS text FROM audit UNION ALL SELECT payload::text FROM outbox) AS written
        WHERE written.text LIKE '%' || k.uuid::text || '%'
        """
    )
    assert found == 0
