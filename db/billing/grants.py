"""Access that is not paid for: the trial, and grants by an operator. Neither touches the ledger or a referral."""

from datetime import timedelta

from db.access.entitlements import Entitlement, Grant, grant
from db.access.wanted_keys import want_present
from db.billing.pricing import price_list
from db.customers import Customer, find_customer, lock_customers
from db.errors import BusinessError, UnknownTariff
from db.tx import Tx
from db.work.audit import record_audit
from db.work.outbox import add_message

TRIAL_PERIOD = timedelta(hours=72)
TRIAL_TARIFF = "basic"


async def grant_trial(tx: Tx, telegram_id: int, *, actor: str) -> Entitlement:
    """Give the trial: 72 hours, once per customer ever.

    Raises `UnknownCustomer`, and `BusinessError` when the customer had a trial before or has a subscription that
    runs: a trial never overrides what was paid for.
    """
    customer = await find_customer(tx, telegram_id)
    await lock_customers(tx, [customer.id])
    row = await tx.fetchrow(
        """
        SELECT EXISTS (SELECT FROM trials WHERE customer_id = $1) AS had_trial,
               EXISTS (SELECT FROM subscriptions WHERE customer_id = $1 AND state = 'active'
                       AND expires_at > atlas_now()) AS is_running
        """,
        customer.id,
    )
    if row is not None and row["had_trial"]:
        raise BusinessError(f"the customer with Telegram id {telegram_id} has had the trial; there is one per customer")
    if row is not None and row["is_running"]:
        raise BusinessError(f"the customer with Telegram id {telegram_id} has a subscription that runs")
    entitlement = await _give(tx, customer, Grant(customer.id, TRIAL_TARIFF, TRIAL_PERIOD, "trial", actor))
    await tx.execute("INSERT INTO trials (customer_id, event_id) VALUES ($1, $2)", customer.id, entitlement.event_id)
    return entitlement


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
