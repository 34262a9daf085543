"""Refunds: money that came from outside leaves for outside again. They are recorded here; providers do the paying.

Where the money is taken from is where the charge ended: revenue if it bought access, the purse `paid` if it was credited,
the suspense account if it waits in a case. Once a charge is refunded whole, the access that it bought is taken back, and
the customer counts as a paying friend no more unless they paid for something else.

The referrer's reward is taken back in proportion, from what the referrer has earned; the rest becomes a debt, which later
rewards pay. Of a credited charge that was spent and is written off, that is the reward of what it bought, newest first.
"""

from collections.abc import Sequence
from datetime import timedelta

import attrs

from db.access.entitlements import TakenBack, take_back
from db.access.wanted_keys import want_absent, want_present
from db.billing.ledger import Journal, Leg, Purse, SystemAccount, move, post, purses
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
    """What the customer's purse `paid` did not cover: our loss."""
    customer_id: int | None
    taken_back: timedelta | None
    """The access that it ended, if any."""
    clawed_back: Money
    """What was taken back of the referrer's rewards, what became a debt included."""
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
    write_off: bool = False,
) -> Refund:
    """Record that a captured charge went back to its payer, in part or (`amount` left out) all that is left of it.

    `amount` is in roubles or in the asset that was captured, which is then valued as the charge was. With `revoke`
    the refund that completes the charge takes back what is left of the period that it bought, and switches automatic
    renewal off. A credited charge whose money is spent is refused with `BusinessError`, unless `write_off` takes the
    rest as our loss: for a chargeback, which has happened whatever we think of it.

    The same key again returns the first refund. Raises `BusinessError` when there is no such charge, its value is not
    known, more would be refunded than was captured, or the key stands for another refund.
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
    value = booked - refunded if amount is None else _valued(charge, amount)
    if not Money(0) < value <= booked - refunded:
        raise BusinessError(
            f"{provider} charge {charge_id!r} brought {booked}, {refunded} of it went back: "
            f"{booked - refunded} can be refunded, not {value}"
        )
    is_whole = refunded + value == booked
    legs, written_off = await _legs(tx, charge, value, write_off=write_off)
    journal_id = await post(
        tx,
        Journal(
            "refund",
            f"refund:{idempotency_key}",
            legs,
            customer_id=charge["holder_id"],
            order_id=charge["order_id"],
            money_in_id=charge["id"],
        ),
    )
    taken = None
    if is_whole and revoke and charge["event_id"] is not None:
        taken = await take_back(
            tx, charge["subscription_id"], charge["tariff"], charge["period"], actor=actor, journal_id=journal_id
        )
        await _end_access(tx, charge["subscription_id"], taken)
    clawback_id, clawed_back = await _claw_back(tx, charge, value, refunded + value, written_off, idempotency_key)
    number: int = await tx.fetchval(
        """
        INSERT INTO refunds (money_in_id, journal_id, idempotency_key, amount, currency, actor, written_off, event_id,
                             clawback_journal_id)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id
        """,
        charge["id"],
        journal_id,
        idempotency_key,
        value.amount,
        value.currency,
        actor,
        written_off.amount,
        None if taken is None else taken.event_id,
        clawback_id,
    )
    if is_whole:
        await _close_case(tx, charge, actor)
    if charge["holder_id"] is not None:
        await forget_refunded_payments(tx, charge["holder_id"])
    payload: dict[str, object] = {"amount": value.amount, "currency": value.currency}
    if taken is not None:
        payload["expires_at"] = taken.new_end.isoformat()
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
            "written_off": written_off.amount,
            "clawed_back": clawed_back.amount,
            "took_back_hours": None if taken is None else taken.period // timedelta(hours=1),
        },
    )
    period = None if taken is None else taken.period
    return Refund(number, charge["id"], value, written_off, charge["holder_id"], period, clawed_back)


_CHARGE = """
SELECT m.id, m.amount, m.asset, m.booked_amount, m.booked_currency, m.order_id,
       coalesce(m.customer_id, settled.customer_id) AS holder_id,  -- a case may have found out whose it is
       c.id AS case_id, settled.id AS settled_id,
       e.id AS event_id, e.subscription_id, e.tariff, e.period, holder.referrer_id
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


async def _legs(tx: Tx, charge: Row, value: Money, *, write_off: bool) -> tuple[Sequence[Leg], Money]:
    """From where the charge ended to outside, and how much of it is our loss."""
    nothing = Money(0, value.currency)
    source: SystemAccount = "revenue"
    if charge["event_id"] is None:
        if charge["settled_id"] is None and charge["case_id"] is not None:
            source = "suspense"
        else:
            paid = Purse(charge["holder_id"], "paid")
            there = (await purses(tx, paid.customer_id, value.currency)).paid
            if there >= value:
                return move(paid, "world", value), nothing
            if not write_off:
                raise BusinessError(
                    f"the charge was credited to the customer's paid money, which holds {there}, less than {value}: refund at "
                    "most that, or take the difference as a loss (`atlas refund --write-off`)"
                )
            covered = [] if not there else [Leg(paid, -there)]
            return [*covered, Leg("adjustment", there - value), Leg("world", value)], value - there
    return move(source, "world", value), nothing


async def _end_access(tx: Tx, subscription_id: int, taken: TakenBack | None) -> None:
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
    tx: Tx, charge: Row, value: Money, refunded: Money, written_off: Money, idempotency_key: str
) -> tuple[int | None, Money]:
    """Take back what the referrer was given for the money that went back: for this charge, or for what it was spent on."""
    if charge["referrer_id"] is None:
        return None, Money(0, value.currency)
    booked = Money(charge["booked_amount"], charge["booked_currency"])
    due = await due_of_charge(tx, charge["id"], value, refunded, booked)
    if not due and written_off:
        due = await due_of_spent(tx, charge["holder_id"], written_off)
    return await claw_back(tx, charge["referrer_id"], due, money_in_id=charge["id"], idempotency_key=idempotency_key)


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
        SELECT r.*, j.customer_id, e.period,
               coalesce((SELECT sum(amount) FROM reward_takebacks
                         WHERE journal_id = r.clawback_journal_id), 0)::bigint AS clawed_back
        FROM refunds r
        JOIN journals j ON j.id = r.journal_id
        LEFT JOIN entitlement_events e ON e.id = r.event_id
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
        customer_id=row["customer_id"],
        taken_back=row["period"],
        clawed_back=Money(row["clawed_back"], row["currency"]),
    )
