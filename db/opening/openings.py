"""Openings: the balance, the access and the used trial of a customer who comes from another system.

An opening comes before anything else is booked for the customer: its money counts as spent first, and its access is the first
event of the subscription. What is here already is a conflict that whoever imports has to settle; nothing is guessed.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import attrs

from db.access.entitlements import Entitlement, Grant, Source, grant
from db.access.wanted_keys import want_present
from db.billing.ledger import Journal, Leg, Purse, PurseKind, post
from db.billing.pricing import price_list
from db.customers import lock_customer
from db.errors import BusinessError, UnknownTariff
from db.money import Money
from db.tx import Row, Tx
from db.work.audit import record_audit

_RENEWABLE: Sequence[Source] = ("payment", "balance", "auto_renewal")
_NOTHING = Money(0)


@attrs.frozen
class OpeningBalance:
    """What a customer had in each purse, in roubles, and what is known of the money that they spent."""

    paid: Money = _NOTHING
    """Outside money that had bought nothing yet."""
    credit: Money = _NOTHING
    earned: Money = _NOTHING
    """Rewards; they can be withdrawn at once."""
    debt: Money = _NOTHING
    """Zero or less."""
    rewarded_paid: Money = _NOTHING
    """The part of `paid` for which a referrer was rewarded when it came in: it is spent first and earns nothing again."""
    spent_paid: Money = _NOTHING
    """Outside money that bought access and did not go back: what makes a paying friend."""
    paid_since: datetime | None = None
    """When the customer first bought access with outside money; with `spent_paid`, and only with it."""

    def __attrs_post_init__(self) -> None:
        amounts = [value for value in attrs.astuple(self, recurse=False) if isinstance(value, Money)]
        if any(each.currency != "RUB" for each in amounts):
            raise BusinessError("purses are opened in roubles")
        if self.debt > _NOTHING or any(each < _NOTHING for each in amounts if each is not self.debt):
            raise BusinessError("a purse is not opened below zero, and a debt not above it")
        if self.rewarded_paid > self.paid:
            raise BusinessError(f"{self.rewarded_paid} of {self.paid} cannot have been rewarded")
        if (self.paid_since is None) != (not self.spent_paid):
            raise BusinessError("money was spent on access since some time, or none was and there is no time")
        if self.paid_since is not None and self.paid_since.tzinfo is None:
            raise BusinessError(f"{self.paid_since} has no time zone")
        if not (self.purses() or self.spent_paid):
            raise BusinessError("an opening of nothing opens nothing")

    def purses(self) -> Mapping[PurseKind, Money]:
        """The purses that are not empty."""
        parts: Mapping[PurseKind, Money] = {
            "paid": self.paid, "credit": self.credit, "earned": self.earned, "debt": self.debt,
        }  # fmt: skip
        return {kind: amount for kind, amount in parts.items() if amount}

    def details(self) -> dict[str, object]:
        """What the row and the audit trail say of it, in kopecks."""
        amounts = ("paid", "credit", "earned", "debt", "rewarded_paid", "spent_paid")
        since = None if self.paid_since is None else self.paid_since.isoformat()
        return {**{name: getattr(self, name).amount for name in amounts}, "paid_since": since}


@attrs.frozen
class OpeningAccess:
    """The access that a customer had, with the key that stands in their links."""

    tariff: str
    ends_at: datetime
    uuid: UUID = attrs.field(repr=lambda uuid: f"{str(uuid)[:8]}…")
    source: Source
    plan_days: int | None = None
    """The plan that a renewal buys again; `None`: it is not known, and nothing renews by itself."""
    price: Money | None = None
    """What that plan cost; with `plan_days`, and only with it."""
    auto_renew: bool = False

    def __attrs_post_init__(self) -> None:
        if self.ends_at.tzinfo is None:
            raise BusinessError(f"{self.ends_at} has no time zone")
        if (self.plan_days is None) != (self.price is None):
            raise BusinessError("a plan has a price, and a price is that of a plan")
        if self.price is not None and (self.price.currency != "RUB" or self.price < _NOTHING):
            raise BusinessError(f"a plan does not cost {self.price}")
        if self.plan_days is not None and self.source not in _RENEWABLE:
            raise BusinessError(f"access by {self.source} was not bought, so no plan of it can be renewed")
        if self.auto_renew and self.plan_days is None:
            raise BusinessError("access of no known plan cannot be renewed automatically")


async def open_balance(
    tx: Tx, telegram_id: int, brought: OpeningBalance, *, idempotency_key: str, actor: str
) -> int | None:
    """Book what a customer brought along, against the system account `opening`; returns the journal's id.

    `None`: every purse was empty, and only what had been spent is noted. Once a customer: the same key with the same amounts
    returns the first journal. Raises `UnknownCustomer`, and `BusinessError`, which changes nothing, when the key or the customer
    stands for another opening, money of the customer was booked here before, or `paid_since` lies in the future.
    """
    _check_key(idempotency_key)
    customer = await lock_customer(tx, telegram_id)
    first = await tx.fetchrow(
        "SELECT * FROM openings WHERE customer_id = $1 OR idempotency_key = $2 ORDER BY customer_id = $1 DESC LIMIT 1",
        customer.id,
        idempotency_key,
    )
    if first is not None:
        _same(first, customer.id, idempotency_key, {**brought.details(), "paid_since": brought.paid_since})
        number: int | None = first["journal_id"]
        return number
    booked = await tx.fetchrow(
        """
        SELECT (SELECT count(*) FROM journals WHERE customer_id = $1) AS journals,
               coalesce((SELECT balance FROM accounts WHERE customer_id = $1 AND balance <> 0 LIMIT 1), 0) AS balance,
               coalesce($2::timestamptz > atlas_now(), false) AS is_to_come
        """,
        customer.id,
        brought.paid_since,
    )
    assert booked is not None, "one row"
    if booked["journals"] or booked["balance"]:
        raise BusinessError(
            f"the customer with Telegram id {telegram_id} has {booked['journals']} journals here already, and an opening "
            "comes before everything else: what they brought along has to be settled by hand (`atlas adjust`)"
        )
    if booked["is_to_come"]:
        raise BusinessError(f"nobody has paid since {brought.paid_since}, which is to come")
    parts = brought.purses()
    journal_id = None
    if parts:
        legs = [Leg(Purse(customer.id, kind), amount) for kind, amount in parts.items()]
        total = sum(parts.values(), _NOTHING)
        against = [Leg("opening", -total)] if total else []
        journal_id = await post(
            tx, Journal("opening", f"opening:{customer.id}", [*legs, *against], customer_id=customer.id)
        )
    values = brought.details()
    await tx.execute(
        """
        INSERT INTO openings (customer_id, idempotency_key, currency, journal_id, actor, paid, credit, earned, debt,
                              rewarded_paid, spent_paid, paid_since)
        VALUES ($1, $2, 'RUB', $3, $4, $5, $6, $7, $8, $9, $10, $11)
        """,
        customer.id,
        idempotency_key,
        journal_id,
        actor,
        *(values[name] for name in ("paid", "credit", "earned", "debt", "rewarded_paid", "spent_paid")),
        brought.paid_since,
    )
    if brought.paid_since is not None:
        await tx.execute("UPDATE customers SET first_paid_at = $2 WHERE id = $1", customer.id, brought.paid_since)
    details = {"key": idempotency_key, **values}
    await record_audit(
        tx, actor, "open_balance", customer_id=customer.id, subject=f"customer:{customer.id}", details=details
    )
    return journal_id


async def open_access(
    tx: Tx, telegram_id: int, wanted: OpeningAccess, *, idempotency_key: str, actor: str
) -> Entitlement:
    """Give a customer the access that they had, until the end that it had, with the key that they have.

    The nodes get the key like any other. Once a customer: the same key with the same access returns the first one,
    `replayed`. Raises `UnknownCustomer` and `UnknownTariff`, and `BusinessError`, which changes nothing, when the key or the
    customer stands for another opening, the customer has or had access here, the access is over, the plan is not in the price
    list, or the key is another customer's (two that differ in bytes 6 and 7 alone are one to Xray).
    """
    _check_key(idempotency_key)
    customer = await lock_customer(tx, telegram_id)
    digest = hashlib.sha256(str(wanted.uuid).encode()).hexdigest()
    facts = {
        "tariff": wanted.tariff,
        "source": wanted.source,
        "ends_at": wanted.ends_at,
        "plan_days": wanted.plan_days,
        "price_amount": None if wanted.price is None else wanted.price.amount,
        "auto_renew": wanted.auto_renew,
        "uuid_digest": digest,
    }
    first = await tx.fetchrow(
        """
        SELECT o.*, e.subscription_id, e.previous_end, e.new_end FROM opening_grants o
        JOIN entitlement_events e ON e.id = o.event_id
        WHERE o.customer_id = $1 OR o.idempotency_key = $2 ORDER BY o.customer_id = $1 DESC LIMIT 1
        """,
        customer.id,
        idempotency_key,
    )
    if first is not None:
        _same(first, customer.id, idempotency_key, facts)
        return Entitlement(
            first["subscription_id"], first["event_id"], None, first["new_end"], first["tariff"], replayed=True
        )
    now = await _check_access(tx, customer.id, telegram_id, wanted)
    event = Grant(
        customer.id,
        wanted.tariff,
        wanted.ends_at - now,
        wanted.source,
        actor,
        idempotency_key=f"opening:{idempotency_key}",
        kind="opening",
    )
    given = await grant(tx, event)
    await tx.execute(
        """
        UPDATE subscriptions SET plan_tariff = $2, period_days = $3, price_amount = $4, price_currency = $5, auto_renew = $6
        WHERE id = $1
        """,
        given.subscription_id,
        None if wanted.plan_days is None else wanted.tariff,
        wanted.plan_days,
        facts["price_amount"],
        None if wanted.price is None else wanted.price.currency,
        wanted.auto_renew,
    )
    await want_present(tx, given.subscription_id, wanted.uuid)
    await tx.execute(
        """
        INSERT INTO opening_grants (event_id, customer_id, idempotency_key, actor, tariff, source, ends_at, plan_days,
                                    price_amount, auto_renew, uuid_digest)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
        """,
        given.event_id,
        customer.id,
        idempotency_key,
        actor,
        *facts.values(),
    )
    details = {"key": idempotency_key, **facts, "ends_at": wanted.ends_at.isoformat()}
    await record_audit(
        tx, actor, "open_access", customer_id=customer.id, subject=f"event:{given.event_id}", details=details
    )
    return given


async def note_used_trial(tx: Tx, telegram_id: int, granted_at: datetime, *, actor: str) -> bool:
    """Note that a customer had the trial elsewhere, so that there is none here; nothing is granted.

    `False`: the customer's trial was noted or given before, and stays as it is. Raises `UnknownCustomer`, and `BusinessError`
    when `granted_at` has no time zone or lies in the future.
    """
    if granted_at.tzinfo is None:
        raise BusinessError(f"{granted_at} has no time zone")
    customer = await lock_customer(tx, telegram_id)
    if await tx.fetchval("SELECT $1::timestamptz > atlas_now()", granted_at):
        raise BusinessError(f"a trial of {granted_at}, which is to come, was not used")
    noted = await tx.fetchval(
        """
        INSERT INTO trials (customer_id, granted_at) VALUES ($1, $2) ON CONFLICT (customer_id) DO NOTHING RETURNING customer_id
        """,
        customer.id,
        granted_at,
    )
    if noted is None:
        return False
    details = {"granted_at": granted_at.isoformat()}
    await record_audit(
        tx, actor, "open_trial", customer_id=customer.id, subject=f"customer:{customer.id}", details=details
    )
    return True


async def _check_access(tx: Tx, customer_id: int, telegram_id: int, wanted: OpeningAccess) -> datetime:
    """The database's clock, if nothing speaks against this access."""
    plans = {(plan.tariff, plan.days) for plan in await price_list(tx)}
    tariffs = {tariff for tariff, _ in plans}
    if wanted.tariff not in tariffs:
        raise UnknownTariff(wanted.tariff, tariffs)
    if wanted.plan_days is not None and (wanted.tariff, wanted.plan_days) not in plans:
        raise BusinessError(
            f"{wanted.tariff} for {wanted.plan_days} days is not in the price list, so nothing can renew it"
        )
    row = await tx.fetchrow(
        """
        SELECT atlas_now() AS now,
               EXISTS (SELECT FROM subscriptions WHERE customer_id = $1) AS has_access,
               EXISTS (SELECT FROM vpn_keys WHERE vless_identity(uuid) = vless_identity($2)
                       UNION ALL SELECT FROM canary_keys WHERE vless_identity(uuid) = vless_identity($2)) AS is_taken
        """,
        customer_id,
        wanted.uuid,
    )
    assert row is not None, "one row"
    who = f"the customer with Telegram id {telegram_id}"
    if row["has_access"]:
        raise BusinessError(f"{who} has or had access here, and an opening comes first: give the rest by `atlas grant`")
    if row["is_taken"]:
        raise BusinessError(
            f"the key {str(wanted.uuid)[:8]}… of {who} is another one's here, or differs only where Xray does not look"
        )
    now: datetime = row["now"]
    if wanted.ends_at <= now:
        raise BusinessError(f"the access of {who} ended {wanted.ends_at}, and nothing is left of it to open")
    return now


def _check_key(idempotency_key: str) -> None:
    if not idempotency_key.strip():
        raise BusinessError("an opening has a key, by which it is known when it is repeated")


def _same(first: Row, customer_id: int, idempotency_key: str, wanted: Mapping[str, object]) -> None:
    """Raise if what is there is not what is wanted; secrets are digests, and are not named."""
    if first["customer_id"] != customer_id:
        raise BusinessError(
            f"key {idempotency_key!r} already stands for the opening of customer number {first['customer_id']}"
        )
    if first["idempotency_key"] != idempotency_key:
        raise BusinessError(
            f"customer number {customer_id} was opened by the key {first['idempotency_key']!r} already, "
            f"not by {idempotency_key!r}"
        )
    other = [name for name, value in wanted.items() if first[name] != value]
    if other:
        told = ", ".join(f"{name} {first[name]}, not {wanted[name]}" for name in other if name != "uuid_digest")
        raise BusinessError(f"key {idempotency_key!r} already stands for another opening: {told or 'another VPN key'}")
