"""The renewals that come next, as an operator looks at them, and trying one now instead of at its time."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Literal

import attrs

from db.billing.renewals import RenewalClaim, RenewalOutcome, RenewalResult, renew
from db.customers import lock_customer
from db.errors import BusinessError
from db.money import Money
from db.tx import Tx
from db.work.claims import revoked

RenewalState = Literal["due", "lacks_funds", "off", "missed", "failed"]


@attrs.frozen
class ScheduledRenewal:
    """One customer's next renewal."""

    telegram_id: int
    tariff: str
    days: int
    period_start: datetime
    """The end of the access that it moves."""
    state: RenewalState
    due_at: datetime | None
    """When it is tried next; ``None``: not any more in this period."""
    tries: int
    """That ended for lack of money."""
    failures: int
    """That ended in an error of ours."""
    last_error: str | None


@attrs.frozen
class RenewalAttempt:
    """What trying a renewal led to, now or (``replayed``) before."""

    outcome: RenewalOutcome
    replayed: bool = False


async def list_renewals(
    tx: Tx, state: RenewalState | None = None, telegram_id: int | None = None, limit: int = 50
) -> Sequence[ScheduledRenewal]:
    """Renewals in this state (``None``: in any) of this customer (``None``: of all), what is tried soonest first."""
    rows = await tx.fetch(
        """
        SELECT c.telegram_id, s.plan_tariff, s.period_days, r.period_start, r.state, r.due_at, r.tries, r.failures,
               r.last_error
        FROM renewal_schedule r JOIN subscriptions s ON s.id = r.subscription_id JOIN customers c ON c.id = s.customer_id
        WHERE ($1::text IS NULL OR r.state = $1) AND ($2::bigint IS NULL OR c.telegram_id = $2)
        ORDER BY r.due_at NULLS LAST, r.subscription_id LIMIT $3
        """,
        state,
        telegram_id,
        limit,
    )
    return [
        ScheduledRenewal(
            telegram_id=row["telegram_id"],
            tariff=row["plan_tariff"],
            days=row["period_days"],
            period_start=row["period_start"],
            state=row["state"],
            due_at=row["due_at"],
            tries=row["tries"],
            failures=row["failures"],
            last_error=row["last_error"],
        )
        for row in rows
    ]


async def renew_now(tx: Tx, telegram_id: int, period_starts: date, *, actor: str) -> RenewalAttempt:
    """Try the renewal of the period that starts on this day (UTC) now, as ``renew`` does; one that failed is tried again.

    A period is bought once: repeating it returns the first outcome. Whoever had claimed the renewal loses the claim. Raises
    ``UnknownCustomer``, and ``BusinessError`` when there is no such period to renew: another one is next, the automatic
    renewal is off, or the period was missed.
    """
    customer = await lock_customer(tx, telegram_id)
    bought = await tx.fetchrow(
        """
        SELECT e.new_end, -p.amount AS amount, p.currency FROM renewals r
        JOIN subscriptions s ON s.id = r.subscription_id AND s.customer_id = $1
        JOIN entitlement_events e ON e.id = r.event_id
        JOIN postings p ON p.journal_id = r.journal_id JOIN accounts a ON a.id = p.account_id AND a.kind = 'customer'
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
