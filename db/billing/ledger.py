"""Double entry: a journal with its postings is written whole, once, and never changed.

The sign: a positive posting on a customer's purse is money we owe the customer; money from outside is negative on
`world`. The database checks at commit that each journal has two legs or more and sums to zero per currency, moves the
purses' balances itself, and refuses a purse below zero.

A customer has four purses: `paid` (outside money that has bought nothing yet), `credit` (given back or given), `earned`
(rewards) and `debt` (what could not be taken back; never above zero). The balance that a customer sees is the sum of the
first three. Spending takes them in that order; only `earned` can be withdrawn.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import attrs

from db.errors import InsufficientFunds, LedgerConflict
from db.money import Money
from db.tx import Tx

SystemAccount = Literal[
    "world",
    "revenue",
    "referral_expense",
    "compensation_expense",
    "withdrawal_reserve",
    "suspense",
    "adjustment",
    "opening",
]
JournalKind = Literal[
    "purchase",
    "balance_purchase",
    "auto_renewal",
    "topup",
    "payment_credit",
    "suspense",
    "case_credit",
    "referral_reward",
    "referral_clawback",
    "refund",
    "withdrawal_reserve",
    "withdrawal_paid",
    "withdrawal_release",
    "compensation",
    "admin_adjust",
    "opening",
]
PurseKind = Literal["paid", "credit", "earned", "debt"]
SPENDING_ORDER: Sequence[PurseKind] = ("paid", "credit", "earned")
"""The purses that make up the balance, in the order in which a purchase takes from them."""


@attrs.frozen
class Purse:
    """One of a customer's accounts."""

    customer_id: int
    kind: PurseKind


@attrs.frozen
class Leg:
    """One posting: `account` is a customer's purse or the name of a system account."""

    account: Purse | SystemAccount
    amount: Money


@attrs.frozen
class Journal:
    """A balanced set of postings to be written, and the fact that it books."""

    kind: JournalKind
    idempotency_key: str
    """Names the fact, e.g. `money_in:42`: it can be posted once."""
    legs: Sequence[Leg]
    customer_id: int | None = None
    order_id: int | None = None
    money_in_id: int | None = None
    note: str = ""

    def __attrs_post_init__(self) -> None:
        sums: dict[str, int] = {}
        for leg in self.legs:
            sums[leg.amount.currency] = sums.get(leg.amount.currency, 0) + leg.amount.amount
        if len(self.legs) < 2 or any(sums.values()) or not all(leg.amount for leg in self.legs):
            raise ValueError(
                f"journal {self.idempotency_key!r} is not balanced: {[str(leg.amount) for leg in self.legs]}"
            )


@attrs.frozen
class Purses:
    """What a customer's purses hold, in one currency."""

    paid: Money
    credit: Money
    earned: Money
    debt: Money
    """Zero or less."""

    @property
    def balance(self) -> Money:
        """What the customer can spend: all but the debt, which later rewards pay."""
        return self.paid + self.credit + self.earned

    def taken(self, amount: Money, order: Sequence[PurseKind] = SPENDING_ORDER) -> Mapping[PurseKind, Money] | None:
        """How `amount` is taken from the purses in this order, each of which gives more than zero; `None`: they hold less.

        >>> Purses(Money(100), Money(50), Money(0), Money(0)).taken(Money(120))
        {'paid': Money(amount=100, currency='RUB'), 'credit': Money(amount=20, currency='RUB')}
        """
        parts: dict[PurseKind, Money] = {}
        open_amount = amount
        for kind in order:
            held: Money = getattr(self, kind)
            if part := min(held, open_amount):
                parts[kind] = part
                open_amount -= part
        return None if open_amount else parts


@attrs.frozen
class Spending:
    """What a purchase takes from a customer's purses."""

    customer_id: int
    amount: Money
    parts: Mapping[PurseKind, Money]
    """More than zero each."""

    @property
    def paid(self) -> Money:
        """The part that is outside money: what a referrer is rewarded for."""
        return self.parts.get("paid", Money(0, self.amount.currency))

    def legs(self, target: SystemAccount) -> Sequence[Leg]:
        """From each purse to `target`."""
        return take_from(self.customer_id, self.parts, target)

    def details(self) -> Mapping[str, object]:
        """The parts in kopecks, for the audit trail."""
        return {f"from_{kind}": part.amount for kind, part in self.parts.items()}


def move(source: Purse | SystemAccount, target: Purse | SystemAccount, amount: Money) -> tuple[Leg, Leg]:
    """The two legs that take `amount` from `source` and give it to `target`."""
    return Leg(source, -amount), Leg(target, amount)


