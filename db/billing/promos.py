"""Promo codes: reserved by an order, used up by its payment, once per customer.

A payable order holds its code: `max_uses` counts the codes used and the codes held. An order that is paid in time keeps
what it was quoted, also when the code has run out or ended since. An order that expires or is cancelled lets go.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import attrs

from db.errors import BusinessError
from db.tx import Row, Tx, rows_of
from db.work.audit import record_audit


@attrs.frozen
class Promo:
    """One row of `promo_codes`, with how many payable orders hold it."""

    id: int
    code: str
    percent: int
    max_uses: int | None
    """`None`: without limit."""
    uses: int
    reserved: int
    valid_until: datetime | None


@attrs.frozen
class PromoTerms:
    """A promo code's terms as they are now, read under its lock."""

    id: int
    code: str
    percent: int
    max_uses: int | None
    uses: int
    is_over: bool


@attrs.frozen
class UsablePromo:
    """A code that a customer may order with."""

    id: int
    percent: int


async def add_promo(
    tx: Tx, code: str, percent: int, *, max_uses: int | None = None, valid_until: datetime | None = None, actor: str
) -> Promo:
    """Add a code, which is read without regard to case. The same again changes nothing.

    Raises `BusinessError` when the code exists with other terms, or the terms make no sense.
    """
    name = code.strip().lower()
    if not name or any(letter.isspace() for letter in name):
        raise BusinessError(f"a promo code is one word, not {code!r}")
    if not 1 <= percent <= 100:
        raise BusinessError(f"a promo code takes off 1 to 100 percent, not {percent}")
    if max_uses is not None and max_uses < 1:
        raise BusinessError(f"a promo code can be used once or more, not {max_uses} times; leave it out for no limit")
    row = await tx.fetchrow(
        """
        INSERT INTO promo_codes (code, percent, max_uses, valid_until) VALUES ($1, $2, $3, $4)
        ON CONFLICT (code) DO NOTHING RETURNING *, 0 AS reserved
        """,
        name,
        percent,
        max_uses,
        valid_until,
    )
    if row is not None:
        details = {"percent": percent, "max_uses": max_uses, "valid_until": valid_until and valid_until.isoformat()}
        await record_audit(tx, actor, "add_promo", subject=f"promo:{name}", details=details)
        return _promo(row)
    known = await find_promo(tx, name)
    if (known.percent, known.max_uses, known.valid_until) != (percent, max_uses, valid_until):
        raise BusinessError(
            f"promo code {name!r} exists with other terms: {known.percent} %, "
            f"{'any number of' if known.max_uses is None else known.max_uses} uses, until {known.valid_until or 'ever'}"
        )
    return known


async def stop_promo(tx: Tx, code: str, *, actor: str) -> bool:
    """End the code now; orders that hold it keep their price. `False`: it had ended before. Raises `BusinessError`."""
    promo = await find_promo(tx, code)
    tag = await tx.execute(
        """
        UPDATE promo_codes SET valid_until = atlas_now()
        WHERE id = $1 AND (valid_until IS NULL OR valid_until > atlas_now())
        """,
        promo.id,
    )
    if rows_of(tag) == 1:
        await record_audit(tx, actor, "stop_promo", subject=f"promo:{promo.code}")
    return rows_of(tag) == 1


async def list_promos(tx: Tx) -> Sequence[Promo]:
    """Return all promo codes, ordered by code."""
    return [_promo(row) for row in await tx.fetch(f"{_WITH_RESERVED} ORDER BY p.code")]


async def find_promo(tx: Tx, code: str) -> Promo:
    """The code, read without regard to case; raises `BusinessError`."""
    row = await tx.fetchrow(f"{_WITH_RESERVED} WHERE p.code = lower($1)", code.strip())
    if row is None:
        raise BusinessError(f"there is no promo code {code!r}")
    return _promo(row)


async def usable_promo(tx: Tx, code: str, customer_id: int) -> UsablePromo:
    """Whether this customer could order with the code at this moment; reserves nothing. Raises `BusinessError`."""
    return await check_promo(tx, await _terms(tx, code), customer_id)


async def lock_promo(tx: Tx, code: str) -> PromoTerms:
    """Lock the code for an order that is about to hold it; raises `BusinessError` when there is none.

    Another order with the same code waits until this transaction ends, so that the last use is held once.
    """
    return await _terms(tx, code, "FOR NO KEY UPDATE")


async def check_promo(tx: Tx, terms: PromoTerms, customer_id: int) -> UsablePromo:
    """Whether this customer may order with the code; raises `BusinessError` that says why not."""
    held = await tx.fetchrow(
        """
        SELECT count(*) AS orders, max(id) FILTER (WHERE customer_id = $2) AS own_order,
               max(expires_at) FILTER (WHERE customer_id = $2) AS own_until,
               EXISTS (SELECT FROM promo_uses u WHERE u.promo_code_id = $1 AND u.customer_id = $2) AS was_used
        FROM orders WHERE promo_code_id = $1 AND state = 'pending' AND expires_at > atlas_now()
        """,
        terms.id,
        customer_id,
    )
    assert held is not None, "an aggregate has one row"
    if terms.is_over:
        raise BusinessError(f"promo code {terms.code!r} is over")
    if held["was_used"]:
        raise BusinessError(f"promo code {terms.code!r} was used by this customer before")
    if held["own_order"] is not None:
        raise BusinessError(
            f"promo code {terms.code!r} is held by this customer's order {held['own_order']} until "
            f"{held['own_until']:%Y-%m-%d %H:%M} UTC; pay or cancel that order first"
        )
    if terms.max_uses is not None and terms.uses + held["orders"] >= terms.max_uses:
        waiting = f"; {held['orders']} of its uses wait for payment" if held["orders"] else ""
        raise BusinessError(f"promo code {terms.code!r} has been used up{waiting}")
    return UsablePromo(terms.id, terms.percent)


async def use_promo(tx: Tx, order_id: int, promo_code_id: int, customer_id: int) -> None:
    """Count the order's code as used. A code that ran out since the order was opened is honoured."""
    await tx.execute(
        """
        WITH used AS (
            INSERT INTO promo_uses (order_id, promo_code_id, customer_id) VALUES ($1, $2, $3)
        )
        UPDATE promo_codes SET uses = uses + 1 WHERE id = $2
        """,
        order_id,
        promo_code_id,
        customer_id,
    )


_WITH_RESERVED = """
SELECT p.*, (SELECT count(*) FROM orders
             WHERE promo_code_id = p.id AND state = 'pending' AND expires_at > atlas_now()) AS reserved
FROM promo_codes p
"""


async def _terms(tx: Tx, code: str, lock: Literal["", "FOR NO KEY UPDATE"] = "") -> PromoTerms:
    name = code.strip().lower()
    row = await tx.fetchrow(
        f"""
        SELECT id, code, percent, max_uses, uses, coalesce(valid_until <= atlas_now(), false) AS is_over
        FROM promo_codes WHERE code = $1 {lock}
        """,  # noqa: S608 - one of two literals
        name,
    )
    if row is None:
        raise BusinessError(f"there is no promo code {name!r}")
    return PromoTerms(row["id"], row["code"], row["percent"], row["max_uses"], row["uses"], row["is_over"])


def _promo(row: Row) -> Promo:
    return Promo(
        id=row["id"],
        code=row["code"],
        percent=row["percent"],
        max_uses=row["max_uses"],
        uses=row["uses"],
        reserved=row["reserved"],
        valid_until=row["valid_until"],
    )
