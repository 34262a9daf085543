"""Customers: who they are, whether they can be reached, and the row that serialises all that is done with their money.

Whether a customer can be reached never gates money, nor a later message: who blocked us may have let us in again
without a word.
"""

from collections.abc import Iterable
from datetime import datetime

import attrs

from db.errors import BusinessError, UnknownCustomer
from db.tx import Row, Tx, rows_of

_COLUMNS = (
    "id, telegram_id, language, referrer_id, is_reachable, is_vip, personal_discount_percent, first_paid_at, created_at"
)


@attrs.frozen
class Customer:
    """A customer: one row of `customers`."""

    id: int
    telegram_id: int
    language: str
    referrer_id: int | None
    is_reachable: bool
    is_vip: bool
    personal_discount_percent: int
    first_paid_at: datetime | None
    created_at: datetime


async def add_customer(
    tx: Tx, telegram_id: int, *, language: str = "ru", referrer_telegram_id: int | None = None
) -> Customer:
    """Note an incoming contact: a new customer is added with purses in roubles, a known one becomes reachable again.

    The referrer counts for a new customer only and is final; naming oneself or an unknown person is ignored, because a
    bad invitation link must not keep a customer out. Raises `BusinessError` if the Telegram id is not positive.
    """
    if telegram_id <= 0:
        raise BusinessError(f"a Telegram id is a positive number, not {telegram_id}")
    row = await tx.fetchrow(
        f"""
        WITH customer AS (
            INSERT INTO customers (telegram_id, language, referrer_id)
            VALUES ($1, $2, (SELECT id FROM customers WHERE telegram_id = $3 AND telegram_id <> $1))
            ON CONFLICT (telegram_id) DO UPDATE SET is_reachable = true
            RETURNING {_COLUMNS}
        ), account AS (
            INSERT INTO accounts (kind, customer_id, currency, balance)
            SELECT purse, id, 'RUB', 0 FROM customer CROSS JOIN unnest(ARRAY['paid', 'credit', 'earned', 'debt']) AS purse
            ON CONFLICT (customer_id, kind, currency) DO NOTHING
        )
        SELECT * FROM customer
        """,  # noqa: S608 - our own column list
        telegram_id,
        language,
        referrer_telegram_id,
    )
    assert row is not None, "an upsert returns its row"
    return _customer(row)


async def find_customer(tx: Tx, telegram_id: int) -> Customer:
    """The customer with this Telegram id; raises `UnknownCustomer`."""
    row = await tx.fetchrow(f"SELECT {_COLUMNS} FROM customers WHERE telegram_id = $1", telegram_id)  # noqa: S608 - our own column list
    if row is None:
        raise UnknownCustomer(f"Telegram id {telegram_id}")
    return _customer(row)


async def customer_by_id(tx: Tx, customer_id: int) -> Customer:
    """The customer with this number of ours; raises `UnknownCustomer`."""
    row = await tx.fetchrow(f"SELECT {_COLUMNS} FROM customers WHERE id = $1", customer_id)  # noqa: S608 - our own column list
    if row is None:
        raise UnknownCustomer(f"number {customer_id}")
    return _customer(row)


async def lock_customer(tx: Tx, telegram_id: int) -> Customer:
    """Find the customer and lock the row, for operations on one customer alone. Raises `UnknownCustomer`."""
    row = await tx.fetchrow(
        f"SELECT {_COLUMNS} FROM customers WHERE telegram_id = $1 FOR NO KEY UPDATE",  # noqa: S608 - our own column list
        telegram_id,
    )
    if row is None:
        raise UnknownCustomer(f"Telegram id {telegram_id}")
    return _customer(row)


async def lock_with_referrer(tx: Tx, telegram_id: int) -> Customer:
    """Find the customer and lock the row and the referrer's, for what may reward the referrer. Raises `UnknownCustomer`."""
    return await _lock_with_referrer(tx, "telegram_id = $1", telegram_id, f"Telegram id {telegram_id}")


