"""Double entry: written whole, once, never changed; the database itself keeps the rules."""

import pytest
import trio

from db.billing.ledger import Journal, Leg, Purse, balance, move, post
from db.errors import InsufficientFunds, LedgerConflict
from db.money import Money
from tests.db.database import Database


async def credit(database: Database, customer_id: int, amount: int, key: str = "credit") -> None:
    await database.run(
        post, Journal("admin_adjust", key, move("adjustment", Purse(customer_id, "credit"), Money(amount)))
    )


async def test_a_journal_moves_the_balance_by_its_postings(database: Database) -> None:
    customer = await database.add_customer()
    await credit(database, customer.id, 5000)
    await database.run(
        post, Journal("admin_adjust", "buy", move(Purse(customer.id, "credit"), "adjustment", Money(2000)))
    )
    assert await database.run(balance, customer.id) == Money(3000)


async def test_no_purse_falls_below_zero(database: Database) -> None:
    customer = await database.add_customer()
    await credit(database, customer.id, 5000)
    with pytest.raises(InsufficientFunds, match=r"50\.01 RUB"):
        await database.run(
            post, Journal("admin_adjust", "buy", move(Purse(customer.id, "credit"), "adjustment", Money(5001)))
        )
    assert await database.run(balance, customer.id) == Money(5000)


async def test_parallel_debits_never_overdraw(database: Database) -> None:
    customer = await database.add_customer()
    await credit(database, customer.id, 10_000)
    paid: list[int] = []

    async def debit(number: int) -> None:
        try:
            await database.run(
                post,
                Journal("admin_adjust", f"buy-{number}", move(Purse(customer.id, "credit"), "adjustment", Money(3000))),
            )
        except InsufficientFunds:
            return
        paid.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(debit, number)
    assert len(paid) == 3
    assert await database.run(balance, customer.id) == Money(1000)


async def test_one_key_is_posted_once(database: Database) -> None:
    customer = await database.add_customer()
    await credit(database, customer.id, 100, "once")
    with pytest.raises(LedgerConflict, match="'once' was posted before"):
        await credit(database, customer.id, 100, "once")
    assert await database.run(balance, customer.id) == Money(100)


async def test_a_leg_on_an_account_that_does_not_exist_is_refused(database: Database) -> None:
    with pytest.raises(LedgerConflict, match="2 legs, 1 found"):
        await credit(database, 999, 100)


@pytest.mark.parametrize(
    "legs",
    [
        (),
        (Leg("world", Money(1)),),
        (Leg("world", Money(-1)), Leg("revenue", Money(2))),
        (Leg("world", Money(-1)), Leg("revenue", Money(1, "USD"))),
        (Leg("world", Money(0)), Leg("revenue", Money(0))),
    ],
)
def test_an_unbalanced_journal_cannot_be_made(legs: tuple[Leg, ...]) -> None:
    with pytest.raises(ValueError, match="not balanced"):
        Journal("purchase", "key", legs)


@pytest.mark.parametrize(
    ("sql", "complaint"),
    [
        ("INSERT INTO journals (kind, idempotency_key) VALUES ('refund', 'bare')", "0 postings, at least 2"),
        (
            """
            WITH j AS (INSERT INTO journals (kind, idempotency_key) VALUES ('refund', 'bent') RETURNING id)
            INSERT INTO postings (journal_id, account_id, currency, amount)
            SELECT j.id, a.id, 'RUB', CASE kind WHEN 'world' THEN -10 ELSE 9 END FROM j, accounts a
            WHERE kind IN ('world', 'revenue')
            """,
            "does not sum to zero: RUB -1",
        ),
        (
            "INSERT INTO postings (journal_id, account_id, currency, amount) SELECT j.id, a.id, 'RUB', 5 "
            "FROM journals j, accounts a WHERE a.kind = 'revenue'",
            "does not sum to zero: RUB 5",
        ),
        (
            "INSERT INTO postings (journal_id, account_id, currency, amount) SELECT j.id, a.id, 'USD', 5 "
            "FROM journals j, accounts a WHERE a.kind = 'revenue'",
            "postings_account_id_currency_fkey",
        ),
    ],
)
async def test_the_server_refuses_what_is_not_balanced_at_commit(database: Database, sql: str, complaint: str) -> None:
    customer = await database.add_customer()
    await credit(database, customer.id, 100)
    async with database.connect() as connection:
        with pytest.raises(Exception, match=complaint):
            await connection.execute(sql)


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("journals", "note"),
        ("postings", "amount"),
        ("money_in", "amount"),
        ("entitlement_events", "new_end"),
        ("referral_rewards", "amount"),
        ("referral_rules", "hold_days"),
        ("audit", "details"),
    ],
)
async def test_what_is_written_is_never_changed(database: Database, table: str, column: str) -> None:
    await database.add_customer(2002)
    await database.add_customer(1001, referrer=2002)
    await database.buy()
    async with database.connect() as connection:
        for sql in ("UPDATE {0} SET {1} = {1}", "DELETE FROM {0}", "TRUNCATE {0} CASCADE"):
            with pytest.raises(Exception, match="is refused"):
                await connection.execute(sql.format(table, column))
    assert await database.count(table) > 0


@pytest.mark.parametrize("kind", ["paid", "credit", "earned", "debt"])
async def test_a_purse_has_no_floor_and_no_floor_is_ever_lowered(database: Database, kind: str) -> None:
    await database.add_customer()
    async with database.connect() as connection:
        with pytest.raises(Exception, match=r"no floor is ever lowered|purses_have_no_floor"):
            await connection.execute("UPDATE accounts SET balance_floor = -1 WHERE kind = $1", kind)
        with pytest.raises(Exception, match=r"purse_not_below_zero|debt_not_above_zero"):
            await connection.execute(
                "UPDATE accounts SET balance = CASE kind WHEN 'debt' THEN 1 ELSE -1 END WHERE kind = $1", kind
            )


async def test_an_older_program_cannot_post_to_the_one_account_that_purses_have_replaced(database: Database) -> None:
    customer = await database.add_customer()
    async with database.connect() as connection:
        await connection.execute(
            "INSERT INTO accounts (kind, customer_id, currency, balance) VALUES ('customer', $1, 'RUB', 0)", customer.id
        )
        with pytest.raises(Exception, match=r"replaced by the purses paid, credit and earned; .* start the newer one"):
            await connection.execute(
                """
                WITH j AS (INSERT INTO journals (kind, idempotency_key) VALUES ('topup', 'old') RETURNING id)
                INSERT INTO postings (journal_id, account_id, currency, amount)
                SELECT j.id, a.id, 'RUB', CASE kind WHEN 'world' THEN -10 ELSE 10 END FROM j, accounts a
                WHERE kind IN ('world', 'customer')
                """
            )
