"""The step `purses`: what each customer's one account holds is split by replaying how it came there.

The postings of an account are replayed in the order in which they were made, by the rules of purses. Sums are kept: a
customer's balance is the same before and after, and an account below zero (a floor that was once lowered) becomes a debt.
Where a rule of today would have refused what was done then, the money is taken from where it was, and a case says so with
its numbers. A customer whose account does not equal its postings is not moved, which is a case too.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

import attrs

from db.schema.move_cases import open_move_cases
from db.tx import Row, Tx

PurseName = Literal["paid", "credit", "earned"]
PURSES: Sequence[PurseName] = ("paid", "credit", "earned")
_NAMED = 20
"""Journals that a case names; the rest is a number."""

_GIVES: Mapping[str, PurseName] = {
    "topup": "paid",
    "payment_credit": "paid",
    "compensation": "credit",
    "admin_adjust": "credit",
    "referral_reward": "earned",
}
"""Where a credit of a kind goes."""
_TAKES: Mapping[str, tuple[Sequence[PurseName], Sequence[PurseName]]] = {
    "balance_purchase": (PURSES, ()),
    "auto_renewal": (PURSES, ()),
    "refund": (PURSES, ()),
    "withdrawal_reserve": (("earned", "credit", "paid"), ()),
    "admin_adjust": (("credit", "earned"), ("paid",)),
    "referral_clawback": (("earned",), ("credit", "paid")),
}
"""From where a debit of a kind is taken; and from where what that does not cover was taken, against the rules of today."""


@attrs.define
class Replay:
    """One customer's purses, as the postings of the old account fill and empty them."""

    held: dict[PurseName, int] = attrs.field(factory=lambda: dict.fromkeys(PURSES, 0))
    debt: int = 0
    """Zero or less."""
    spent_paid: int = 0
    """Outside money that bought access from the balance."""
    spent_at: datetime | None = None
    """When it did so first."""
    reserved: dict[int, dict[PurseName, int]] = attrs.field(factory=dict)
    """What each withdrawal took, by number."""
    odd: list[dict[str, object]] = attrs.field(factory=list)
    """What the rules of today would have refused."""

    @property
    def total(self) -> int:
        """The balance of the old account."""
        return sum(self.held.values()) + self.debt

    def apply(self, row: Row) -> None:
        """Replay one posting: a row of `_POSTINGS`."""
        kind, amount = row["kind"], row["amount"]
        if kind == "withdrawal_release" and amount > 0:
            parts = self.reserved.pop(row["released"], {"earned": amount})
            for purse, part in parts.items():
                self._add(purse, part)
        elif amount > 0:
            purse = ("paid" if row["from_suspense"] else "credit") if kind == "case_credit" else _GIVES.get(kind)
            if purse is None:
                self._note(row, {"credit": amount})
            self._add(purse or "credit", amount)
        else:
            self._debit(row, kind, -amount)

    def _debit(self, row: Row, kind: str, amount: int) -> None:
        order, against_the_rules = _TAKES.get(kind, ((), PURSES))
        parts = self._take(amount, order)
        left = amount - sum(parts.values())
        odd = self._take(left, against_the_rules)
        if odd:
            self._note(row, {**parts, **odd})
        self.debt -= left - sum(odd.values())
        if kind in ("balance_purchase", "auto_renewal") and "paid" in parts:
            self.spent_paid += parts["paid"]
            self.spent_at = self.spent_at or row["created_at"]
        if row["reserving"] is not None:
            self.reserved[row["reserving"]] = parts

    def _add(self, purse: PurseName, amount: int) -> None:
        """What was below zero was filled first: it was one account."""
        pays = min(amount, -self.debt)
        self.debt += pays
        self.held[purse] += amount - pays

    def _take(self, amount: int, order: Sequence[PurseName]) -> dict[PurseName, int]:
        parts: dict[PurseName, int] = {}
        for purse in order:
            if part := min(self.held[purse], amount):
                parts[purse] = part
                self.held[purse] -= part
                amount -= part
        return parts

    def _note(self, row: Row, parts: Mapping[PurseName, int]) -> None:
        self.odd.append(
            {"journal": row["journal_id"], "kind": row["kind"], "amount": row["amount"], "purses": {**parts}}
        )


