"""Double entry: a journal with its postings is written whole, once, and never changed.

The sign: a positive posting on a customer's account is money we owe the customer; money from outside is negative on
`world`. The database checks at commit that each journal has two legs or more and sums to zero per currency, moves
the customers' balances itself, and refuses a balance below its floor.
"""

from collections.abc import Sequence
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
]


@attrs.frozen
class Leg:
    """One posting: `account` is a customer's id or the name of a system account."""

    account: int | SystemAccount
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


def move(source: int | SystemAccount, target: int | SystemAccount, amount: Money) -> tuple[Leg, Leg]:
    """The two legs that take `amount` from `source` and give it to `target`."""
    return Leg(source, -amount), Leg(target, amount)


async def post(tx: Tx, journal: Journal) -> int:
    """Write the journal and its postings in one statement and return the journal's id.

    The caller holds the rows of the customers concerned (`lock_customers`). Raises `InsufficientFunds` when a
    balance would fall below its floor, and `LedgerConflict` when the idempotency key was posted before; either way
    the caller's transaction has to be rolled back.
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
            ["customer" if isinstance(leg.account, int) else leg.account for leg in legs],
            [leg.account if isinstance(leg.account, int) else None for leg in legs],
            [leg.amount.currency for leg in legs],
            [leg.amount.amount for leg in legs],
        )
    except Exception as error:
        # asyncpg's error classes stay behind the driver; the constraint's name is what it reports for this rule.
        if getattr(error, "constraint_name", None) == "balance_not_below_floor":
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


async def balance(tx: Tx, customer_id: int, currency: str = "RUB") -> Money:
    """The customer's balance; zero when there is no account in this currency."""
    amount = await tx.fetchval(
        "SELECT balance FROM accounts WHERE kind = 'customer' AND customer_id = $1 AND currency = $2",
        customer_id,
        currency,
    )
    return Money(amount or 0, currency)
