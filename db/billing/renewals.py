"""Automatic renewal: the plan bought last is bought again from the balance, once per period, before access ends.

A period is named by the subscription and the end that the renewal moves. Its row in ``renewals`` is the rule: debit,
extension and that row commit together, so a period is charged at most once, whatever restarts. When to try is a row in
``renewal_schedule``, which the database keeps up with every movement of an end: first 6 hours before the end, again
after a growing delay while the money is lacking, at once after a credit, and for the last time at the end itself. What
was missed while nobody worked is made up for until ``GRACE`` after the end.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum

import attrs

from db.access.entitlements import Grant, grant
from db.access.wanted_keys import want_present
from db.billing.cases import open_case
from db.billing.ledger import Journal, move, post
from db.billing.pricing import best_discount
from db.customers import lock_customer
from db.errors import BusinessError
from db.money import Money
from db.tx import Row, Tx
from db.work.audit import Notice, record_audit
from db.work.claims import Claimer, claimable, claimed, released

GRACE = timedelta(hours=24)
"""How long after the end a renewal is made up for that was due while nobody worked. Later, the customer decides."""
FIRST_RETRY_SECONDS = 600.0
LAST_RETRY_SECONDS = 3600.0
MAX_FAILURES = 5
"""Errors of ours after which a renewal waits for a human."""


class RenewalResult(StrEnum):
    """How one try ended."""

    RENEWED = "renewed"
    LACKS_FUNDS = "lacks_funds"
    """Nothing was debited; it is tried again before the end."""
    MISSED = "missed"
    """The end has passed and the money is still lacking, or it passed too long ago: this period is not renewed."""
    DROPPED = "dropped"
    """There is nothing to renew any more: the customer bought, switched it off or was revoked, or somebody else claimed it."""


@attrs.frozen
class RenewalClaim:
    """A claimed renewal. ``epoch`` fences what is written: whoever claims it later wins."""

    subscription_id: int
    epoch: int
    period_start: datetime
    failures: int
    """Errors of ours so far."""


@attrs.frozen
class RenewalOutcome:
    """What a try led to."""

    result: RenewalResult
    price: Money | None = None
    expires_at: datetime | None = None
    next_try: datetime | None = None


async def set_auto_renew(tx: Tx, telegram_id: int, enabled: bool, *, actor: str) -> bool:
    """Switch the customer's automatic renewal on or off. ``False``: it was so before, nothing changed.

    It concerns the plan bought last, at the price of the day, with the customer's standing discount; promo codes do not
    repeat. Raises ``UnknownCustomer``, and ``BusinessError`` when the customer never had a subscription, or is to be
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


async def claim_renewals(tx: Tx, owner: Claimer, limit: int, lease_seconds: float) -> Sequence[RenewalClaim]:
    """Claim up to ``limit`` due renewals, the longest due first, for ``lease_seconds`` of database time.

    Claims of an earlier incarnation of the same owner are taken over at once, those of others when their time is up.
    """
    rows = await tx.fetch(
        f"""
        WITH due AS MATERIALIZED (
            SELECT subscription_id FROM renewal_schedule
            WHERE due_at <= (SELECT atlas_now())
              AND {claimable()}
            ORDER BY due_at, subscription_id LIMIT $3
            FOR NO KEY UPDATE SKIP LOCKED
        ), claimed AS (
            UPDATE renewal_schedule r
            SET {claimed("(SELECT atlas_now()) + $4::interval")}
            FROM due WHERE r.subscription_id = due.subscription_id
            RETURNING r.subscription_id, r.claim_epoch, r.period_start, r.failures, r.due_at
        )
        SELECT * FROM claimed ORDER BY due_at, subscription_id
        """,  # noqa: S608 - our own fragments
        owner.name,
        owner.incarnation,
        limit,
        timedelta(seconds=lease_seconds),
    )
    return [
        RenewalClaim(row["subscription_id"], row["claim_epoch"], row["period_start"], row["failures"]) for row in rows
    ]


async def renew(tx: Tx, claim: RenewalClaim, *, actor: str = "auto_renewal") -> RenewalOutcome:
    """Try to pay for the next period: debit, extension and the renewal's row together, or nothing but the next try.

    Fenced by the claim: what somebody else claimed, and what has changed since, is ``DROPPED`` without a trace. The
    customer is told of a success, of lacking money once per period, and that the period was missed if lacking money was
    not told before.
    """
    # The customer's row first, as in every operation on money: from here on nobody else moves this end or this balance.
    customer = await tx.fetchrow(
        """
        SELECT c.id, c.is_vip, c.personal_discount_percent FROM customers c JOIN subscriptions s ON s.customer_id = c.id
        WHERE s.id = $1 FOR NO KEY UPDATE OF c
        """,
        claim.subscription_id,
    )
    if customer is None:
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
        return await _miss(tx, claim, customer["id"], row, price, actor, "late", why)
    funds: int | None = await tx.fetchval(
        "SELECT balance FROM accounts WHERE kind = 'customer' AND customer_id = $1 AND currency = $2",
        customer["id"],
        price.currency,
    )
    if (funds or 0) < price.amount:
        return await _lack_funds(tx, claim, customer["id"], row, price, actor)
    return await _buy(tx, customer["id"], row, price, actor)


