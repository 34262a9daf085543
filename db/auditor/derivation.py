"""All that follows from the facts, derived once and compared by many rules."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import attrs

from db.auditor.access import Access
from db.auditor.books import Books, by, grouped
from db.auditor.charges import ChargeEnd, charge_ends, paying_charges
from db.auditor.ledger import Journal, Ledger
from db.auditor.prices import Facts, Prices
from db.tx import Row


@attrs.define(slots=False)
class Derivation:
    """The books, and what had to become of their facts."""

    books: Books
    ends: dict[int, ChargeEnd] = attrs.field(init=False)
    paying: dict[Any, int] = attrs.field(init=False)
    facts: Facts = attrs.field(init=False)
    prices: Prices = attrs.field(init=False)
    access: Access = attrs.field(init=False)
    ledger: Ledger = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.ends = charge_ends(self.books)
        self.paying = paying_charges(self.ends)
        self.facts = Facts(self.books)
        self.prices = Prices(self.books, self.facts)
        self.access = Access(self.books, self.prices, self.paying)
        self.access.replay()
        self.ledger = Ledger(self.books, self.ends, self.access.unused)
        self.ledger.replay()
        self._by_stored = {
            journal.stored["id"]: journal for journal in self.ledger.journals if journal.stored is not None
        }
        self.journals = by(self.books["journals"], "id")
        self.accounts = by(self.books["accounts"], "id")
        self.legs = grouped(self.books["postings"], "journal_id")
        self.openings = by(self.books["purse_openings"], "customer_id")

    def journal_of(self, number: int) -> Journal | None:
        """The derived journal that a stored one stands for."""
        return self._by_stored.get(number)

    def is_opened(self, stored: Row) -> bool:
        """Whether a journal is from before the customer's purses, and so part of what was brought along."""
        opening = self.openings.get(stored["customer_id"])
        if opening is None:
            return stored["customer_id"] is None and self.is_brought_along(stored["created_at"])
        return bool(stored["id"] <= opening["last_journal"])

    def is_brought_along(self, at: datetime) -> bool:
        """Whether something happened before purses came, which `purse_openings` then stands for."""
        return self.ledger.began is not None and at < self.ledger.began

    def stored_legs(self, number: int) -> dict[tuple[str, int | None], int]:
        """What a stored journal moves, by account kind and customer."""
        legs: dict[tuple[str, int | None], int] = {}
        for leg in self.legs.get(number, ()):
            account = self.accounts.get(leg["account_id"])
            name = ("unknown", None) if account is None else (account["kind"], account["customer_id"])
            legs[name] = legs.get(name, 0) + leg["amount"]
        return legs

    def said(self, action: str) -> list[tuple[Row, dict[str, Any]]]:
        """What the trail says of one action, with its details."""
        return [(row, json.loads(row["details"])) for row in self.books["audit"] if row["action"] == action]
