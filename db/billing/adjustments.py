"""Adjustments: an operator corrects a balance, with a reason that the customer reads."""

from collections.abc import Sequence

from db.billing.ledger import Journal, Leg, Purse, PurseKind, move, post, purses, take_from
from db.customers import lock_customer
from db.errors import BusinessError, InsufficientFunds
from db.money import Money
from db.tx import Tx
from db.work.audit import Notice, record_audit


async def adjust_balance(
    tx: Tx, telegram_id: int, amount: Money, *, reason: str, actor: str, idempotency_key: str
) -> int:
    """Add `amount` to the purse `credit`, or take it off if it is negative, and return the journal's id.

    A negative amount takes from `credit`, then from `earned`, and never what a customer has paid in. It comes from the
    account `adjustment`, so that reports keep it apart from what customers paid. The same key again returns the first
    journal. Raises `UnknownCustomer`, `InsufficientFunds`, and `BusinessError` when the amount is zero, the reason is
    empty, or the key stands for another adjustment.
    """
    if not amount:
        raise BusinessError("an adjustment of nothing changes nothing")
    if not reason.strip():
        raise BusinessError("an adjustment says why: the customer reads it")
    customer = await lock_customer(tx, telegram_id)
    key = f"adjust:{idempotency_key}"
    first = await tx.fetchrow(
        """
        SELECT j.id, max(a.customer_id) AS customer_id, sum(p.amount)::bigint AS amount, p.currency FROM journals j
        JOIN postings p ON p.journal_id = j.id JOIN accounts a ON a.id = p.account_id AND a.customer_id IS NOT NULL
        WHERE j.idempotency_key = $1 GROUP BY j.id, p.currency
        """,
        key,
    )
    if first is not None:
        before = Money(first["amount"], first["currency"])
        if (first["customer_id"], before) != (customer.id, amount):
            raise BusinessError(
                f"key {idempotency_key!r} already stands for another adjustment, of {before}; use a new key"
            )
        number: int = first["id"]
        return number
    legs = await _legs(tx, customer.id, amount)
    number = await post(tx, Journal("admin_adjust", key, legs, customer_id=customer.id, note=reason.strip()))
    payload = {"amount": amount.amount, "currency": amount.currency, "reason": reason.strip()}
    await record_audit(
        tx,
        actor,
        "adjust_balance",
        Notice("balance_adjusted", f"journal:{number}", customer.id, payload),
        customer_id=customer.id,
        subject=f"journal:{number}",
        details=payload,
    )
    return number


_TAKEN_OFF: Sequence[PurseKind] = ("credit", "earned")


async def _legs(tx: Tx, customer_id: int, amount: Money) -> Sequence[Leg]:
    if amount > Money(0, amount.currency):
        return move("adjustment", Purse(customer_id, "credit"), amount)
    held = await purses(tx, customer_id, amount.currency)
    parts = held.taken(-amount, _TAKEN_OFF)
    if parts is None:
        raise InsufficientFunds(
            f"an adjustment takes off what was credited or earned, which is {held.credit + held.earned}, less than {-amount}; "
            f"the {held.paid} that the customer paid in go back by `atlas refund` alone. Nothing was debited"
        )
    return take_from(customer_id, parts, "adjustment")