def take_from(customer_id: int, parts: Mapping[PurseKind, Money], target: SystemAccount) -> Sequence[Leg]:
    """The legs that take each part from its purse and give the sum to `target`; the parts are more than zero."""
    legs = [Leg(Purse(customer_id, kind), -part) for kind, part in parts.items()]
    total = legs[0].amount
    for leg in legs[1:]:
        total += leg.amount
    return [*legs, Leg(target, -total)]


async def spend(tx: Tx, customer_id: int, amount: Money) -> Spending:
    """Decide from which purses a purchase of `amount` is paid: `paid`, then `credit`, then `earned`.

    Nothing is written: the caller, who holds the customer's row, posts the legs. Raises `InsufficientFunds` when the
    balance holds less.
    """
    held = await purses(tx, customer_id, amount.currency)
    parts = held.taken(amount)
    if parts is None:
        raise InsufficientFunds(f"the balance holds {held.balance}, less than {amount}; nothing was debited")
    return Spending(customer_id, amount, parts)


async def post(tx: Tx, journal: Journal) -> int:
    """Write the journal and its postings in one statement and return the journal's id.

    The caller holds the rows of the customers concerned (`lock_customers`). Raises `InsufficientFunds` when a purse
    would fall below zero, and `LedgerConflict` when the idempotency key was posted before; either way the caller's
    transaction has to be rolled back.
    """
    legs = journal.legs
    try:
        row = await tx.fetchrow(
            """
            WITH journal AS (
                INSERT INTO journals (kind, idempotency_key, customer_id, order_id, money_in_id, note)
                VALUES ($1, $2, $3, $4, $5, $6)
                ON CONFLICT (idempotency_key) DO NOTHING
                RETURNING id
            ), posted AS (
                INSERT INTO postings (journal_id, account_id, currency, amount)
                SELECT journal.id, a.id, a.currency, leg.amount
                FROM journal
                CROSS JOIN unnest($7::text[], $8::bigint[], $9::text[], $10::bigint[])
                     AS leg (kind, customer_id, currency, amount)
                CROSS JOIN LATERAL (  -- two branches, because IS NOT DISTINCT FROM finds no index
                    SELECT id, currency FROM accounts
                    WHERE leg.customer_id IS NOT NULL AND customer_id = leg.customer_id
                      AND kind = leg.kind AND currency = leg.currency
                    UNION ALL
                    SELECT id, currency FROM accounts
                    WHERE leg.customer_id IS NULL AND customer_id IS NULL
                      AND kind = leg.kind AND currency = leg.currency
                ) AS a
                RETURNING 1
            )
            SELECT (SELECT id FROM journal) AS id, (SELECT count(*) FROM posted) AS legs
            """,
            journal.kind,
            journal.idempotency_key,
            journal.customer_id,
            journal.order_id,
            journal.money_in_id,
            journal.note,
            [leg.account.kind if isinstance(leg.account, Purse) else leg.account for leg in legs],
            [leg.account.customer_id if isinstance(leg.account, Purse) else None for leg in legs],
            [leg.amount.currency for leg in legs],
            [leg.amount.amount for leg in legs],
        )
    except Exception as error:
        # asyncpg's error classes stay behind the driver; the constraint's name is what it reports for this rule.
        if getattr(error, "constraint_name", None) == "purse_not_below_zero":
            raise InsufficientFunds(
                f"the balance does not cover {max((leg.amount.amount, str(leg.amount)) for leg in legs)[1]} "
                f"({journal.kind.replace('_', ' ')}); nothing was debited"
            ) from error
        raise
    if row is None or row["id"] is None:
        raise LedgerConflict(f"journal {journal.idempotency_key!r} was posted before")
    if row["legs"] != len(legs):
        raise LedgerConflict(
            f"journal {journal.idempotency_key!r} names an account that does not exist: {len(legs)} legs, {row['legs']} found"
        )
    number: int = row["id"]
    return number


async def purses(tx: Tx, customer_id: int, currency: str = "RUB") -> Purses:
    """What the customer's purses hold; all zero when there are none in this currency."""
    rows = await tx.fetch(
        "SELECT kind, balance FROM accounts WHERE customer_id = $1 AND currency = $2", customer_id, currency
    )
    held: dict[str, int] = {row["kind"]: row["balance"] for row in rows}
    return Purses(*(Money(held.get(kind, 0), currency) for kind in ("paid", "credit", "earned", "debt")))


async def balance(tx: Tx, customer_id: int, currency: str = "RUB") -> Money:
    """What the customer can spend: `paid`, `credit` and `earned` together; zero when there is no purse in this currency."""
    return (await purses(tx, customer_id, currency)).balance
