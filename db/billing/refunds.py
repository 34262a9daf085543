"""Refunds: money that came from outside leaves for outside again. They are recorded here; providers do the paying.

Where the money is taken from is where the charge ended: revenue if it bought access, the purse `paid` if it was credited,
the suspense account if it waits in a case. Once a charge is refunded whole, the access that it bought is taken back, and
the customer counts as a paying friend no more unless they paid for something else.

Money that was spent does not go back by a refund: that is refused, or it is a chargeback, which has happened whatever we
think of it (`db.billing.chargebacks`).

The referrer's reward is taken back in proportion, from what the referrer has earned; the rest becomes a debt, which later
rewards pay. Of a credited charge that was spent, that is the reward of what it bought, newest first.
"""

from collections.abc import Sequence
from datetime import timedelta

import attrs

from db.access.entitlements import MovedEnd, take_back
from db.access.intervals import NOTHING
from db.access.wanted_keys import want_absent, want_present
from db.billing.cases import open_case
from db.billing.chargebacks import Recovery, recover_compensated, recover_spent, write_down
from db.billing.ledger import Journal, Leg, Purse, post, purses
from db.billing.referrals import claw_back, due_of_charge, due_of_spent, forget_refunded_payments
from db.customers import lock_customers
from db.errors import BusinessError
from db.money import Money
from db.tx import Row, Tx
from db.work.audit import Notice, record_audit


@attrs.frozen
class Refund:
    """One row of `refunds`, made now or (`replayed`) before."""

    id: int
    money_in_id: int
    amount: Money
    written_off: Money
    """What was not there any more, and the operator took as our loss."""
    owed: Money
    """What was not there any more, and became the customer's debt."""
    customer_id: int | None
    taken_back: timedelta | None
    """The access that it ended, if any."""
    clawed_back: Money
    """What was taken back of the referrer's rewards, what became a debt included."""
    case_id: int | None = None
    """The case with the numbers, of a chargeback that did not find all."""
    replayed: bool = False


