"""Rules of what customers bring from another system, of which nothing but the trail and these rows says anything."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from db.auditor.books import grouped, number_in
from db.auditor.derivation import Derivation
from db.auditor.findings import Found, rule
from db.auditor.money_rules import differences
from db.tx import Row

AMOUNTS: Final = ("paid", "credit", "earned", "debt", "rewarded_paid", "spent_paid")
ACCESS: Final = ("tariff", "source", "plan_days", "price_amount", "auto_renew", "uuid_digest")


@rule("what a customer brought from another system is what the trail says, and each is written there")
def openings_are_in_the_trail(derived: Derivation) -> Found:
    openings = {f"customer:{row['customer_id']}": row for row in derived.books["openings"]}
    grants = {f"event:{row['event_id']}": row for row in derived.books["opening_grants"]}
    trials = {f"customer:{row['customer_id']}": row for row in derived.books["trials"] if row["event_id"] is None}
    yield from _said(derived, "open_balance", openings, AMOUNTS, "paid_since", "opened_at")
    yield from _said(derived, "open_access", grants, ACCESS, "ends_at", "opened_at")
    yield from _said(derived, "open_trial", trials, (), "granted_at", None)
    for row in derived.books["openings"]:
        if row["currency"] != "RUB":
            yield "opening, currency", row["customer_id"], "RUB", row["currency"]


def _said(
    derived: Derivation,
    action: str,
    rows: Mapping[str, Row],
    columns: tuple[str, ...],
    moment: str,
    written: str | None,
) -> Found:
    """Each row beside its one entry; `moment` is a time that the entry's details say, `written` the column of its own time."""
    left = dict(rows)
    for entry, details in derived.said(action):
        row = left.pop(entry["subject"], None)
        if row is None:
            yield f"{action} {entry['subject']}", entry["customer_id"], f"what the trail says at {entry['at']}", None
            continue
        told = details.get(moment)
        expected: dict[str, Any] = {name: details.get(name) for name in columns}
        expected[moment] = None if told is None else datetime.fromisoformat(told)
        expected["customer_id"] = entry["customer_id"]
        if written is not None:
            expected |= {written: entry["at"], "actor": entry["actor"], "idempotency_key": details.get("key")}
        yield from differences(f"{action} {number_in(entry['subject'])}", row["customer_id"], expected, row)
    for subject, row in left.items():
        yield f"{action} {subject}", row["customer_id"], None, "a row of which the trail says nothing"


@rule("an opening names its journal")
def openings_name_their_journals(derived: Derivation) -> Found:
    stored = {journal.key: journal.stored for journal in derived.ledger.journals if journal.kind == "opening"}
    for row in derived.books["openings"]:
        journal = stored.get(f"opening:{row['customer_id']}")
        expected = {"journal_id": journal and journal["id"]}
        yield from differences("opening", row["customer_id"], expected, row)


@rule("who brought access along keeps the key that stands in their links")
def brought_keys_are_kept(derived: Derivation) -> Found:
    keys = grouped(derived.books["vpn_keys"], "subscription_id")
    of_customer = {row["customer_id"]: row["id"] for row in derived.books["subscriptions"]}
    for row in derived.books["opening_grants"]:
        mine = {key["uuid"] for key in keys.get(of_customer.get(row["customer_id"]), ())}
        if row["uuid_digest"] not in mine:
            yield "key", row["customer_id"], f"a key of the digest {row['uuid_digest'][:8]}…", f"{len(mine)} others"
