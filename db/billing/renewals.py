"""Automatic renewal: the plan bought last is bought again from the balance, once per period, before access ends.

A period is named by the subscription and the end that the renewal moves. Its row in `renewals` is the rule: debit,
extension and that row commit together, so a period is charged at most once, whatever restarts. When to try is a row in
`renewal_schedule`, which the database keeps up with every movement of an end: first 6 hours before the end, again
after a growing delay while the money is lacking, at once after a credit, and for the last time at the end itself. What
was missed while no worker ran is made up for until `GRACE` after the end.
"""

from datetime import date, datetime, timedelta
from enum import StrEnum

import attrs

from db.access.entitlements import Grant, grant
from db.access.wanted_keys import want_present
from db.billing.ledger import Journal, Spending, post, spend
from db.billing.pricing import best_discount
from db.billing.referrals import note_spending, reward_notice
from db.billing.renewal_schedule import (
    FIRST_RETRY_SECONDS,
    LAST_RETRY_SECONDS,
    RenewalClaim,
    renewal_subject,
)
from db.customers import Customer, lock_customer, lock_subscriber_with_referrer, lock_with_referrer
from db.errors import BusinessError, InsufficientFunds, UnknownCustomer
from db.money import Money
from db.tx import Row, Tx
from db.work.audit import Notice, record_audit
from db.work.claims import released, revoked

GRACE = timedelta(hours=24)
"""How long after the end a renewal is made up for that was due while no worker ran. Later, the customer decides."""


class RenewalResult(StrEnum):
    """How one try to renew ended."""

    RENEWED = "renewed"
    LACKS_FUNDS = "lacks_funds"
    """Nothing was debited; it is tried again before the end."""
    MISSED = "missed"
    """The end has passed and the money is still lacking, or it passed too long ago: this period is not renewed."""
    DROPPED = "dropped"
    """There is nothing to renew any more: the customer bought, switched it off or was revoked, or another worker claimed it."""


@attrs.frozen
class RenewalOutcome:
    """The result of a try: the price that was asked, and the new end or the time of the next try."""

    result: RenewalResult
    price: Money | None = None
    expires_at: datetime | None = None
    next_try: datetime | None = None


@attrs.frozen
class RenewalAttempt:
    """What trying a renewal led to, now or (`replayed`) before."""

    outcome: RenewalOutcome
    replayed: bool = False


async def set_auto_renew(tx: Tx, telegram_id: int, enabled: bool, *, actor: str) -> bool:
    """Switch the customer's automatic renewal on or off. `False`: it was so before, nothing changed.

    It concerns the plan bought last, at the price of the day, with the customer's standing discount; promo codes do not
    repeat. Raises `UnknownCustomer`, and `BusinessError` when the customer never had a subscription, or is to be
    renewed and never bought a plan.
    """
    customer = await lock_customer(tx, telegram_id)
    row = await tx.fetchrow(
        "SELECT id, auto_renew, plan_tariff FROM subscriptions WHERE customer_id = $1 ORDER BY id LIMIT 1 FOR NO KEY UPDATE",
        customer.id,
    )
    if row is None:
        raise BusinessError(f"the customer with Telegram id {telegram_id} never had a subscription")
    if row["auto_renew"] == enabled:
        return False
    if enabled and row["plan_tariff"] is None:
        raise BusinessError(
            f"the customer with Telegram id {telegram_id} never bought a plan, so there is none to renew; "
            "access that was given away is not renewed"
        )
    await tx.execute("UPDATE subscriptions SET auto_renew = $2 WHERE id = $1", row["id"], enabled)
    await record_audit(
        tx,
        actor,
        "set_auto_renew",
        customer_id=customer.id,
        subject=f"subscription:{row['id']}",
        details={"enabled": enabled},
    )
    return True


