"""One customer side by side: what follows from the facts, and what is stored."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from db.auditor.books import by, read_books
from db.auditor.derivation import Derivation
from db.auditor.findings import Finding, apply_rules
from db.auditor.money_rules import PURSES, legs_in_words
from db.errors import UnknownCustomer
from db.tx import Tx


@attrs.frozen
class Line:
    """One derived value beside the stored one."""

    topic: str
    subject: str
    derived: str
    stored: str

    @property
    def agrees(self) -> bool:
        """Whether both say the same."""
        return self.derived == self.stored


@attrs.frozen
class Explanation:
    """All that was derived of one customer, with what is stored, and the findings about it."""

    customer_id: int
    telegram_id: int
    lines: tuple[Line, ...]
    findings: tuple[Finding, ...]


async def explain(tx: Tx, telegram_id: int) -> Explanation:
    """Derive everything and show one customer. Raises `UnknownCustomer`."""
    books = await read_books(tx)
    customer_id = next((row["id"] for row in books["customers"] if row["telegram_id"] == telegram_id), None)
    if customer_id is None:
        raise UnknownCustomer(f"Telegram id {telegram_id}")
    derived = Derivation(books)
    lines = (*_journals(derived, customer_id), *_purses(derived, customer_id), *_rewards(derived, customer_id))
    lines += (*_intervals(derived, customer_id), *_access(derived, customer_id))
    findings = tuple(found for found in apply_rules(derived) if found.customer_id == customer_id)
    return Explanation(customer_id, telegram_id, lines, findings)


def _journals(derived: Derivation, customer_id: int) -> Iterator[Line]:
    for journal in derived.ledger.journals:
        if journal.customer_id == customer_id:
            due = f"{journal.kind}: {legs_in_words(journal.legs)}"
            has = "nothing"
            if journal.stored is not None:
                has = f"{journal.stored['kind']}: {legs_in_words(derived.stored_legs(journal.stored['id']))}"
            yield Line("journal", journal.subject.removeprefix("journal "), due, has)
    for stored in derived.books["journals"]:
        if stored["customer_id"] == customer_id and derived.journal_of(stored["id"]) is None:
            has = f"{stored['kind']}: {legs_in_words(derived.stored_legs(stored['id']))}"
            due = has if derived.is_opened(stored) else "nothing"
            yield Line("journal", f"{stored['id']} ({stored['idempotency_key']})", due, has)


def _purses(derived: Derivation, customer_id: int) -> Iterator[Line]:
    held = {row["kind"]: row["balance"] for row in derived.books["accounts"] if row["customer_id"] == customer_id}
    for purse in PURSES:
        yield Line("purse", purse, str(derived.ledger.purses.get((customer_id, purse), 0)), str(held.get(purse)))
    since = derived.ledger.rewards.paying_since.get(customer_id)
    customer = by(derived.books["customers"], "id")[customer_id]
    yield Line("customer", "pays since", str(since), str(customer["first_paid_at"]))


def _rewards(derived: Derivation, customer_id: int) -> Iterator[Line]:
    stored = {row["spending_journal_id"]: row for row in derived.books["referral_rewards"]}
    for reward in derived.ledger.rewards.rewards:
        if reward.referrer_id == customer_id:
            spending = reward.spending.journal.stored
            found = stored.get(None if spending is None else spending["id"])
            due = f"{reward.amount} = {reward.percent} % of {reward.base}, mature {reward.matures_at}"
            has = "nothing"
            if found is not None:
                has = f"{found['amount']} = {found['percent']} % of {found['base']}, mature {found['matures_at']}"
            yield Line("reward", f"of customer {reward.buyer_id}, paying friend {reward.friends}", due, has)


def _intervals(derived: Derivation, customer_id: int) -> Iterator[Line]:
    stored = by(derived.books["entitlement_intervals"], "event_id")
    for number, timeline in derived.access.timelines.items():
        if derived.access.customers.get(number) == customer_id:
            for span in timeline.spans.values():
                found = stored.get(span.event_id)
                due = f"{span.tariff} {span.granted}, {span.taken} taken, {span.start} to {span.end}"
                has = "nothing"
                if found is not None:
                    piece = f"{found['starts_at']} to {found['ends_at']}"
                    has = f"{found['tariff']} {found['granted']}, {found['taken']} taken, {piece}"
                yield Line("interval", f"of event {span.event_id}", due, has)


def _access(derived: Derivation, customer_id: int) -> Iterator[Line]:
    for row in derived.books["subscriptions"]:
        timeline = derived.access.timelines.get(row["id"])
        if row["customer_id"] == customer_id and timeline is not None and timeline.ended:
            yield Line("subscription", f"{row['id']}, end", str(timeline.ended[-1][1]), str(row["expires_at"]))
