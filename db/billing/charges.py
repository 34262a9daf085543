"""Captured charges: recorded once per provider and charge id, compared for ever after."""

from datetime import datetime

import attrs

from db.errors import ChargeConflict
from db.money import Money
from db.tx import Tx


@attrs.frozen
class Charge:
    """A captured charge as it was recorded: one row of `money_in`."""

    id: int
    provider: str
    charge_id: str
    customer_id: int | None
    telegram_id: int | None
    order_id: int | None
    amount: Money
    """What the provider captured, in its asset."""
    booked: Money
    """Its value in the ledger; zero when that is not known."""
    received_at: datetime
    stated: str = ""
    """What came in the provider's words, where `amount` could not hold it."""


@attrs.frozen
class NewCharge:
    """The result of recording a charge that was not known before."""

    money_in_id: int
    pays: bool
    """Its order is paid by it."""


async def record_charge(
    tx: Tx,
    provider: str,
    charge_id: str,
    amount: Money,
    booked: Money,
    *,
    customer_id: int | None,
    order_id: int | None,
    pays: int | None = None,
    stated: str = "",
) -> NewCharge | None:
    """Record the charge, or return `None` if it was recorded before; `pays` is the order that it pays exactly.

    That order is paid by it if it is still pending and its time has not come: an order whose end equals now has ended.
    Of several transactions with the same charge one goes ahead; the others wait here until it ends.
    """
    row = await tx.fetchrow(
        """
        WITH charge AS (
            INSERT INTO money_in (provider, charge_id, customer_id, order_id, amount, asset, booked_amount, booked_currency,
                                  stated)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, nullif($10, ''))
            ON CONFLICT (provider, charge_id) DO NOTHING
            RETURNING id
        ), paid AS (
            UPDATE orders SET state = 'paid', paid_from = 'provider', paid_at = atlas_now()
            WHERE id = $9 AND state = 'pending' AND expires_at > atlas_now() AND EXISTS (SELECT FROM charge)
            RETURNING id
        )
        SELECT id, EXISTS (SELECT FROM paid) AS pays FROM charge
        """,
        provider,
        charge_id,
        customer_id,
        order_id,
        amount.amount,
        amount.currency,
        booked.amount,
        booked.currency,
        pays,
        stated,
    )
    return None if row is None else NewCharge(row["id"], row["pays"])


async def find_charge(tx: Tx, provider: str, charge_id: str) -> Charge | None:
    """The recorded charge with this provider and charge id; `None` if there is none."""
    row = await tx.fetchrow(
        """
        SELECT m.*, c.telegram_id FROM money_in m LEFT JOIN customers c ON c.id = m.customer_id
        WHERE m.provider = $1 AND m.charge_id = $2
        """,
        provider,
        charge_id,
    )
    if row is None:
        return None
    return Charge(
        id=row["id"],
        provider=row["provider"],
        charge_id=row["charge_id"],
        customer_id=row["customer_id"],
        telegram_id=row["telegram_id"],
        order_id=row["order_id"],
        amount=Money(row["amount"], row["asset"]),
        booked=Money(row["booked_amount"], row["booked_currency"]),
        received_at=row["received_at"],
        stated=row["stated"] or "",
    )


def refuse_other_facts(
    charge: Charge, amount: Money, *, telegram_id: int | None, order_id: int | None, stated: str = ""
) -> None:
    """Return if the charge was recorded with these facts; raises `ChargeConflict` naming both sides.

    What either side does not know (`None`) is not compared: a provider may repeat less than it said first, and a
    payer may have become a customer since.
    """
    where = f"{charge.provider} charge {charge.charge_id!r} was recorded at {charge.received_at:%Y-%m-%d %H:%M:%S %Z}"
    if (charge.amount, charge.stated) != (amount, stated):
        raise ChargeConflict(
            f"{where} with {charge.stated or charge.amount} and now comes with {stated or amount}; nothing was changed. "
            "A provider never changes a charge: compare both with its records."
        )
    for what, recorded, now in (
        ("customer with Telegram id", charge.telegram_id, telegram_id),
        ("order", charge.order_id, order_id),
    ):
        if recorded is not None and now is not None and recorded != now:
            raise ChargeConflict(
                f"{where} for {what} {recorded} and now comes for {what} {now}, both with {amount}; nothing was "
                "changed. One charge pays once: find out whose it is."
            )