async def refund_charge(
    tx: Tx,
    provider: str,
    charge_id: str,
    *,
    amount: Money | None = None,
    actor: str,
    idempotency_key: str,
    revoke: bool = True,
    chargeback: bool = False,
    write_off: bool = False,
) -> Refund:
    """Record that a captured charge went back to its payer, in part or (`amount` left out) all that is left of it.

    `amount` is in roubles or in the asset that was captured, which is then valued as the charge was. With `revoke`
    the refund that completes the charge takes back what is left of the interval that it bought (time that anything else
    bought stays), and switches automatic renewal off.

    A credited charge whose money is spent, and a charge that was compensated, are refused with `BusinessError`. A
    `chargeback` takes back what the money bought, newest first, or the compensation, makes the rest the customer's debt,
    and opens a case with the numbers if the money was spent; with `write_off` the rest is our loss. `write_off` alone
    takes all that was spent as our loss and leaves the access.

    The same key again returns the first refund. Raises `BusinessError` when there is no such charge, its value is not
    known, refunds and compensation together would exceed what was captured, or the key stands for another refund.
    """
    # Two refunds of one charge, and a refund and the settling of its case, wait for each other here.
    money_in_id = await tx.fetchval(
        "SELECT id FROM money_in WHERE provider = $1 AND charge_id = $2 FOR NO KEY UPDATE", provider, charge_id
    )
    charge = await tx.fetchrow(_CHARGE, money_in_id)
    if charge is None:
        raise BusinessError(f"there is no {provider} charge {charge_id!r}")
    await lock_customers(tx, (charge["holder_id"], charge["referrer_id"]))
    replay = await _find(tx, idempotency_key)
    if replay is not None:
        if replay.money_in_id != charge["id"] or (amount is not None and _valued(charge, amount) != replay.amount):
            raise BusinessError(
                f"key {idempotency_key!r} already stands for the refund of {replay.amount} of money_in "
                f"{replay.money_in_id}; use a new key for another refund"
            )
        return attrs.evolve(replay, replayed=True)
    refunded = await _refunded(tx, charge["id"])
    booked = Money(charge["booked_amount"], charge["booked_currency"])
    if not booked:
        raise BusinessError(
            f"the value of {provider} charge {charge_id!r} in roubles is not known, so the ledger does not hold it; "
            f"pay it back at the provider and close case {charge['case_id']}"
        )
    compensated = await _compensated(tx, charge["event_id"])
    left = booked - refunded if chargeback else booked - refunded - compensated
    value = left if amount is None else _valued(charge, amount)
    if not Money(0) < value <= left:
        given = f" and {compensated} was given to the balance as compensation" if compensated else ""
        raise BusinessError(
            f"{provider} charge {charge_id!r} brought {booked}, {refunded} of it went back{given}: "
            f"{left} can be refunded, not {left if amount is None else value}"
            + (" (a chargeback takes the compensation back: `atlas refund --chargeback`)" if compensated else "")
        )
    over = max(refunded + compensated + value - booked, Money(0, value.currency))
    is_whole = refunded + compensated + value - over == booked
    recovery = await _recover(tx, charge, value, over, chargeback=chargeback, write_off=write_off)
    journal_id = await post(
        tx,
        Journal(
            "refund",
            f"refund:{idempotency_key}",
            [*recovery.legs, Leg("world", value)],
            customer_id=charge["holder_id"],
            order_id=charge["order_id"],
            money_in_id=charge["id"],
        ),
    )
    taken = None
    if is_whole and revoke and charge["event_id"] is not None:
        taken = await take_back(tx, charge["subscription_id"], charge["event_id"], actor=actor, journal_id=journal_id)
        await _end_access(tx, charge["subscription_id"], taken)
    clawback_id, clawed_back = await _claw_back(
        tx, charge, journal_id, value, refunded + value, recovery.spent, idempotency_key
    )
    number: int = await tx.fetchval(
        """
        INSERT INTO refunds (money_in_id, journal_id, idempotency_key, amount, currency, actor, written_off, event_id,
                             clawback_journal_id, spent, owed)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) RETURNING id
        """,
        charge["id"],
        journal_id,
        idempotency_key,
        value.amount,
        value.currency,
        actor,
        recovery.written_off.amount,
        None if taken is None else taken.event_id,
        clawback_id,
        recovery.spent.amount,
        recovery.owed.amount,
    )
    undone = await _undo(tx, charge, number, journal_id, recovery, actor)
    if is_whole:
        await _close_case(tx, charge, actor)
    if charge["holder_id"] is not None:
        await forget_refunded_payments(tx, charge["holder_id"])
    payload: dict[str, object] = {"amount": value.amount, "currency": value.currency}
    ends = [*([] if taken is None else [taken]), *undone]
    if ends:
        payload["expires_at"] = ends[-1].new_end.isoformat()
    lost = {"owed": recovery.owed.amount, "written_off": recovery.written_off.amount}
    took_back = sum((end.period for end in ends), NOTHING)
    case_id = None
    if chargeback and (recovery.spent or charge["event_id"] is not None):
        case_id = await open_case(
            tx,
            "chargeback",
            f"refund:{number}",
            customer_id=charge["holder_id"],
            details={
                "charge": f"{provider} {charge_id}",
                **payload,
                **lost,
                "spent": recovery.spent.amount,
                "uncompensated": recovery.uncompensated.amount,
                "took_back_hours": took_back // timedelta(hours=1),
                "of_events": [each.event_id for each in recovery.undone],
            },
        )
    notice = Notice("refund_paid", f"refund:{number}", charge["holder_id"], payload)
    await record_audit(
        tx,
        actor,
        "refund",
        *([] if charge["holder_id"] is None else [notice]),
        customer_id=charge["holder_id"],
        subject=f"refund:{number}",
        details={
            "provider": provider,
            "money_in": charge["id"],
            "amount": value.amount,
            **lost,
            "clawed_back": clawed_back.amount,
            "took_back_hours": took_back // timedelta(hours=1) if ends else None,
            "chargeback": chargeback,
        },
    )
    return Refund(
        id=number,
        money_in_id=charge["id"],
        amount=value,
        written_off=recovery.written_off,
        owed=recovery.owed,
        customer_id=charge["holder_id"],
        taken_back=took_back if ends else None,
        clawed_back=clawed_back,
        case_id=case_id,
    )


_CHARGE = """
SELECT m.id, m.amount, m.asset, m.booked_amount, m.booked_currency, m.order_id,
       coalesce(m.customer_id, settled.customer_id) AS holder_id,  -- a case may have found out whose it is
       c.id AS case_id, settled.id AS settled_id,
       e.id AS event_id, e.subscription_id, holder.referrer_id
FROM money_in m
LEFT JOIN cases c ON c.money_in_id = m.id
LEFT JOIN journals settled ON settled.money_in_id = m.id AND settled.kind = 'case_credit'
LEFT JOIN entitlement_events e ON e.money_in_id = m.id
LEFT JOIN customers holder ON holder.id = coalesce(m.customer_id, settled.customer_id)
WHERE m.id = $1
"""


