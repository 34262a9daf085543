"""Whether a customer can be reached: what an incoming contact and a refused message say about it.

It never gates money, nor a later message: whoever blocked us may have let us in again without a word.
"""

from datetime import datetime

from db.tx import Tx


async def touch_contact(tx: Tx, telegram_id: int) -> bool:
    """Note that the customer wrote to us, whatever it was: reachable again, from now. ``False`` for an unknown one."""
    tag = await tx.execute("UPDATE customers SET is_reachable = true WHERE telegram_id = $1", telegram_id)
    return tag == "UPDATE 1"


async def touch_contact_unless_busy(tx: Tx, telegram_id: int) -> bool:
    """The same without waiting: a row that another transaction has locked is left as it is. ``False`` for an unknown one."""
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


async def note_unreachable(tx: Tx, customer_id: int, since: datetime) -> bool:
    """Note that a message that was on its way at ``since`` was refused for good. ``False``: the customer has been heard
    of after that, and nothing was written."""
    tag = await tx.execute(
        "UPDATE customers SET is_reachable = false WHERE id = $1 AND contacted_at <= $2", customer_id, since
    )
    return tag == "UPDATE 1"
