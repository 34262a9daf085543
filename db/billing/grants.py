"""Access that is not paid for: the trial, and grants by an operator. Neither touches the ledger or a referral."""

from datetime import timedelta

from db.access.entitlements import Entitlement, Grant, grant
from db.access.wanted_keys import want_present
from db.billing.pricing import price_list
from db.customers import Customer, find_customer, lock_customers
from db.errors import BusinessError, UnknownTariff
from db.settings import TrialSettings
from db.tx import Tx
from db.work.audit import record_audit
from db.work.limits import Allowance, Limit, hold_to_rate
from db.work.outbox import add_message

TRIAL_PERIOD = timedelta(hours=72)
TRIAL_TARIFF = "basic"


DEFAULT_RULES = TrialSettings()


async def grant_trial(
    tx: Tx,
    telegram_id: int,
    *,
    actor: str,
    rules: TrialSettings = DEFAULT_RULES,
    allowance: Allowance | None = None,
) -> Entitlement:
    """Give the trial: 72 hours, once per customer ever.

    `allowance` holds the attempt to the limit of attempts; one that is refused for another reason than that the customer has
    had the trial counts if the caller commits. Raises `UnknownCustomer`, `LimitReached`, and `BusinessError` when the
    customer had a trial before, has a subscription that runs (a trial never overrides what was paid for), or may not have one
    by `rules`.
    """
    customer = await find_customer(tx, telegram_id)
    await lock_customers(tx, [customer.id])
    row = await tx.fetchrow(
        """
        SELECT EXISTS (SELECT FROM trials WHERE customer_id = $1) AS had_trial,
               EXISTS (SELECT FROM subscriptions WHERE customer_id = $1 AND state = 'active'
                       AND expires_at > atlas_now()) AS is_running,
               EXISTS (SELECT FROM subscriptions WHERE customer_id = $1 AND state = 'revoked') AS is_revoked,
               EXISTS (SELECT FROM entitlement_events e JOIN subscriptions s ON s.id = e.subscription_id
                       WHERE s.customer_id = $1 AND e.kind IN ('grant', 'opening')
                         AND e.source IN ('payment', 'balance', 'auto_renewal')
                       UNION ALL SELECT FROM openings WHERE customer_id = $1 AND spent_paid > 0) AS has_bought
        """,
        customer.id,
    )
    assert row is not None, "a row of EXISTS"
    who = f"the customer with Telegram id {telegram_id}"
    if row["had_trial"]:
        raise BusinessError(f"{who} has had the trial; there is one per customer")
    if allowance is not None:
        await _count_attempt(tx, customer, allowance)
    if row["is_running"]:
        raise BusinessError(f"{who} has a subscription that runs")
    if row["is_revoked"] and not rules.revoked:
        raise BusinessError(f"the access of {who} was revoked, so there is no trial (setting trials.revoked)")
    if row["has_bought"] and not rules.past_payers:
        raise BusinessError(f"{who} has bought access before, so there is no trial (setting trials.past_payers)")
    entitlement = await _give(tx, customer, Grant(customer.id, TRIAL_TARIFF, TRIAL_PERIOD, "trial", actor))
    await tx.execute("INSERT INTO trials (customer_id, event_id) VALUES ($1, $2)", customer.id, entitlement.event_id)
    return entitlement


async def _count_attempt(tx: Tx, customer: Customer, allowance: Allowance) -> None:
    window = timedelta(seconds=allowance.limits.trial_seconds)
    rows = await tx.fetch(
        """
        SELECT attempted_at FROM trial_attempts
        WHERE customer_id = $1 AND attempted_at > atlas_now() - $2::interval ORDER BY attempted_at
        """,
        customer.id,
        window,
    )
    limit = Limit("attempts to start the trial lately", "limits.trials", allowance.limits.trials)
    await hold_to_rate(tx, allowance, limit, customer, [row["attempted_at"] for row in rows], window)
    await tx.execute(
        "DELETE FROM trial_attempts WHERE customer_id = $1 AND attempted_at <= atlas_now() - $2::interval",
        customer.id,
        window,
    )
    await tx.execute("INSERT INTO trial_attempts (customer_id) VALUES ($1)", customer.id)


async def grant_access(
    tx: Tx, telegram_id: int, tariff: str, period: timedelta, *, idempotency_key: str, actor: str
) -> Entitlement:
    """Give a period of a tariff as an operator; the same key again returns the first grant, `replayed`.

    Raises `UnknownCustomer` and `UnknownTariff`, and `BusinessError` when the period is not positive, or the key
    stands for something else: another customer, tariff or period.
    """
    if period <= timedelta(0):
        raise BusinessError(f"a granted period is positive, not {period}")
    tariffs = {plan.tariff for plan in await price_list(tx)}
    if tariff not in tariffs:
        raise UnknownTariff(tariff, tariffs)
    customer = await find_customer(tx, telegram_id)
    await lock_customers(tx, [customer.id])
    first = await tx.fetchrow(
        """
        SELECT e.subscription_id, e.id, e.previous_end, e.new_end, e.tariff, e.period, e.source, s.customer_id,
               c.telegram_id
        FROM entitlement_events e JOIN subscriptions s ON s.id = e.subscription_id
        JOIN customers c ON c.id = s.customer_id WHERE e.idempotency_key = $1
        """,
        idempotency_key,
    )
    if first is None:
        wanted = Grant(customer.id, tariff, period, "admin", actor, idempotency_key=idempotency_key)
        return await _give(tx, customer, wanted)
    before = (first["customer_id"], first["source"], first["tariff"], first["period"])
    if before != (customer.id, "admin", tariff, period):
        raise BusinessError(
            f"key {idempotency_key!r} already stands for {first['tariff']} for {first['period']} to customer "
            f"{first['telegram_id']}, not for {tariff} for {period} to customer {telegram_id}; use a new key"
        )
    return Entitlement(
        first["subscription_id"], first["id"], first["previous_end"], first["new_end"], first["tariff"], replayed=True
    )


async def _give(tx: Tx, customer: Customer, wanted: Grant) -> Entitlement:
    entitlement = await grant(tx, wanted)
    await want_present(tx, entitlement.subscription_id)
    await add_message(
        tx,
        "access_granted",
        f"event:{entitlement.event_id}",
        customer_id=customer.id,
        payload={"tariff": wanted.tariff, "source": wanted.source, "expires_at": entitlement.new_end.isoformat()},
    )
    await record_audit(
        tx,
        wanted.actor,
        f"grant_{wanted.source}",
        customer_id=customer.id,
        subject=f"event:{entitlement.event_id}",
        details={"tariff": wanted.tariff, "hours": wanted.period // timedelta(hours=1)},
    )
    return entitlement
