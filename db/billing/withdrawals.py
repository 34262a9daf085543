"""Withdrawals: money of the balance is set aside at once, and leaves the reserve by one way only, out or back.

The destination (a card, a wallet) is kept for the operator who pays it out; audit entries, messages and lists show its
end only.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import attrs

from db.billing.ledger import Journal, JournalKind, SystemAccount, move, post
from db.customers import lock_customer, lock_customers
from db.errors import BusinessError
from db.money import Money
from db.tx import Row, Tx
from db.work.audit import Notice, record_audit

SMALLEST_WITHDRAWAL = Money(500_00, "RUB")

WithdrawalState = Literal["reserved", "paid", "rejected"]


@attrs.frozen
class Withdrawal:
    """Money that a customer wants paid out: one row of `withdrawals`."""

    id: int
    customer_id: int
    telegram_id: int
    amount: Money
    destination: str = attrs.field(repr=lambda text: masked(text))
    """Where to; in full, for the operator who pays it out."""
    state: WithdrawalState
    created_at: datetime
    settled_at: datetime | None
    settled_by: str | None
    reference: str | None
    """What the payment out is called where it was made."""
    reason: str | None
    """Why it was rejected."""


def masked(destination: str) -> str:
    """The last four characters, which tell its owner which one it is and say nothing to others."""
    return f"…{destination[-4:]}" if len(destination) > 8 else "…"


async def request_withdrawal(
    tx: Tx, telegram_id: int, amount: Money, *, destination: str, idempotency_key: str, actor: str
) -> Withdrawal:
    """Set `amount` of the balance aside until an operator has paid it out or rejected it, and tell both.

    The same key again returns the first withdrawal, whatever its state. Raises `UnknownCustomer`, `InsufficientFunds`,
    and `BusinessError` when it is below 500 RUB, the destination is empty, or the key stands for another one.
    """
    if amount.currency != SMALLEST_WITHDRAWAL.currency or amount < SMALLEST_WITHDRAWAL:
        raise BusinessError(f"a withdrawal is {SMALLEST_WITHDRAWAL} or more, not {amount}")
    where = destination.strip()
    if not where or len(where) > 200:
        raise BusinessError("a withdrawal says where the money goes, in 1 to 200 characters")
    customer = await lock_customer(tx, telegram_id)
    first = await tx.fetchrow(
        f"{_WITHDRAWALS} WHERE w.customer_id = $1 AND w.idempotency_key = $2", customer.id, idempotency_key
    )
    if first is not None:
        known = _withdrawal(first)
        if (known.amount, known.destination) != (amount, where):
            raise BusinessError(
                f"key {idempotency_key!r} already stands for withdrawal {known.id} of {known.amount} to "
                f"{masked(known.destination)}; use a new key"
            )
        return known
    journal_id = await post(
        tx,
        Journal(
            "withdrawal_reserve",
            f"withdrawal:{customer.id}:{idempotency_key}",
            move(customer.id, "withdrawal_reserve", amount),
            customer_id=customer.id,
        ),
    )
    number: int = await tx.fetchval(
        """
        INSERT INTO withdrawals (customer_id, idempotency_key, amount, currency, requisites, reserve_journal_id)
        VALUES ($1, $2, $3, $4, jsonb_build_object('destination', $5::text), $6) RETURNING id
        """,
        customer.id,
        idempotency_key,
        amount.amount,
        amount.currency,
        where,
        journal_id,
    )
    subject = f"withdrawal:{number}"
    payload = {"amount": amount.amount, "currency": amount.currency}
    await record_audit(
        tx,
        actor,
        "request_withdrawal",
        Notice("withdrawal_requested", subject, customer.id, payload),
        Notice("withdrawal_requested", subject, None, {**payload, "telegram_id": telegram_id}),
        customer_id=customer.id,
        subject=subject,
        details={"amount": amount.amount, "destination": masked(where)},
    )
    return await find_withdrawal(tx, number)


async def approve_withdrawal(tx: Tx, withdrawal_id: int, *, actor: str, reference: str) -> Withdrawal:
    """Record that the money has been paid out under `reference`; the same again changes nothing.

    Raises `BusinessError` when there is no such withdrawal, the reference is empty, or it was settled otherwise.
    """
    if not reference.strip():
        raise BusinessError("an approved withdrawal names the payment out, such as the bank's number")
    return await _settle(tx, withdrawal_id, "paid", actor, reference.strip())


async def reject_withdrawal(tx: Tx, withdrawal_id: int, *, actor: str, reason: str) -> Withdrawal:
    """Give the money back to the balance; the same again changes nothing.

    Raises `BusinessError` when there is no such withdrawal, the reason is empty, or it was settled otherwise.
    """
    if not reason.strip():
        raise BusinessError("a rejected withdrawal says why: the customer reads it")
    return await _settle(tx, withdrawal_id, "rejected", actor, reason.strip())


async def list_withdrawals(
    tx: Tx, state: WithdrawalState | None = "reserved", limit: int = 100
) -> Sequence[Withdrawal]:
    """Withdrawals in this state (`None`: in any), the oldest first."""
    rows = await tx.fetch(
        f"{_WITHDRAWALS} WHERE $1::text IS NULL OR w.state = $1 ORDER BY w.created_at, w.id LIMIT $2", state, limit
    )
    return [_withdrawal(row) for row in rows]


async def find_withdrawal(tx: Tx, withdrawal_id: int) -> Withdrawal:
    """One withdrawal; raises `BusinessError` when there is none with this number."""
    row = await tx.fetchrow(f"{_WITHDRAWALS} WHERE w.id = $1", withdrawal_id)
    if row is None:
        raise BusinessError(f"there is no withdrawal {withdrawal_id}")
    return _withdrawal(row)


async def _settle(tx: Tx, withdrawal_id: int, state: Literal["paid", "rejected"], actor: str, text: str) -> Withdrawal:
    found = await find_withdrawal(tx, withdrawal_id)
    await lock_customers(tx, [found.customer_id])
    # Read again under the lock: of two who settle it at once, the second one sees what the first one did.
    found = await find_withdrawal(tx, withdrawal_id)
    if found.state != "reserved":
        message = found.reference if found.state == "paid" else found.reason
        if found.state == state and message == text:
            return found
        raise BusinessError(
            f"withdrawal {withdrawal_id} was {found.state} by {found.settled_by} at "
            f"{found.settled_at:%Y-%m-%d %H:%M} UTC ({message}); money leaves the reserve once"
        )
    kind: JournalKind = "withdrawal_paid" if state == "paid" else "withdrawal_release"
    target: int | SystemAccount = "world" if state == "paid" else found.customer_id
    journal_id = await post(
        tx,
        Journal(
            kind,
            f"withdrawal:{withdrawal_id}:settled",
            move("withdrawal_reserve", target, found.amount),
            customer_id=found.customer_id,
        ),
    )
    await tx.execute(
        """
        UPDATE withdrawals SET state = $2, settle_journal_id = $3, settled_at = atlas_now(), settled_by = $4,
            reference = CASE $2 WHEN 'paid' THEN $5 END, reason = CASE $2 WHEN 'rejected' THEN $5 END
        WHERE id = $1
        """,
        withdrawal_id,
        state,
        journal_id,
        actor,
        text,
    )
    payload: dict[str, object] = {"amount": found.amount.amount, "currency": found.amount.currency}
    if state == "rejected":
        payload["reason"] = text
    action = "withdrawal_approved" if state == "paid" else "withdrawal_rejected"
    await record_audit(
        tx,
        actor,
        action,
        Notice(action, f"withdrawal:{withdrawal_id}", found.customer_id, payload),
        customer_id=found.customer_id,
        subject=f"withdrawal:{withdrawal_id}",
        details={"amount": found.amount.amount, "words": text},
    )
    return await find_withdrawal(tx, withdrawal_id)


_WITHDRAWALS = """
SELECT w.*, w.requisites->>'destination' AS destination, c.telegram_id
FROM withdrawals w JOIN customers c ON c.id = w.customer_id
"""


def _withdrawal(row: Row) -> Withdrawal:
    return Withdrawal(
        id=row["id"],
        customer_id=row["customer_id"],
        telegram_id=row["telegram_id"],
        amount=Money(row["amount"], row["currency"]),
        destination=row["destination"],
        state=row["state"],
        created_at=row["created_at"],
        settled_at=row["settled_at"],
        settled_by=row["settled_by"],
        reference=row["reference"],
        reason=row["reason"],
    )