@attrs.define
class _Moved:
    """A customer of the page, with what becomes of the account."""

    customer_id: int
    account_balance: int
    posted: int = 0
    replay: Replay = attrs.field(factory=Replay)
    brought: int = 0
    """Of what was rewarded when it came in and was credited, as much as did not go back."""
    bought_at: datetime | None = None
    """When the first purchase through a provider was made that did not go back."""
    written_off: int = 0

    @property
    def is_sound(self) -> bool:
        return self.account_balance == self.posted

    @property
    def spent_paid(self) -> int:
        return max(0, self.replay.spent_paid - self.written_off)

    @property
    def first_paid_at(self) -> datetime | None:
        moments = [self.bought_at, self.replay.spent_at if self.spent_paid else None]
        return min((moment for moment in moments if moment is not None), default=None)

    @property
    def legs(self) -> Mapping[str, int]:
        """The postings of the split, by account; none where nothing is there."""
        legs: dict[str, int] = {"customer": -self.posted, "debt": self.replay.debt}
        legs.update({purse: self.replay.held[purse] for purse in PURSES})
        return {account: amount for account, amount in legs.items() if amount}

    def problem(self) -> dict[str, object] | None:
        """What a case says of this customer; `None`: everything could be derived."""
        numbers: dict[str, object] = {"debt": self.replay.debt, "balance": self.account_balance}
        numbers.update({purse: self.replay.held[purse] for purse in PURSES})
        if not self.is_sound:
            return {
                "why": "the account does not equal its postings and was not moved",
                "postings": self.posted,
                **numbers,
            }
        if not self.replay.odd:
            return None
        return {
            "why": "today's rules would have refused what was booked then",
            "journals": self.replay.odd[:_NAMED],
            "journals_in_all": len(self.replay.odd),
            **numbers,
        }


async def move_page_to_purses(tx: Tx, after: int, limit: int) -> int | None:
    """Move up to `limit` customers with numbers above `after`; returns the last number, `None` when there are none left."""
    rows = await tx.fetch(_CUSTOMERS, after, limit)
    if not rows:
        return None
    page = {row["id"]: _Moved(row["id"], row["balance"]) for row in rows if not row["is_moved"]}
    if page:
        await _read(tx, page)
        await _write(tx, list(page.values()))
    last: int = rows[-1]["id"]
    return last


async def _read(tx: Tx, page: Mapping[int, _Moved]) -> None:
    ids = list(page)
    for row in await tx.fetch(_POSTINGS, ids):
        moved = page[row["customer_id"]]
        moved.posted += row["amount"]
        moved.replay.apply(row)
    for row in await tx.fetch(_PAYMENTS, ids):
        moved = page[row["customer_id"]]
        moved.brought, moved.bought_at, moved.written_off = row["brought"], row["bought_at"], row["written_off"]


async def _write(tx: Tx, page: Sequence[_Moved]) -> None:
    await tx.execute(
        """
        INSERT INTO accounts (kind, customer_id, currency, balance)
        SELECT purse, id, 'RUB', 0
        FROM unnest($1::bigint[]) AS id CROSS JOIN unnest(ARRAY['paid', 'credit', 'earned', 'debt']) AS purse
        ON CONFLICT (customer_id, kind, currency) DO NOTHING
        """,
        [moved.customer_id for moved in page],
    )
    sound = [moved for moved in page if moved.is_sound]
    last_journal = await tx.fetchval("SELECT coalesce(max(id), 0) FROM journals")
    journals = {
        row["customer_id"]: row["id"]
        for row in await tx.fetch(
            """
            INSERT INTO journals (kind, idempotency_key, customer_id, note)
            SELECT 'purse_split', 'purse_split:' || id, id, 'the one account before purses' FROM unnest($1::bigint[]) AS id
            RETURNING id, customer_id
            """,
            [moved.customer_id for moved in sound if moved.legs],
        )
    }
    legs = [(journals[moved.customer_id], moved.customer_id, *leg) for moved in sound for leg in moved.legs.items()]
    await tx.execute(
        """
        INSERT INTO postings (journal_id, account_id, currency, amount)
        SELECT leg.journal_id, a.id, a.currency, leg.amount
        FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::bigint[]) AS leg (journal_id, customer_id, kind, amount)
        JOIN accounts a ON a.customer_id = leg.customer_id AND a.kind = leg.kind AND a.currency = 'RUB'
        """,
        *([leg[part] for leg in legs] for part in range(4)),
    )
    await tx.execute(
        """
        INSERT INTO purse_openings (customer_id, paid, credit, earned, debt, rewarded_paid, spent_paid, last_journal, journal_id)
        SELECT customer_id, paid, credit, earned, debt, rewarded_paid, spent_paid, $8, journal_id
        FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
                    $9::bigint[])
             AS o (customer_id, paid, credit, earned, debt, rewarded_paid, spent_paid, journal_id)
        """,
        [moved.customer_id for moved in sound],
        *([moved.replay.held[purse] for moved in sound] for purse in PURSES),
        [moved.replay.debt for moved in sound],
        [min(moved.replay.held["paid"], moved.brought) for moved in sound],
        [moved.spent_paid for moved in sound],
        last_journal,
        [journals.get(moved.customer_id) for moved in sound],
    )
    await tx.execute(
        """
        UPDATE customers c SET first_paid_at = o.at FROM unnest($1::bigint[], $2::timestamptz[]) AS o (id, at)
        WHERE c.id = o.id AND c.first_paid_at IS DISTINCT FROM o.at
        """,
        [moved.customer_id for moved in sound],
        [moved.first_paid_at for moved in sound],
    )
    waiting = [(number, parts) for moved in sound for number, parts in moved.replay.reserved.items()]
    await tx.execute(
        """
        UPDATE withdrawals w SET from_paid = o.paid, from_credit = o.credit
        FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS o (id, paid, credit) WHERE w.id = o.id AND w.state = 'reserved'
        """,
        [number for number, _ in waiting],
        [parts.get("paid", 0) for _, parts in waiting],
        [parts.get("credit", 0) for _, parts in waiting],
    )
    problems = ((moved.customer_id, moved.problem()) for moved in page)
    await open_move_cases(
        tx, [("purse_split", f"customer:{number}", number, found) for number, found in problems if found is not None]
    )


