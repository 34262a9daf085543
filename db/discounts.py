"""Discounts that a customer has by standing: VIP, and a personal percentage. Which one applies is in ``db.plans``."""

from db.chronicle import write_down
from db.customers import lock_customer
from db.errors import BusinessError
from db.tx import Tx


async def set_vip(tx: Tx, telegram_id: int, is_vip: bool, *, actor: str) -> bool:
    """Make the customer a VIP, or not; open orders keep their price. ``False``: it was so before.

    Raises ``UnknownCustomer``.
    """
    customer = await lock_customer(tx, telegram_id)
    if customer.is_vip == is_vip:
        return False
    await tx.execute("UPDATE customers SET is_vip = $2 WHERE id = $1", customer.id, is_vip)
    await write_down(tx, actor, "set_vip", customer_id=customer.id, details={"is_vip": is_vip})
    return True


async def set_personal_discount(tx: Tx, telegram_id: int, percent: int, *, actor: str) -> bool:
    """Set the customer's personal discount; 0 ends it, open orders keep their price. ``False``: it was so before.

    Raises ``UnknownCustomer``, and ``BusinessError`` when it is not a whole percentage from 0 to 100.
    """
    if not 0 <= percent <= 100:
        raise BusinessError(f"a discount is from 0 to 100 percent, not {percent}")
    customer = await lock_customer(tx, telegram_id)
    if customer.personal_discount_percent == percent:
        return False
    await tx.execute("UPDATE customers SET personal_discount_percent = $2 WHERE id = $1", customer.id, percent)
    await write_down(
        tx,
        actor,
        "set_personal_discount",
        customer_id=customer.id,
        details={"percent": percent, "before": customer.personal_discount_percent},
    )
    return True