async def renew(tx: Tx, claim: RenewalClaim, *, actor: str = "auto_renewal") -> RenewalOutcome:
    """Try to pay for the next period: debit, extension and the renewal's row together, or nothing but the next try.

    Fenced by the claim: what another worker claimed, and what has changed since, is `DROPPED` without a trace. The
    customer is told of a success, of lacking money once per period, and that the period was missed if lacking money was
    not told before.
    """
    # The customers' rows first, as in every operation on money: no other transaction moves this end or these purses now.
    try:
        customer = await lock_subscriber_with_referrer(tx, claim.subscription_id)
    except UnknownCustomer:
        return RenewalOutcome(RenewalResult.DROPPED)
    row = await tx.fetchrow(
        """
        SELECT atlas_now() AS now, s.id, s.expires_at, s.plan_tariff, s.period_days, s.price_amount, s.price_currency,
               p.amount AS list_amount, p.currency AS list_currency
        FROM renewal_schedule r
        JOIN subscriptions s ON s.id = r.subscription_id
        LEFT JOIN tariffs t ON t.code = s.plan_tariff AND t.is_sold
        LEFT JOIN prices p ON p.tariff = t.code AND p.days = s.period_days
        WHERE r.subscription_id = $1 AND r.claim_epoch = $2 AND r.due_at IS NOT NULL AND r.period_start = s.expires_at
        FOR NO KEY UPDATE OF r, s
        """,
        claim.subscription_id,
        claim.epoch,
    )
    if row is None:
        return RenewalOutcome(RenewalResult.DROPPED)
    price = _price(customer, row)
    if row["now"] > row["expires_at"] + GRACE:
        why = f"the end passed more than {GRACE} ago while nobody worked"
        return await _miss(tx, claim, customer.id, row, price, actor, "late", why)
    try:
        spending = await spend(tx, customer.id, price)
    except InsufficientFunds:
        return await _lack_funds(tx, claim, customer.id, row, price, actor)
    return await _buy(tx, customer, row, spending, actor)


async def renew_now(tx: Tx, telegram_id: int, period_starts: date, *, actor: str) -> RenewalAttempt:
    """Try the renewal of the period that starts on this day (UTC) now, as `renew` does; one that failed is tried again.

    A period is bought once: repeating it returns the first outcome. A worker that had claimed the renewal loses the claim. Raises
    `UnknownCustomer`, and `BusinessError` when there is no such period to renew: another one is next, the automatic
    renewal is off, or the period was missed.
    """
    customer = await lock_with_referrer(tx, telegram_id)
    bought = await tx.fetchrow(
        """
        SELECT e.new_end, p.amount, p.currency FROM renewals r
        JOIN subscriptions s ON s.id = r.subscription_id AND s.customer_id = $1
        JOIN entitlement_events e ON e.id = r.event_id
        JOIN postings p ON p.journal_id = r.journal_id JOIN accounts a ON a.id = p.account_id AND a.kind = 'revenue'
        WHERE (r.period_start AT TIME ZONE 'UTC')::date = $2
        """,
        customer.id,
        period_starts,
    )
    if bought is not None:
        price = Money(bought["amount"], bought["currency"])
        return RenewalAttempt(RenewalOutcome(RenewalResult.RENEWED, price, bought["new_end"]), replayed=True)
    row = await tx.fetchrow(
        f"""
        UPDATE renewal_schedule r
        SET state = CASE WHEN r.state = 'failed' THEN 'due' ELSE r.state END, due_at = atlas_now(),
            failures = CASE WHEN r.state = 'failed' THEN 0 ELSE r.failures END, {revoked(of="r.")}
        FROM subscriptions s
        WHERE s.id = r.subscription_id AND s.customer_id = $1 AND r.state IN ('due', 'lacks_funds', 'failed')
          AND (r.period_start AT TIME ZONE 'UTC')::date = $2
        RETURNING r.subscription_id, r.claim_epoch, r.period_start, r.failures
        """,  # noqa: S608 - our own fragments
        customer.id,
        period_starts,
    )
    if row is None:
        raise BusinessError(
            f"customer {telegram_id} has no renewal from {period_starts} on that could be tried: `atlas renewals list "
            f"--customer {telegram_id}` shows what comes next, `atlas auto-renew {telegram_id} on` switches renewals on, "
            "`atlas buy-from-balance` buys without one"
        )
    claim = RenewalClaim(row["subscription_id"], row["claim_epoch"], row["period_start"], row["failures"])
    return RenewalAttempt(await renew(tx, claim, actor=actor))