async def lock_subscriber_with_referrer(tx: Tx, subscription_id: int) -> Customer:
    """The same for the customer of a subscription. Raises `UnknownCustomer` when there is no such subscription."""
    condition = "id = (SELECT customer_id FROM subscriptions WHERE id = $1)"
    return await _lock_with_referrer(tx, condition, subscription_id, f"subscription {subscription_id}")


async def _lock_with_referrer(tx: Tx, condition: str, number: int, what: str) -> Customer:
    row = await tx.fetchrow(
        f"""
        WITH named AS (
            SELECT id, referrer_id FROM customers WHERE {condition}
        ), locked AS (
            SELECT {_COLUMNS} FROM customers
            WHERE id IN (SELECT id FROM named UNION ALL SELECT referrer_id FROM named) ORDER BY id FOR NO KEY UPDATE
        )
        SELECT *, (SELECT count(*) FROM locked)  -- read to its end, so that both are locked
        FROM locked WHERE id = (SELECT id FROM named)
        """,  # noqa: S608 - our own column list and one of two conditions
        number,
    )
    if row is None:
        raise UnknownCustomer(what)
    return _customer(row)


async def lock_customers(tx: Tx, ids: Iterable[int | None]) -> None:
    """Lock the customers' rows in sorted order; every operation on money or entitlements starts with this.

    A pair that refers to each other therefore waits for one another but never dead-locks. `None` is left out.
    """
    await tx.fetch(
        "SELECT FROM customers WHERE id = ANY($1::bigint[]) ORDER BY id FOR NO KEY UPDATE",
        sorted({number for number in ids if number is not None}),
    )


def _customer(row: Row) -> Customer:
    return Customer(
        id=row["id"],
        telegram_id=row["telegram_id"],
        language=row["language"],
        referrer_id=row["referrer_id"],
        is_reachable=row["is_reachable"],
        is_vip=row["is_vip"],
        personal_discount_percent=row["personal_discount_percent"],
        first_paid_at=row["first_paid_at"],
        created_at=row["created_at"],
    )


async def touch_contact_unless_busy(tx: Tx, telegram_id: int) -> bool:
    """Note that the customer wrote to us, whatever it was: reachable again, from now. `False` for an unknown one.

    Never waits: a row that another transaction has locked is left as it is.
    """
    row = await tx.fetchrow(
        """
        WITH free AS MATERIALIZED (
            SELECT id FROM customers WHERE telegram_id = $1 FOR NO KEY UPDATE SKIP LOCKED
        ), touched AS (
            UPDATE customers c SET is_reachable = true FROM free WHERE c.id = free.id
        )
        SELECT EXISTS (SELECT FROM customers WHERE telegram_id = $1) AS is_known
        """,
        telegram_id,
    )
    assert row is not None, "EXISTS has one row"
    return bool(row["is_known"])


async def set_language(tx: Tx, telegram_id: int, language: str) -> bool:
    """Talk to the customer in this language from now on: a code of two letters. `False`: it was so before.

    Raises `UnknownCustomer`, and `BusinessError` for what is no code.
    """
    if not (len(language) == 2 and language.isascii() and language.islower() and language.isalpha()):
        raise BusinessError(f"a language is a code of two small letters such as ru, not {language[:20]!r}")
    customer = await lock_customer(tx, telegram_id)
    if customer.language == language:
        return False
    await tx.execute("UPDATE customers SET language = $2 WHERE id = $1", customer.id, language)
    return True


async def note_unreachable(tx: Tx, customer_id: int, since: datetime) -> bool:
    """Note that a message that was on its way at `since` was refused for good. `False`: the customer has been heard
    of after that, and nothing was written."""
    tag = await tx.execute(
        "UPDATE customers SET is_reachable = false WHERE id = $1 AND contacted_at <= $2", customer_id, since
    )
    return rows_of(tag) == 1
