"""Cases: what the rules cannot settle waits here, visibly, for a human, who credits it, refunds it or closes it."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

import attrs

from db.billing.ledger import Journal, Purse, SystemAccount, move, post
from db.customers import find_customer, lock_customers
from db.errors import BusinessError
from db.money import Money
from db.tx import Row, Tx
from db.work.audit import Notice, record_audit
from db.work.outbox import add_message

CaseState = Literal["open", "closed"]


@attrs.frozen
class Case:
    """One row of `cases`, with the money that it holds."""

    id: int
    kind: str
    subject: str
    state: CaseState
    opened_at: datetime
    closed_at: datetime | None
    closed_by: str | None
    resolution: str | None
    telegram_id: int | None
    """The customer, if it is known whose it is."""
    money_in_id: int | None
    charge: str | None
    """`provider charge-id` of the captured money, which `atlas refund` goes by."""
    captured: Money | None
    """What the provider captured, in its asset."""
    stated: str
    """What it captured in its own words, if its asset or amount is none that we can hold."""
    suspended: Money
    """What waits on the suspense account; zero when the value in roubles is not known."""
    details: Mapping[str, object]


async def open_case(
    tx: Tx,
    kind: str,
    subject: str,
    *,
    customer_id: int | None = None,
    money_in_id: int | None = None,
    key_row: int | None = None,
    details: Mapping[str, object] | None = None,
) -> int:
    """Open a case, tell the operator, and return its number. The same kind and subject again is the same case."""
    number: int = await tx.fetchval(
        """
        INSERT INTO cases (kind, subject, customer_id, money_in_id, key_id, details)
        VALUES ($1, $2, $3, $4, $5, $6::text::jsonb)
        ON CONFLICT (kind, subject) DO UPDATE SET kind = excluded.kind
        RETURNING id
        """,
        kind,
        subject,
        customer_id,
        money_in_id,
        key_row,
        json.dumps(details or {}),
    )
    await add_message(
        tx, "case_opened", f"case:{number}", payload={"kind": kind, "subject": subject, **(details or {})}
    )
    return number


async def open_case_of_the_day(tx: Tx, kind: str, subject: str, details: Mapping[str, object]) -> int:
    """Open a case of what may go on for long, at most one a subject and day (UTC, database time); returns its number."""
    day = await tx.fetchval("SELECT atlas_now()::date::text")
    return await open_case(tx, kind, f"{subject}:{day}", details=details)


async def list_cases(tx: Tx, state: CaseState | None = "open", after: int = 0, limit: int = 50) -> Sequence[Case]:
    """Cases in this state (`None`: in any) with numbers above `after`, the oldest first."""
    rows = await tx.fetch(
        f"{_CASES} WHERE c.id > $1 AND ($2::text IS NULL OR c.state = $2) ORDER BY c.id LIMIT $3", after, state, limit
    )
    return [_case(row) for row in rows]


async def find_case(tx: Tx, case_id: int) -> Case:
    """One case; raises `BusinessError` when there is none with this number."""
    row = await tx.fetchrow(f"{_CASES} WHERE c.id = $1", case_id)
    if row is None:
        raise BusinessError(f"there is no case {case_id}")
    return _case(row)


async def close_case(tx: Tx, case_id: int, *, resolution: str, actor: str) -> Case:
    """Close a case that holds no money, saying how it was settled; the same again changes nothing.

    Raises `BusinessError` when there is no such case, the resolution is empty, it was closed otherwise, or it holds
    money: that is credited or refunded, never left behind.
    """
    text = resolution.strip()
    if not text:
        raise BusinessError("a case is closed with a word on how it was settled")
    case = await _lock_case(tx, case_id)
    if case.state == "closed":
        return _closed_as(case, text)
    if case.suspended:
        raise BusinessError(
            f"case {case_id} holds {case.suspended}: `atlas cases credit` gives it to a customer, `atlas refund` sends "
            f"{case.charge or 'it'} back; closing it would leave the money with nobody"
        )
    await _close(tx, case_id, text, actor)
    await record_audit(
        tx, actor, "close_case", subject=f"case:{case_id}", details={"kind": case.kind, "resolution": text}
    )
    return await find_case(tx, case_id)


async def credit_case(tx: Tx, case_id: int, telegram_id: int, *, actor: str, amount: Money | None = None) -> Case:
    """Give the captured money of a case to a customer, and close the case.

    All that the suspense account holds of it is moved to the purse `paid`; the referrer is rewarded once it is spent. Of a
    charge whose value is not known, the operator says the `amount`, which comes from the account `adjustment` and goes to
    the purse `credit`: no referrer is rewarded for a guess. Repeating it for the same customer changes nothing. Raises
    `UnknownCustomer`, and `BusinessError` when the case holds no captured money, was settled otherwise, or the amount
    is missing or not the one that is held.
    """
    customer = await find_customer(tx, telegram_id)
    case = await _lock_case(tx, case_id)
    if case.state == "closed":
        return _closed_as(case, f"credited to customer {telegram_id}")
    if case.money_in_id is None or case.captured is None:
        raise BusinessError(
            f"case {case_id} is about {case.subject}, not about captured money; close it when it is settled"
        )
    source: SystemAccount = "suspense"
    value = case.suspended
    if not case.suspended:
        if amount is None or not amount > Money(0):
            raise BusinessError(
                f"the value of {case.stated or case.captured} in roubles is not known: say the amount that the customer is "
                "credited"
            )
        source, value = "adjustment", amount
    elif amount is not None and amount != case.suspended:
        raise BusinessError(f"case {case_id} holds {case.suspended}, and all of it is credited, not {amount}")
    purse = Purse(customer.id, "paid" if source == "suspense" else "credit")
    await lock_customers(tx, [customer.id])
    await post(
        tx,
        Journal(
            "case_credit",
            f"case:{case_id}",
            move(source, purse, value),
            customer_id=customer.id,
            money_in_id=case.money_in_id,
        ),
    )
    await _close(tx, case_id, f"credited to customer {telegram_id}", actor)
    payload = {"amount": value.amount, "currency": value.currency, "why": "case"}
    await record_audit(
        tx,
        actor,
        "credit_case",
        Notice("balance_credited", f"money_in:{case.money_in_id}", customer.id, payload),
        customer_id=customer.id,
        subject=f"case:{case_id}",
        details={"amount": value.amount, "from": source, "to": purse.kind},
    )
    return await find_case(tx, case_id)


async def _lock_case(tx: Tx, case_id: int) -> Case:
    """The captured money first, as a refund locks it, then the case."""
    await tx.execute(
        "SELECT FROM money_in WHERE id = (SELECT money_in_id FROM cases WHERE id = $1) FOR NO KEY UPDATE", case_id
    )
    await tx.execute("SELECT FROM cases WHERE id = $1 FOR NO KEY UPDATE", case_id)
    return await find_case(tx, case_id)


def _closed_as(case: Case, resolution: str) -> Case:
    if case.resolution == resolution:
        return case
    raise BusinessError(
        f"case {case.id} was closed by {case.closed_by or 'somebody'} at {case.closed_at:%Y-%m-%d %H:%M} UTC: "
        f"{case.resolution}"
    )


async def _close(tx: Tx, case_id: int, resolution: str, actor: str) -> None:
    await tx.execute(
        "UPDATE cases SET state = 'closed', closed_at = atlas_now(), resolution = $2, closed_by = $3 WHERE id = $1",
        case_id,
        resolution,
        actor,
    )


_CASES = """
SELECT c.*, c.details::text AS details_text, customers.telegram_id, m.provider || ' ' || m.charge_id AS charge,
       m.amount, m.asset, m.stated, coalesce(m.booked_currency, 'RUB') AS currency,
       (SELECT coalesce(sum(p.amount), 0)::bigint FROM journals j
        JOIN postings p ON p.journal_id = j.id JOIN accounts a ON a.id = p.account_id
        WHERE j.money_in_id = c.money_in_id AND a.kind = 'suspense') AS held
FROM cases c
LEFT JOIN money_in m ON m.id = c.money_in_id
LEFT JOIN customers ON customers.id = c.customer_id
"""


def _case(row: Row) -> Case:
    return Case(
        id=row["id"],
        kind=row["kind"],
        subject=row["subject"],
        state=row["state"],
        opened_at=row["opened_at"],
        closed_at=row["closed_at"],
        closed_by=row["closed_by"],
        resolution=row["resolution"],
        telegram_id=row["telegram_id"],
        money_in_id=row["money_in_id"],
        charge=row["charge"],
        captured=None if row["amount"] is None else Money(row["amount"], row["asset"]),
        stated=row["stated"] or "",
        suspended=Money(row["held"], row["currency"]),
        details=json.loads(row["details_text"]),
    )
