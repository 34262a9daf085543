"""When renewals are tried: claimed when they are due, postponed, given to a human after errors, and listed for an operator."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

import attrs

from db.billing.cases import open_case
from db.tx import Tx, rows_of
from db.work.claims import Claimer, claimable, claimed, released

RenewalState = Literal["due", "lacks_funds", "off", "missed", "failed"]


FIRST_RETRY_SECONDS = 600.0
LAST_RETRY_SECONDS = 3600.0
MAX_FAILURES = 5
"""Errors of ours after which a renewal waits for a human."""


@attrs.frozen
class RenewalClaim:
    """A claimed renewal. `epoch` fences what its holder writes: after a later claim nothing of it is written."""

    subscription_id: int
    epoch: int
    period_start: datetime
    failures: int
    """Errors of ours so far."""


@attrs.frozen
class ScheduledRenewal:
    """The next renewal of one customer, for an operator."""

    telegram_id: int
    tariff: str
    days: int
    period_start: datetime
    """The end of the access that it moves."""
    state: RenewalState
    due_at: datetime | None
    """When it is tried next; `None`: not any more in this period."""
    tries: int
    """That ended for lack of money."""
    failures: int
    """That ended in an error of ours."""
    last_error: str | None


async def list_renewals(
    tx: Tx, state: RenewalState | None = None, telegram_id: int | None = None, limit: int = 50
) -> Sequence[ScheduledRenewal]:
    """Renewals in this state (`None`: in any) of this customer (`None`: of all), what is tried soonest first."""
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


async def claim_renewals(tx: Tx, owner: Claimer, limit: int, lease_seconds: float) -> Sequence[RenewalClaim]:
    """Claim up to `limit` due renewals, the longest due first, for `lease_seconds` of database time.

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


async def fail_renewal(tx: Tx, claim: RenewalClaim, error: str) -> int | None:
    """Count an error of ours and return how many there are; `None`: the claim was lost.

    It is due again after a growing, jittered delay. At `MAX_FAILURES` it waits for a human: a case `renewal_failed`.
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
            renewal_subject(claim.subscription_id, claim.period_start),
            customer_id=row["customer_id"],
            details={"failures": failures, "error": error[:200]},
        )
    return failures


async def postpone_renewal(tx: Tx, claim: RenewalClaim, delay_seconds: float, why: str) -> bool:
    """Give the claim back because the database could not do it now; no failure is counted, it is due after the delay.

    `False`: the claim was lost, or another transaction holds the row's lock, and then it stays claimed. Never waits.
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
    return rows_of(tag) == 1


def renewal_subject(subscription_id: int, period_start: datetime) -> str:
    """What names one period of a subscription, in keys, notices and cases."""
    return f"subscription:{subscription_id}:{int(period_start.timestamp())}"
