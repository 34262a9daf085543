"""Refunds that a provider is asked to make: a row before the question, the books when the answer is yes.

`reserve_refund` writes the row, with the key under which the provider sees a repetition as the same; the provider is
asked over HTTP with no transaction open; `settle_refund` books what it answered. Whoever dies in between leaves a row that
the payment watcher goes on with. What is asked for counts against the charge from the first step on.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Literal

import attrs

from db.billing.cases import open_case
from db.billing.payment_facts import is_name
from db.billing.refunds import refund_charge
from db.errors import BusinessError
from db.money import UNVALUED, Money
from db.tx import Row, Tx, rows_of
from db.work.audit import record_audit
from db.work.claims import Claimer, claimable, claimed, released

RefundState = Literal["asking", "pending", "done", "refused"]
FIRST_LOOK_SECONDS = 30.0
LAST_LOOK_SECONDS = 3600.0


@attrs.frozen
class ProviderRefund:
    """One row of `provider_refunds`, with what a provider needs to know."""

    id: int
    money_in_id: int
    provider: str
    charge_id: str
    idempotency_key: str
    request_key: str
    amount: Money
    """What the provider is to send back, in its asset."""
    booked: Money
    """What the ledger gives back, in roubles."""
    takes_access: bool
    writes_off: bool
    actor: str
    reference: str
    """The provider's name of it; empty until it has answered."""
    state: RefundState
    refund_id: int | None
    """The row of `refunds`, once it is booked."""
    telegram_id: int | None
    """Who paid."""
    order_id: int | None
    receipt_contact: str = attrs.field(repr=False)
    why: str = ""
    """What the provider said last, if it was no."""
    asked_before: bool = False
    """The provider may have been asked already: it is looked for there first."""
    epoch: int | None = None
    """The claim's number; `None` for the command that reserved it."""

    @property
    def is_settled(self) -> bool:
        """Whether the provider has said its last word."""
        return self.state in ("done", "refused")


@attrs.frozen
class RefundAnswer:
    """What a provider says of a refund."""

    state: Literal["done", "pending", "refused"]
    reference: str
    """Its name of the refund; empty if it has none."""
    why: str = ""


async def reserve_refund(
    tx: Tx,
    provider: str,
    charge_id: str,
    *,
    amount: Money | None = None,
    only_whole: bool = False,
    takes_access: bool = True,
    writes_off: bool = False,
    actor: str,
    idempotency_key: str,
) -> ProviderRefund:
    """Write down that the provider is to give a charge back, all that is left of it or `amount` roubles of it.

    It is tried in the books first, and undone there: what they would refuse is refused now, before any money moves. The
    same key again is the same refund; one that the provider refused may be asked for again. Raises BusinessError as
    `refund_charge` does, when other refunds of the charge are on their way, and for a part of a charge if `only_whole`.
    """
    charge = await tx.fetchrow(
        "SELECT * FROM money_in WHERE provider = $1 AND charge_id = $2 FOR NO KEY UPDATE", provider, charge_id
    )
    if charge is None:
        raise BusinessError(f"there is no {provider} charge {charge_id!r}; nothing was asked")
    known = await tx.fetchrow(f"{_REFUNDS} WHERE r.idempotency_key = $1 FOR NO KEY UPDATE OF r", idempotency_key)
    if known is not None:
        return await _again(tx, _refund(known), charge["id"], amount)
    if charge["asset"] == UNVALUED or not charge["booked_amount"]:
        raise BusinessError(
            f"{provider} charge {charge_id!r} has no value in the books: pay it back at the provider by hand and close "
            "its case; nothing was asked"
        )
    booked, value = await _what_is_left(tx, charge, amount)
    if only_whole and value != booked:
        raise BusinessError(
            f"{provider} gives back whole charges only: {charge_id!r} brought {booked}, not {value}; nothing was asked"
        )
    await _try_in_the_books(tx, provider, charge_id, value, actor=actor, revoke=takes_access, write_off=writes_off)
    number = await tx.fetchval(
        """
        INSERT INTO provider_refunds (money_in_id, idempotency_key, amount, asset, booked_amount, booked_currency, takes_access,
                                      writes_off, actor, next_attempt_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, atlas_now() + $10::interval) RETURNING id
        """,
        charge["id"],
        idempotency_key,
        await _in_its_asset(tx, charge, booked, value),
        charge["asset"],
        value.amount,
        value.currency,
        takes_access,
        writes_off,
        actor,
        timedelta(seconds=FIRST_LOOK_SECONDS),
    )
    await record_audit(
        tx,
        actor,
        "ask_for_refund",
        customer_id=charge["customer_id"],
        subject=f"provider_refund:{number}",
        details={
            "provider": provider,
            "money_in": charge["id"],
            "amount": value.amount,
            "takes_access": takes_access,
            "writes_off": writes_off,
        },
    )
    return await find_refund(tx, number)