async def fail_renewal(tx: Tx, claim: RenewalClaim, error: str) -> int | None:
    """Count an error of ours and return how many there are; ``None``: the claim was lost.

    It is due again after a growing, jittered delay. At ``MAX_FAILURES`` it waits for a human: a case ``renewal_failed``.
    """
    row = await tx.fetchrow(
        f"""
        UPDATE renewal_schedule r
        SET failures = r.failures + 1, last_error = $3,
            state = CASE WHEN r.failures + 1 >= $4 THEN 'failed' ELSE r.state END,
            due_at = CASE WHEN r.failures + 1 < $4
                          THEN atlas_now() + least($6, $5 * 2 ^ r.failures) * (0.5 + random() / 2) * interval '1 second' END,
            {released()}
        FROM subscriptions s
        WHERE r.subscription_id = $1 AND r.claim_epoch = $2 AND r.due_at IS NOT NULL AND s.id = r.subscription_id
        RETURNING r.failures, s.customer_id
        """,  # noqa: S608 - our own fragments
        claim.subscription_id,
        claim.epoch,
        error[:500],
        MAX_FAILURES,
        FIRST_RETRY_SECONDS / 10,
        LAST_RETRY_SECONDS,
    )
    if row is None:
        return None
    failures: int = row["failures"]
    if failures >= MAX_FAILURES:
        await open_case(
            tx,
            "renewal_failed",
            _subject(claim.subscription_id, claim.period_start),
            customer_id=row["customer_id"],
            details={"failures": failures, "error": error[:200]},
        )
    return failures


async def postpone_renewal(tx: Tx, claim: RenewalClaim, delay_seconds: float, why: str) -> bool:
    """Give the claim back because the database could not do it now; no failure is counted, it is due after the delay.

    ``False``: it was lost, or somebody keeps the row locked, and then it stays claimed. Waits for nobody.
    """
    tag = await tx.execute(
        f"""
        UPDATE renewal_schedule
        SET due_at = atlas_now() + $3::interval, last_error = $4,
            {released()}
        WHERE subscription_id = (SELECT subscription_id FROM renewal_schedule
                                 WHERE subscription_id = $1 AND claim_epoch = $2 AND due_at IS NOT NULL
                                 FOR NO KEY UPDATE SKIP LOCKED)
        """,  # noqa: S608 - our own fragments
        claim.subscription_id,
        claim.epoch,
        timedelta(seconds=delay_seconds),
        why[:500],
    )
    return tag == "UPDATE 1"


async def _buy(tx: Tx, customer_id: int, row: Row, price: Money, actor: str) -> RenewalOutcome:
    subject = _subject(row["id"], row["expires_at"])
    journal_id = await post(
        tx,
        Journal("auto_renewal", f"renewal:{subject}", move(customer_id, "revenue", price), customer_id=customer_id),
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
    told = {
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
        Notice("renewal_succeeded", subject, customer_id, told),
        customer_id=customer_id,
        subject=subject,
        details=told,
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
    subject = _subject(claim.subscription_id, claim.period_start)
    told = {
        "amount": price.amount,
        "currency": price.currency,
        "tariff": row["plan_tariff"],
        "expires_at": row["expires_at"].isoformat(),
    }
    await record_audit(
        tx,
        actor,
        "renewal_lacks_funds",
        Notice("renewal_lacks_funds", subject, customer_id, told),
        customer_id=customer_id,
        subject=subject,
        details=told,
    )
    return RenewalOutcome(RenewalResult.LACKS_FUNDS, price, next_try=next_try)


async def _miss(
    tx: Tx, claim: RenewalClaim, customer_id: int, row: Row, price: Money, actor: str, reason: str, why: str
) -> RenewalOutcome:
    subject = _subject(claim.subscription_id, claim.period_start)
    told = {
        "why": reason,
        "amount": price.amount,
        "currency": price.currency,
        "tariff": row["plan_tariff"],
        "expires_at": row["expires_at"].isoformat(),
    }
    notice = Notice("renewal_missed", subject, customer_id, told)
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
        details=told,
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


def _price(customer: Row, row: Row) -> Money:
    """Today's list price with the customer's standing discount; what was paid last if the plan is not sold any more."""
    if row["list_amount"] is None:
        return Money(row["price_amount"], row["price_currency"])
    listed = Money(row["list_amount"], row["list_currency"])
    discount = best_discount(None, is_vip=customer["is_vip"], personal_percent=customer["personal_discount_percent"])
    return listed if discount is None else discount.off(listed)


def _subject(subscription_id: int, period_start: datetime) -> str:
    return f"subscription:{subscription_id}:{int(period_start.timestamp())}"
