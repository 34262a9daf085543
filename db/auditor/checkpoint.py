"""What was audited and found clean, as digests: what is altered later is noticed, and what is unchanged is not derived again.

Rows and columns that never change are kept as a count and a digest up to a number: whoever alters, deletes or adds one among
them shows, even if everything that follows from it is altered as well. Each line has a seal of its own values, so that a
line that was altered by hand shows too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs

from db.auditor.books import QUERIES
from db.auditor.findings import Finding
from db.tx import Tx

FINAL: Final[Mapping[str, tuple[str, str]]] = {
    "first_placements": ("t", "placed_at"),
    "audit": ("t", "at"),
    "cases": ("(id, kind, subject, customer_id, money_in_id, opened_at)", "opened_at"),
    "entitlement_events": ("t", "created_at"),
    "journals": ("t", "created_at"),
    "money_in": ("t", "received_at"),
    "openings": ("t", "opened_at"),
    "opening_grants": ("t", "opened_at"),
    "orders": (
        "(id, customer_id, kind, tariff, days, list_amount, discount_source, discount_percent, promo_code_id, price_amount, "
        "price_currency, quoted_amount, quoted_asset, quoted_rate, idempotency_key, created_at, expires_at)",
        "created_at",
    ),
    "provider_refunds": (
        "(id, money_in_id, idempotency_key, amount, asset, booked_amount, booked_currency, takes_access, writes_off, actor, "
        "created_at)",
        "created_at",
    ),
    "postings": ("t", "(SELECT created_at FROM journals j WHERE j.id = t.journal_id)"),
    "prolongations": ("t", "created_at"),
    "rates_kept": ("t", "kept_at"),
    "referral_rewards": ("t", "created_at"),
    "referral_rules": ("t", "valid_from"),
    "refunds": ("t", "created_at"),
    "reward_takebacks": ("t", "created_at"),
    "row_facts": ("t", "noted_at"),
    "withdrawals": (
        "(id, customer_id, idempotency_key, amount, currency, requisites, reserve_journal_id, created_at, from_paid, "
        "from_credit)",
        "created_at",
    ),
}
"""Tables whose rows or columns never change: what of them is kept, and when a row was written."""
NUMBERS: Final = {
    "first_placements": "(extract(epoch FROM placed_at) * 1000000)::bigint",
    "openings": "(extract(epoch FROM opened_at) * 1000000)::bigint",
    "opening_grants": "event_id",
    "rates_kept": "order_id",
}
"""What numbers the rows of a table that has no `id`."""
SETTLED: Final = "1 hour"
"""Rows are kept once they are so old. A number may be given before another and committed after it, by minutes at most."""
CHANGED: Final = "what was audited is not altered afterwards"
SEALED: Final = "a checkpoint of the auditor is as the auditor wrote it"


async def check_parts(tx: Tx, tables: Iterable[str] = QUERIES) -> tuple[list[Finding], bool]:
    """What was altered since the last clean audit, and whether everything is as it was then."""
    findings: list[Finding] = []
    is_same = True
    parts = {row["part"]: row for row in await tx.fetch("SELECT * FROM audited_parts")}
    for table in tables:
        for part in (table, *((f"{table}:final",) if table in FINAL else ())):
            kept = parts.get(part)
            if kept is None:
                is_same = False
                continue
            if kept["seal"] != _seal(part, kept["last_id"], kept["rows"], kept["digest"]):
                findings.append(Finding(SEALED, f"checkpoint of {part}", "its own seal", "another one"))
            rows, digest = await _digest(tx, part, kept["last_id"])
            if (rows, digest) != (kept["rows"], kept["digest"]):
                is_same = False
                if part != table:
                    derived = f"{kept['rows']} rows up to number {kept['last_id']}, as on {kept['audited_at']}"
                    stored = f"{rows} rows" if rows != kept["rows"] else "other values in them"
                    findings.append(Finding(CHANGED, table, derived, stored))
    return findings, is_same


@attrs.frozen
class Part:
    """How many rows a part had at one moment, and a digest of them."""

    name: str
    """A table; with `:final` its rows and columns that never change, up to a number."""
    last_id: int
    rows: int
    digest: str


async def digest_parts(tx: Tx) -> list[Part]:
    """What there is now, to be written down once it has been found clean."""
    parts = []
    for table in QUERIES:
        parts.append(Part(table, 0, *await _digest(tx, table, 0)))
        if table in FINAL:
            written = FINAL[table][1]
            last_id = await tx.fetchval(
                f"SELECT coalesce(max({NUMBERS.get(table, 'id')}), 0) FROM {table} t "  # noqa: S608 - names of this file
                f"WHERE {written} < atlas_now() - interval '{SETTLED}'"
            )
            parts.append(Part(f"{table}:final", last_id, *await _digest(tx, f"{table}:final", last_id)))
    return parts


async def write_parts(tx: Tx, parts: Sequence[Part]) -> None:
    """Note these as audited and clean."""
    await tx.execute(
        """
        INSERT INTO audited_parts (part, last_id, rows, digest, seal)
        SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::text[])
        ON CONFLICT (part) DO UPDATE SET last_id = excluded.last_id, rows = excluded.rows, digest = excluded.digest,
            seal = excluded.seal, audited_at = atlas_now()
        """,
        [part.name for part in parts],
        [part.last_id for part in parts],
        [part.rows for part in parts],
        [part.digest for part in parts],
        [_seal(part.name, part.last_id, part.rows, part.digest) for part in parts],
    )


async def keep_parts(tx: Tx) -> None:
    """Note everything as audited and clean. The caller has audited it in the same snapshot."""
    await write_parts(tx, await digest_parts(tx))


async def _digest(tx: Tx, part: str, last_id: int) -> tuple[int, str]:
    """How many rows a part has, and a digest of them that does not depend on their order."""
    table, _, is_final = part.partition(":")
    row = FINAL[table][0] if is_final else "t"
    where = f"WHERE {NUMBERS.get(table, 'id')} <= {int(last_id)}" if is_final else ""
    halves = [f"coalesce(sum(('x' || substr(d, {start}, 15))::bit(60)::bigint::numeric), 0)" for start in (1, 17)]
    found = await tx.fetchrow(
        f"SELECT count(*) AS rows, {halves[0]} || ':' || {halves[1]} AS digest "  # noqa: S608 - names of this file
        f"FROM (SELECT md5({row}::text) AS d FROM {table} t {where}) hashed"
    )
    assert found is not None
    return found["rows"], found["digest"]


def _seal(part: str, last_id: int, rows: int, digest: str) -> str:
    return hashlib.sha256(f"atlas auditor:{part}:{last_id}:{rows}:{digest}".encode()).hexdigest()