async def find_refund(tx: Tx, number: int) -> ProviderRefund:
    """Return one by its number. Raises BusinessError."""
    row = await tx.fetchrow(f"{_REFUNDS} WHERE r.id = $1", number)
    if row is None:
        raise BusinessError(f"there is no refund at a provider with number {number}")
    return _refund(row)


async def settle_refund(tx: Tx, refund: ProviderRefund, answer: RefundAnswer) -> ProviderRefund:
    """Write down what the provider answered, and book what it has done; settled before, nothing is changed.

    What the books refuse after all, because they changed since, is a case with its numbers: the money is gone.
    """
    if answer.reference and not is_name(answer.reference):
        raise BusinessError(f"{refund.provider} names a refund in a way that cannot be kept")
    # The charge first, as `refund_charge` locks it.
    await tx.execute("SELECT FROM money_in WHERE id = $1 FOR NO KEY UPDATE", refund.money_in_id)
    row = await tx.fetchrow(f"{_REFUNDS} WHERE r.id = $1 FOR NO KEY UPDATE OF r", refund.id)
    assert row is not None, "refunds at providers are kept"
    current = _refund(row)
    if current.is_settled:
        return current
    booked = await _book(tx, current) if answer.state == "done" else None
    await tx.execute(
        f"""
        UPDATE provider_refunds
        SET state = $2, reference = coalesce(nullif($3, ''), reference), refund_id = $4, last_error = nullif($5, ''),
            settled_at = CASE WHEN $2 IN ('done', 'refused') THEN atlas_now() END,
            next_attempt_at = atlas_now() + $6::interval, {released()}
        WHERE id = $1
        """,  # noqa: S608 - our own fragments
        current.id,
        answer.state,
        answer.reference,
        booked,
        answer.why[:500],
        timedelta(seconds=FIRST_LOOK_SECONDS),
    )
    if answer.state == "refused":
        await record_audit(
            tx,
            refund.provider,
            "refuse_refund",
            subject=f"provider_refund:{current.id}",
            details={"why": answer.why[:200]},
        )
    return await find_refund(tx, current.id)


async def claim_refunds(
    tx: Tx, owner: Claimer, providers: Sequence[str], limit: int, lease_seconds: float
) -> Sequence[ProviderRefund]:
    """Claim up to `limit` refunds at these providers whose outcome is not known yet and that are due, oldest first."""
    rows = await tx.fetch(
        f"""
        WITH due AS MATERIALIZED (
            SELECT r.id FROM provider_refunds r JOIN money_in m ON m.id = r.money_in_id
            WHERE r.state IN ('asking', 'pending') AND r.next_attempt_at <= (SELECT atlas_now())
              AND m.provider = ANY($3::text[]) AND {claimable(of="r.")}
            ORDER BY r.next_attempt_at, r.id LIMIT $4
            FOR NO KEY UPDATE OF r SKIP LOCKED
        )
        UPDATE provider_refunds r SET {claimed("atlas_now() + $5::interval", of="r.")}
        FROM due WHERE r.id = due.id RETURNING r.id
        """,  # noqa: S608 - our own fragments
        owner.name,
        owner.incarnation,
        list(providers),
        limit,
        timedelta(seconds=lease_seconds),
    )
    if not rows:
        return []
    found = await tx.fetch(f"{_REFUNDS} WHERE r.id = ANY($1::bigint[]) ORDER BY r.id", [row["id"] for row in rows])
    return [attrs.evolve(_refund(row), asked_before=True, epoch=row["claim_epoch"]) for row in found]


async def postpone_refund(tx: Tx, refund: ProviderRefund, error: str) -> bool:
    """Ask again later: after half its age, 30 seconds to an hour, jittered. `False`: the claim was lost."""
    tag = await tx.execute(
        f"""
        UPDATE provider_refunds
        SET attempts = attempts + 1, last_error = nullif($3, ''),
            next_attempt_at = atlas_now() + least($5::float8, greatest($4::float8,
                extract(epoch FROM atlas_now() - created_at) / 2)) * (0.75 + random() / 2) * interval '1 second',
            {released()}
        WHERE id = $1 AND ($2::bigint IS NULL OR claim_epoch = $2) AND state IN ('asking', 'pending')
        """,  # noqa: S608 - our own fragments
        refund.id,
        refund.epoch,
        error[:500],
        FIRST_LOOK_SECONDS,
        LAST_LOOK_SECONDS,
    )
    return rows_of(tag) == 1


async def _again(tx: Tx, known: ProviderRefund, money_in_id: int, amount: Money | None) -> ProviderRefund:
    if known.money_in_id != money_in_id or (amount is not None and amount != known.booked):
        raise BusinessError(
            f"key {known.idempotency_key!r} already stands for the refund of {known.booked} of money_in "
            f"{known.money_in_id} at {known.provider}; use a new key for another refund"
        )
    if known.state == "done":
        return known
    if known.state in ("asking", "pending"):
        return attrs.evolve(known, asked_before=True)
    _, left = await _what_is_left(
        tx, await tx.fetchrow("SELECT * FROM money_in WHERE id = $1", money_in_id), known.booked
    )
    await _try_in_the_books(
        tx,
        known.provider,
        known.charge_id,
        left,
        actor=known.actor,
        revoke=known.takes_access,
        write_off=known.writes_off,
    )
    await tx.execute(
        """
        UPDATE provider_refunds
        SET state = 'asking', settled_at = NULL, reference = NULL, request_key = gen_random_uuid()::text,
            next_attempt_at = atlas_now() + $2::interval
        WHERE id = $1
        """,
        known.id,
        timedelta(seconds=FIRST_LOOK_SECONDS),
    )
    return await find_refund(tx, known.id)