_CUSTOMERS = """
SELECT c.id, coalesce(a.balance, 0) AS balance,
       EXISTS (SELECT FROM purse_openings o WHERE o.customer_id = c.id) AS is_moved
FROM (SELECT id FROM customers WHERE id > $1 ORDER BY id LIMIT $2) AS c
LEFT JOIN accounts a ON a.customer_id = c.id AND a.kind = 'customer' AND a.currency = 'RUB'
ORDER BY c.id
"""

# Postings of one customer have the order of their numbers: who writes them holds the customer's row.
_POSTINGS = """
SELECT a.customer_id, j.id AS journal_id, j.kind, j.created_at, p.amount,
       reserved.id AS reserving, settled.id AS released,
       j.kind = 'case_credit' AND EXISTS (SELECT FROM postings q JOIN accounts b ON b.id = q.account_id
                                          WHERE q.journal_id = j.id AND b.kind = 'suspense') AS from_suspense
FROM accounts a
JOIN postings p ON p.account_id = a.id
JOIN journals j ON j.id = p.journal_id
LEFT JOIN withdrawals reserved ON reserved.reserve_journal_id = j.id
LEFT JOIN withdrawals settled ON settled.settle_journal_id = j.id
WHERE a.customer_id = ANY($1::bigint[]) AND a.kind = 'customer' AND a.currency = 'RUB'
ORDER BY p.id
"""

_PAYMENTS = """
SELECT c.id AS customer_id,
       (SELECT coalesce(sum(m.booked_amount - back.amount), 0)::bigint
        FROM referral_rewards r JOIN money_in m ON m.id = r.money_in_id
        CROSS JOIN LATERAL (SELECT coalesce(sum(amount), 0) AS amount FROM refunds WHERE money_in_id = m.id) AS back
        WHERE r.buyer_id = c.id AND EXISTS (SELECT FROM journals j WHERE j.money_in_id = m.id
                                            AND j.kind IN ('topup', 'payment_credit', 'case_credit'))) AS brought,
       (SELECT min(j.created_at) FROM money_in m
        JOIN journals j ON j.money_in_id = m.id AND j.kind = 'purchase'
        CROSS JOIN LATERAL (SELECT coalesce(sum(amount), 0) AS amount FROM refunds WHERE money_in_id = m.id) AS back
        WHERE m.customer_id = c.id AND m.booked_amount > back.amount) AS bought_at,
       (SELECT coalesce(sum(f.written_off), 0)::bigint FROM journals j JOIN refunds f ON f.journal_id = j.id
        WHERE j.kind = 'refund' AND j.customer_id = c.id) AS written_off
FROM unnest($1::bigint[]) AS c (id)
"""
