"""Withdrawals: earned money is set aside at once, and leaves the reserve by one way only, out or back.

What a customer paid in goes back as a refund of its charge and in no other way, credits are spent; only rewards can be
withdrawn, and of these those that are not held back any more.

The destination (a card, a wallet) is stored sealed and opened for the operator who pays it out, which the audit trail
keeps; audit entries, messages and lists show its end only.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Literal

import attrs

from db.billing.ledger import Journal, JournalKind, Leg, Purse, PurseKind, move, post
from db.billing.referrals import withdrawable
from db.customers import lock_customer, lock_customers
from db.errors import BusinessError, InsufficientFunds
from db.money import Money
from db.tx import Row, Tx, rows_of
from db.work.audit import Notice, record_audit
from db.work.sealing import Seal, SealedText, register_key

SMALLEST_WITHDRAWAL = Money(500_00, "RUB")

WithdrawalState = Literal["reserved", "paid", "rejected"]


@attrs.frozen
class Withdrawal:
    """Money that a customer wants paid out: one row of `withdrawals`."""

    id: int
    customer_id: int
    telegram_id: int
    amount: Money
    destination: str
    """The end of where it goes, such as `…1234`; `open_destination` gives the whole."""
    state: WithdrawalState
    created_at: datetime
    settled_at: datetime | None
    settled_by: str | None
    reference: str | None
    """What the payment out is called where it was made."""
    reason: str | None
    """Why it was rejected."""
    confirmed_by: tuple[str, ...] = ()
    """Operators who have confirmed it, the first one first."""


def masked(destination: str) -> str:
    """The last four characters, which tell its owner which one it is and say nothing to others."""
    return f"…{destination[-4:]}" if len(destination) > 8 else "…"


async def request_withdrawal(
    tx: Tx, telegram_id: int, amount: Money, *, destination: str, idempotency_key: str, actor: str, seal: Seal
) -> Withdrawal:
    """Set `amount` of what the customer earned aside until an operator has paid it out or rejected it, and tell both.

    The destination is stored sealed. The same key again returns the first withdrawal, whatever its state. Raises
    `UnknownCustomer`, `InsufficientFunds`, `SealError` if the seal has not this database's keys, and `BusinessError` when it is
    below 500 RUB, the destination is empty, or the key stands for another one.
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
        if (known.amount, _opened(first, seal)) != (amount, where):
            raise BusinessError(
                f"key {idempotency_key!r} already stands for withdrawal {known.id} of {known.amount} to "
                f"{known.destination}; use a new key"
            )
        return known
    await _refuse_unearned(tx, customer.id, amount)
    await register_key(tx, seal)
    kept = seal.close(where, _about(customer.id, idempotency_key))
    journal_id = await post(
        tx,
        Journal(
            "withdrawal_reserve",
            f"withdrawal:{customer.id}:{idempotency_key}",
            move(Purse(customer.id, "earned"), "withdrawal_reserve", amount),
            customer_id=customer.id,
        ),
    )
    number: int = await tx.fetchval(
        """
        INSERT INTO withdrawals (customer_id, idempotency_key, amount, currency, reserve_journal_id,
                                 destination_sealed, sealed_with, destination_end)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING id
        """,
        customer.id,
        idempotency_key,
        amount.amount,
        amount.currency,
        journal_id,
        kept.sealed,
        kept.sealed_with,
        masked(where),
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


async def confirm_withdrawal(tx: Tx, withdrawal_id: int, *, actor: str) -> Withdrawal:
    """Note that this operator has looked at a withdrawal and agrees that somebody else pays it out.

    The same operator again changes nothing. Raises `BusinessError` when there is no such withdrawal, it was settled, or it was
    this operator who asked for it.
    """
    found = await _lock(tx, withdrawal_id)
    if found.state != "reserved":
        raise BusinessError(
            f"withdrawal {withdrawal_id} was {found.state} by {found.settled_by}; nothing is to be confirmed"
        )
    if await tx.fetchval(
        """
        SELECT EXISTS (SELECT FROM audit
                       WHERE customer_id = $1 AND action = 'request_withdrawal' AND subject = $2 AND actor = $3)
        """,
        found.customer_id,
        f"withdrawal:{withdrawal_id}",
        actor,
    ):
        raise BusinessError(
            f"{actor} asked for withdrawal {withdrawal_id}: somebody else confirms it; nothing was changed"
        )
    tag = await tx.execute(
        "INSERT INTO withdrawal_confirmations (withdrawal_id, operator) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        withdrawal_id,
        actor,
    )
    if rows_of(tag):
        await record_audit(
            tx,
            actor,
            "withdrawal_confirmed",
            customer_id=found.customer_id,
            subject=f"withdrawal:{withdrawal_id}",
            details={"amount": found.amount.amount},
        )
    return await find_withdrawal(tx, withdrawal_id)


def lacks_confirmation(found: Withdrawal, payer: str, second_above: Money | None) -> bool:
    """Whether somebody else than `payer` still has to confirm it, as it is of more than `second_above` (`None`: never)."""
    return second_above is not None and found.amount > second_above and set(found.confirmed_by) <= {payer}


async def approve_withdrawal(
    tx: Tx, withdrawal_id: int, *, actor: str, reference: str, second_above: Money | None
) -> Withdrawal:
    """Record that the money has been paid out under `reference`; the same again changes nothing.

    One of more than `second_above` needs the confirmation of another operator first (`None`: none needs it). Raises
    `BusinessError` when that is missing, there is no such withdrawal, the reference is empty, or it was settled otherwise.
    """
    if not reference.strip():
        raise BusinessError("an approved withdrawal names the payment out, such as the bank's number")
    found = await _lock(tx, withdrawal_id)
    if found.state == "reserved" and lacks_confirmation(found, actor, second_above):
        own = ", and one's own confirmation is none" if found.confirmed_by else ""
        raise BusinessError(
            f"withdrawal {withdrawal_id} of {found.amount} is more than {second_above} "
            f"(withdrawals.second_operator_above): another operator than {actor} runs `atlas withdrawals confirm "
            f"{withdrawal_id}` before it is paid{own}; nothing was changed"
        )
    return await _settle(tx, withdrawal_id, "paid", actor, reference.strip())


async def reject_withdrawal(tx: Tx, withdrawal_id: int, *, actor: str, reason: str) -> Withdrawal:
    """Give the money back to the purses that it came from; the same again changes nothing.

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


async def open_destination(tx: Tx, withdrawal_id: int, seal: Seal, *, actor: str) -> str:
    """Where the money goes, in full, for the operator who pays it out; the audit trail keeps that it was opened, and by whom.

    Raises `BusinessError` when there is no such withdrawal, `SealError` when the seal does not open it.
    """
    row = await tx.fetchrow(f"{_WITHDRAWALS} WHERE w.id = $1", withdrawal_id)
    if row is None:
        raise BusinessError(f"there is no withdrawal {withdrawal_id}")
    where = _opened(row, seal)
    await record_audit(
        tx, actor, "destination_opened", customer_id=row["customer_id"], subject=f"withdrawal:{withdrawal_id}"
    )
    return where


async def seal_destinations(tx: Tx, seal: Callable[[], Seal], limit: int = 100) -> int:
    """Seal up to `limit` destinations that lie in clear, from before they were sealed; returns how many.

    Each page stands for itself: begun again, it goes on with what is left. The clear text is gone from the rows. `seal` is
    asked for the keys only if there is one to be sealed.
    """
    rows = await tx.fetch(
        f"{_WITHDRAWALS} WHERE w.destination_sealed IS NULL ORDER BY w.id LIMIT $1 FOR NO KEY UPDATE OF w SKIP LOCKED",
        limit,
    )
    if not rows:
        return 0
    keys = seal()
    await register_key(tx, keys)
    for row in rows:
        where = row["in_clear"] or ""
        kept = keys.close(where, _about(row["customer_id"], row["idempotency_key"]))
        await tx.execute(
            """
            UPDATE withdrawals
            SET destination_sealed = $2, sealed_with = $3, destination_end = $4, requisites = requisites - 'destination'
            WHERE id = $1
            """,
            row["id"],
            kept.sealed,
            kept.sealed_with,
            masked(where),
        )
    return len(rows)


async def _lock(tx: Tx, withdrawal_id: int) -> Withdrawal:
    found = await find_withdrawal(tx, withdrawal_id)
    await lock_customers(tx, [found.customer_id])
    # Read again under the lock: of two who settle it at once, the second one sees what the first one did.
    return await find_withdrawal(tx, withdrawal_id)


async def _settle(tx: Tx, withdrawal_id: int, state: Literal["paid", "rejected"], actor: str, text: str) -> Withdrawal:
    found = await _lock(tx, withdrawal_id)
    if found.state != "reserved":
        message = found.reference if found.state == "paid" else found.reason
        if found.state == state and message == text:
            return found
        raise BusinessError(
            f"withdrawal {withdrawal_id} was {found.state} by {found.settled_by} at "
            f"{found.settled_at:%Y-%m-%d %H:%M} UTC ({message}); money leaves the reserve once"
        )
    kind: JournalKind = "withdrawal_paid" if state == "paid" else "withdrawal_release"
    journal_id = await post(
        tx,
        Journal(
            kind,
            f"withdrawal:{withdrawal_id}:settled",
            move("withdrawal_reserve", "world", found.amount) if state == "paid" else await _release(tx, found),
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


async def _refuse_unearned(tx: Tx, customer_id: int, amount: Money) -> None:
    found = await withdrawable(tx, customer_id, amount.currency)
    if amount <= found.amount:
        return
    held_back = ""
    if found.unmatured and found.next_at is not None:
        held_back = f", of which {found.unmatured} are held back, the first until {found.next_at:%Y-%m-%d %H:%M} UTC"
    raise InsufficientFunds(
        f"{found.amount} can be withdrawn, less than {amount}: {found.earned} were earned by invitations{held_back}. What was "
        "paid in goes back as a refund of its charge, and credits are spent; nothing was reserved"
    )


async def _release(tx: Tx, found: Withdrawal) -> list[Leg]:
    """Back to `earned`; of one that waited when purses came, back to what it had been taken from."""
    row = await tx.fetchrow("SELECT from_paid, from_credit FROM withdrawals WHERE id = $1", found.id)
    assert row is not None, "withdrawals are never deleted"
    paid, credit = Money(row["from_paid"], found.amount.currency), Money(row["from_credit"], found.amount.currency)
    parts: tuple[tuple[PurseKind, Money], ...] = (
        ("paid", paid),
        ("credit", credit),
        ("earned", found.amount - paid - credit),
    )
    legs = [Leg(Purse(found.customer_id, kind), part) for kind, part in parts if part]
    return [Leg("withdrawal_reserve", -found.amount), *legs]


_WITHDRAWALS = """
SELECT w.*, w.requisites->>'destination' AS in_clear, c.telegram_id,
       ARRAY(SELECT operator FROM withdrawal_confirmations s WHERE s.withdrawal_id = w.id ORDER BY confirmed_at, operator)
       AS confirmed_by
FROM withdrawals w JOIN customers c ON c.id = w.customer_id
"""


def _withdrawal(row: Row) -> Withdrawal:
    return Withdrawal(
        id=row["id"],
        customer_id=row["customer_id"],
        telegram_id=row["telegram_id"],
        amount=Money(row["amount"], row["currency"]),
        destination=row["destination_end"] or masked(row["in_clear"] or ""),
        state=row["state"],
        created_at=row["created_at"],
        settled_at=row["settled_at"],
        settled_by=row["settled_by"],
        reference=row["reference"],
        reason=row["reason"],
        confirmed_by=tuple(row["confirmed_by"]),
    )


def _about(customer_id: int, idempotency_key: str) -> str:
    """What a sealed destination belongs to: in another withdrawal's row it does not open."""
    return f"withdrawal {idempotency_key!r} of customer {customer_id}"


def _opened(row: Row, seal: Seal) -> str:
    if row["destination_sealed"] is None:
        return str(row["in_clear"] or "")
    kept = SealedText(row["destination_sealed"], row["sealed_with"])
    return seal.open(kept, _about(row["customer_id"], row["idempotency_key"]))