async def _buy(tx: Tx, customer: Customer, row: Row, spending: Spending, actor: str) -> RenewalOutcome:
    subject = renewal_subject(row["id"], row["expires_at"])
    customer_id, price = customer.id, spending.amount
    journal_id = await post(
        tx,
        Journal("auto_renewal", f"renewal:{subject}", spending.legs("revenue"), customer_id=customer_id),
    )
    entitlement = await grant(
        tx,
        Grant(
            customer_id,
            row["plan_tariff"],
            timedelta(days=row["period_days"]),
            "auto_renewal",
            actor,
            journal_id=journal_id,
            idempotency_key=f"renewal:{subject}",
            price=price,
        ),
    )
    await tx.execute(
        "INSERT INTO renewals (subscription_id, period_start, journal_id, event_id) VALUES ($1, $2, $3, $4)",
        row["id"],
        row["expires_at"],
        journal_id,
        entitlement.event_id,
    )
    await want_present(tx, entitlement.subscription_id)
    reward = await note_spending(tx, customer, journal_id, spending.paid)
    payload = {
        "tariff": row["plan_tariff"],
        "days": row["period_days"],
        "amount": price.amount,
        "currency": price.currency,
        "expires_at": entitlement.new_end.isoformat(),
    }
    await record_audit(
        tx,
        actor,
        "renew",
        Notice("renewal_succeeded", subject, customer_id, payload),
        *([] if reward is None else [reward_notice(reward)]),
        customer_id=customer_id,
        subject=subject,
        details={**payload, **spending.details()},
    )
    return RenewalOutcome(RenewalResult.RENEWED, price, entitlement.new_end)


async def _lack_funds(
    tx: Tx, claim: RenewalClaim, customer_id: int, row: Row, price: Money, actor: str
) -> RenewalOutcome:
    if row["now"] >= row["expires_at"]:
        why = "the money was lacking until the end"
        return await _miss(tx, claim, customer_id, row, price, actor, "lacks_funds", why)
    next_try: datetime = await tx.fetchval(
        f"""
        UPDATE renewal_schedule
        SET state = 'lacks_funds', tries = tries + 1, last_error = $3,
            -- The last try is at the end itself.
            due_at = least(period_start,
                           atlas_now() + least($5, $4 * 2 ^ least(tries, 20)) * (0.5 + random() / 2) * interval '1 second'),
            {released()}
        WHERE subscription_id = $1 AND claim_epoch = $2
        RETURNING due_at
        """,  # noqa: S608 - our own fragments
        claim.subscription_id,
        claim.epoch,
        f"the balance does not cover {price}",
        FIRST_RETRY_SECONDS,
        LAST_RETRY_SECONDS,
    )
    subject = renewal_subject(claim.subscription_id, claim.period_start)
    payload = {
        "amount": price.amount,
        "currency": price.currency,
        "tariff": row["plan_tariff"],
        "expires_at": row["expires_at"].isoformat(),
    }
    await record_audit(
        tx,
        actor,
        "renewal_lacks_funds",
        Notice("renewal_lacks_funds", subject, customer_id, payload),
        customer_id=customer_id,
        subject=subject,
        details=payload,
    )
    return RenewalOutcome(RenewalResult.LACKS_FUNDS, price, next_try=next_try)


async def _miss(
    tx: Tx, claim: RenewalClaim, customer_id: int, row: Row, price: Money, actor: str, reason: str, why: str
) -> RenewalOutcome:
    subject = renewal_subject(claim.subscription_id, claim.period_start)
    payload = {
        "why": reason,
        "amount": price.amount,
        "currency": price.currency,
        "tariff": row["plan_tariff"],
        "expires_at": row["expires_at"].isoformat(),
    }
    notice = Notice("renewal_missed", subject, customer_id, payload)
    knows = await tx.fetchval(
        "SELECT EXISTS (SELECT FROM outbox WHERE customer_id = $1 AND kind = 'renewal_lacks_funds' AND subject = $2 "
        "AND state = 'sent')",
        customer_id,
        subject,
    )
    await record_audit(
        tx,
        actor,
        "renewal_missed",
        *(() if knows else (notice,)),
        customer_id=customer_id,
        subject=subject,
        details=payload,
    )
    await tx.execute(
        f"""
        UPDATE renewal_schedule
        SET state = 'missed', due_at = NULL, last_error = $3, {released()}
        WHERE subscription_id = $1 AND claim_epoch = $2
        """,  # noqa: S608 - our own fragments
        claim.subscription_id,
        claim.epoch,
        why,
    )
    return RenewalOutcome(RenewalResult.MISSED, price)


def _price(customer: Customer, row: Row) -> Money:
    """Today's list price with the customer's standing discount; what was paid last if the plan is not sold any more."""
    if row["list_amount"] is None:
        return Money(row["price_amount"], row["price_currency"])
    listed = Money(row["list_amount"], row["list_currency"])
    discount = best_discount(listed, None, is_vip=customer.is_vip, personal_percent=customer.personal_discount_percent)
    return listed if discount is None else discount.off(listed)