async def _what_is_left(tx: Tx, charge: Row | None, amount: Money | None) -> tuple[Money, Money]:
    """What the charge brought in roubles, and how much of it is to go back now."""
    assert charge is not None, "a charge is never deleted"
    booked = Money(charge["booked_amount"], charge["booked_currency"])
    gone = await tx.fetchval(
        """
        SELECT ((SELECT coalesce(sum(amount), 0) FROM refunds WHERE money_in_id = $1)
              + (SELECT coalesce(sum(booked_amount), 0) FROM provider_refunds
                 WHERE money_in_id = $1 AND state IN ('asking', 'pending')))::bigint
        """,
        charge["id"],
    )
    left = Money(booked.amount - gone, booked.currency)
    value = left if amount is None else amount
    if value.currency != booked.currency or not Money(0, booked.currency) < value <= left:
        raise BusinessError(
            f"{charge['provider']} charge {charge['charge_id']!r} brought {booked}; {Money(gone, booked.currency)} of it went "
            f"back or is on its way: {left} can be refunded, not {value}; nothing was asked"
        )
    return booked, value


async def _in_its_asset(tx: Tx, charge: Row, booked: Money, value: Money) -> int:
    """In the captured asset: in proportion, and the last refund takes what the roundings left."""
    before = await tx.fetchrow(
        """
        SELECT coalesce(sum(amount), 0)::bigint AS amount, coalesce(sum(booked_amount), 0)::bigint AS booked
        FROM provider_refunds WHERE money_in_id = $1 AND state <> 'refused'
        """,
        charge["id"],
    )
    assert before is not None
    if before["booked"] + value.amount == booked.amount:
        return int(charge["amount"] - before["amount"])
    part = charge["amount"] * value.amount // booked.amount
    if not part:
        raise BusinessError(f"{value} is less than the smallest unit of {charge['asset']}; nothing was asked")
    return int(part)


async def _try_in_the_books(
    tx: Tx, provider: str, charge_id: str, value: Money, *, actor: str, revoke: bool, write_off: bool
) -> None:
    await tx.execute("SAVEPOINT trial")
    await refund_charge(
        tx,
        provider,
        charge_id,
        amount=value,
        actor=actor,
        idempotency_key=f"a trial of {provider} {charge_id}, undone",
        revoke=revoke,
        write_off=write_off,
    )
    await tx.execute("ROLLBACK TO SAVEPOINT trial")


async def _book(tx: Tx, refund: ProviderRefund) -> int | None:
    """The number of the refund in the books; `None` after a case was opened instead."""
    await tx.execute("SAVEPOINT booking")
    try:
        done = await refund_charge(
            tx,
            refund.provider,
            refund.charge_id,
            amount=refund.booked,
            actor=refund.actor,
            idempotency_key=f"at_provider:{refund.id}",
            revoke=refund.takes_access,
            write_off=refund.writes_off,
        )
    except BusinessError as error:
        await tx.execute("ROLLBACK TO SAVEPOINT booking")
        await open_case(
            tx,
            "provider_refund_unbooked",
            f"provider_refund:{refund.id}",
            details={
                "provider": refund.provider,
                "charge": refund.charge_id,
                "money_in": refund.money_in_id,
                "amount": str(refund.amount),
                "booked": refund.booked.amount,
                "why": str(error)[:300],
            },
        )
        return None
    return done.id


_REFUNDS = """
SELECT r.*, m.provider, m.charge_id, m.order_id, c.telegram_id, o.receipt_contact
FROM provider_refunds r JOIN money_in m ON m.id = r.money_in_id
LEFT JOIN customers c ON c.id = m.customer_id LEFT JOIN orders o ON o.id = m.order_id
"""


def _refund(row: Row) -> ProviderRefund:
    return ProviderRefund(
        id=row["id"],
        money_in_id=row["money_in_id"],
        provider=row["provider"],
        charge_id=row["charge_id"],
        idempotency_key=row["idempotency_key"],
        request_key=row["request_key"],
        amount=Money(row["amount"], row["asset"]),
        booked=Money(row["booked_amount"], row["booked_currency"]),
        takes_access=row["takes_access"],
        writes_off=row["writes_off"],
        actor=row["actor"],
        reference=row["reference"] or "",
        state=row["state"],
        refund_id=row["refund_id"],
        telegram_id=row["telegram_id"],
        order_id=row["order_id"],
        receipt_contact=row["receipt_contact"] or "",
        why=row["last_error"] or "",
        asked_before=row["attempts"] > 0,
    )
