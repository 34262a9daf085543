"""Subscription links: an address per customer that nobody can guess."""

import secrets

from db.audit import record
from db.customers import find_customer
from db.tx import Tx

TOKEN_BYTES = 24
"""192 bits of chance."""


async def link_token(tx: Tx, telegram_id: int) -> str:
    """The token in the customer's subscription link; made at the first call, the same ever after.

    Raises ``UnknownCustomer``.
    """
    customer = await find_customer(tx, telegram_id)
    await tx.execute(
        "INSERT INTO subscription_links (customer_id, token) VALUES ($1, $2) ON CONFLICT (customer_id) DO NOTHING",
        customer.id,
        secrets.token_urlsafe(TOKEN_BYTES),
    )
    token: str = await tx.fetchval("SELECT token FROM subscription_links WHERE customer_id = $1", customer.id)
    return token


async def reset_link_token(tx: Tx, telegram_id: int, *, actor: str) -> str:
    """Give the customer another token; the old one opens nothing any more. Raises ``UnknownCustomer``."""
    customer = await find_customer(tx, telegram_id)
    token = secrets.token_urlsafe(TOKEN_BYTES)
    await tx.execute(
        """
        INSERT INTO subscription_links (customer_id, token) VALUES ($1, $2)
        ON CONFLICT (customer_id) DO UPDATE SET token = excluded.token, created_at = atlas_now()
        """,
        customer.id,
        token,
    )
    await record(tx, actor, "reset_link", customer_id=customer.id, subject=f"customer:{customer.id}")
    return token


async def owner_of_token(tx: Tx, token: str) -> int | None:
    """The Telegram id of whom the token belongs to, or ``None``."""
    telegram_id: int | None = await tx.fetchval(
        """
        SELECT c.telegram_id FROM subscription_links l JOIN customers c ON c.id = l.customer_id WHERE l.token = $1
        """,
        token,
    )
    return telegram_id
