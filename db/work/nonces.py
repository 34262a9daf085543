"""Nonces of signed requests: each counts once, for as long as its signature would be accepted."""

from datetime import timedelta

from db.tx import Tx, rows_of


async def use_nonce(tx: Tx, key_id: str, nonce: str) -> bool:
    """Note that a request was answered, in the transaction that carries it out. `False`: it was before.

    A request whose transaction fails leaves no nonce: then nothing of it was done, and nothing said about it.
    """
    tag = await tx.execute(
        "INSERT INTO shop_nonces (key_id, nonce) VALUES ($1, $2) ON CONFLICT DO NOTHING", key_id, nonce
    )
    return rows_of(tag) == 1


async def prune_nonces(tx: Tx, older_than: timedelta, limit: int = 1000) -> int:
    """Forget up to `limit` nonces older than this, at least twice the window of signatures; returns how many."""
    tag = await tx.execute(
        """
        DELETE FROM shop_nonces WHERE (key_id, nonce) IN (
            SELECT key_id, nonce FROM shop_nonces WHERE used_at < atlas_now() - $1::interval
            ORDER BY used_at LIMIT $2 FOR UPDATE SKIP LOCKED
        )
        """,
        older_than,
        limit,
    )
    return rows_of(tag)