def _valued(charge: Row, amount: Money) -> Money:
    """The amount in the ledger's currency; of the captured asset, at the rate at which the charge was booked."""
    if amount.currency == charge["booked_currency"]:
        return amount
    if amount.currency != charge["asset"]:
        raise BusinessError(
            f"the charge came in {charge['asset']} and is booked in {charge['booked_currency']}; "
            f"{amount} is neither, so it cannot be a part of it"
        )
    return Money(charge["booked_amount"] * amount.amount // charge["amount"], charge["booked_currency"])


async def _refunded(tx: Tx, money_in_id: int) -> Money:
    return Money(
        await tx.fetchval("SELECT coalesce(sum(amount), 0)::bigint FROM refunds WHERE money_in_id = $1", money_in_id)
    )


async def _compensated(tx: Tx, event_id: int | None) -> Money:
    """What compensation gave back of the access that the charge bought."""
    return Money(
        await tx.fetchval(
            "SELECT coalesce(sum(amount), 0)::bigint FROM compensation_parts WHERE event_id = $1", event_id
        )
    )


async def _recover(
    tx: Tx, charge: Row, value: Money, compensated: Money, *, chargeback: bool, write_off: bool
) -> Recovery:
    """From where the money goes to outside: where the charge ended, or, if it is not there any more, what it led to.

    `compensated` is what goes back though it was given to the balance before.
    """
    nothing = Money(0, value.currency)
    holder: int = charge["holder_id"]
    if charge["event_id"] is not None:
        if compensated:
            return await recover_compensated(tx, holder, value, compensated, write_off=write_off)
        return Recovery([Leg("revenue", -value)], nothing, nothing, nothing)
    if charge["settled_id"] is None and charge["case_id"] is not None:
        return Recovery([Leg("suspense", -value)], nothing, nothing, nothing)
    if chargeback:
        return await recover_spent(tx, holder, value, write_off=write_off)
    there = min((await purses(tx, holder, value.currency)).paid, value)
    if there < value and not write_off:
        raise BusinessError(
            f"the charge was credited to the customer's paid money, which holds {there}, less than {value}: refund at most "
            "that; after a chargeback, take back what it bought (`atlas refund --chargeback`) or take the difference as a loss "
            "(`--write-off`)"
        )
    lost = value - there
    covered = [Leg(Purse(holder, "paid"), -there)] if there else []
    return Recovery([*covered, *([Leg("adjustment", -lost)] if lost else [])], lost, nothing, lost)


async def _undo(
    tx: Tx, charge: Row, refund_id: int, journal_id: int, recovery: Recovery, actor: str
) -> Sequence[MovedEnd]:
    """Take back what a chargeback takes back, and tell the workers."""
    moved = await write_down(tx, refund_id, recovery, actor=actor)
    for subscription_id in {each.subscription_id for each in recovery.undone}:
        await _end_access(tx, subscription_id, moved[-1] if moved else None)
    if recovery.uncompensated:
        await tx.execute(
            "INSERT INTO compensation_parts (journal_id, event_id, amount) VALUES ($1, $2, $3)",
            journal_id,
            charge["event_id"],
            -recovery.uncompensated.amount,
        )
    return moved


async def _end_access(tx: Tx, subscription_id: int, taken: MovedEnd | None) -> None:
    """Tell the workers about the new end, and do not charge a customer again who has just taken money back."""
    await tx.execute("UPDATE subscriptions SET auto_renew = false WHERE id = $1 AND auto_renew", subscription_id)
    if taken is None:
        return
    if taken.is_running:
        is_active = await tx.fetchval("SELECT state = 'active' FROM subscriptions WHERE id = $1", subscription_id)
        if is_active:
            await want_present(tx, subscription_id)
        return
    await tx.execute("UPDATE subscriptions SET state = 'revoked' WHERE id = $1", subscription_id)
    await want_absent(tx, [subscription_id])


async def _claw_back(
    tx: Tx, charge: Row, journal_id: int, value: Money, refunded: Money, spent: Money, idempotency_key: str
) -> tuple[int | None, Money]:
    """Take back what the referrer was given for the money that went back: for this charge, or for what it was spent on."""
    if charge["referrer_id"] is None:
        return None, Money(0, value.currency)
    booked = Money(charge["booked_amount"], charge["booked_currency"])
    due = await due_of_charge(tx, charge["id"], value, refunded, booked)
    if not due and spent:
        due = await due_of_spent(tx, charge["holder_id"], spent)
    return await claw_back(
        tx,
        charge["referrer_id"],
        due,
        refund_journal_id=journal_id,
        money_in_id=charge["id"],
        idempotency_key=idempotency_key,
    )


async def _close_case(tx: Tx, charge: Row, actor: str) -> None:
    """A charge that went back whole leaves nothing to settle."""
    await tx.execute(
        """
        UPDATE cases SET state = 'closed', closed_at = atlas_now(), resolution = 'refunded', closed_by = $2
        WHERE money_in_id = $1 AND state = 'open'
        """,
        charge["id"],
        actor,
    )


async def _find(tx: Tx, idempotency_key: str) -> Refund | None:
    row = await tx.fetchrow(
        """
        SELECT r.*, j.customer_id,
               (SELECT sum(period) FROM entitlement_events e
                WHERE e.id = r.event_id
                   OR e.id IN (SELECT moved_by FROM undone_purchases u WHERE u.refund_id = r.id)) AS period,
               (SELECT id FROM cases WHERE kind = 'chargeback' AND subject = 'refund:' || r.id) AS case_id,
               coalesce((SELECT sum(amount) FROM reward_takebacks
                         WHERE journal_id = r.clawback_journal_id), 0)::bigint AS clawed_back
        FROM refunds r
        JOIN journals j ON j.id = r.journal_id
        WHERE r.idempotency_key = $1
        """,
        idempotency_key,
    )
    if row is None:
        return None
    return Refund(
        id=row["id"],
        money_in_id=row["money_in_id"],
        amount=Money(row["amount"], row["currency"]),
        written_off=Money(row["written_off"], row["currency"]),
        owed=Money(row["owed"], row["currency"]),
        customer_id=row["customer_id"],
        taken_back=row["period"],
        clawed_back=Money(row["clawed_back"], row["currency"]),
        case_id=row["case_id"],
    )
