"""What a plan cost a customer at a moment: the price list of that day, and the best discount of that day."""

from __future__ import annotations

import bisect
import json
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import attrs

from db.auditor.books import Books

LEAST_PRICE: Final = 6_400
"""Kopecks; nothing payable costs less."""
VIP_PERCENT: Final = 30

Fact = Mapping[str, Any]


class Facts:
    """The values of each row of a list over time, from `row_facts`."""

    def __init__(self, books: Books) -> None:
        self._history: dict[tuple[str, str], list[tuple[datetime, Fact]]] = defaultdict(list)
        for row in books["row_facts"]:
            self._history[row["relation"], row["row_key"]].append((row["noted_at"], json.loads(row["fact"])))

    def at(self, relation: str, key: object, at: datetime) -> Fact | None:
        """What was true then; None: nothing is known of that time."""
        history = self._history.get((relation, str(key)), [])
        index = bisect.bisect_right([noted for noted, _ in history], at)
        return history[index - 1][1] if index else None

    def last(self, relation: str, key: object) -> Fact | None:
        """What is true now."""
        history = self._history.get((relation, str(key)))
        return history[-1][1] if history else None

    def first(self, relation: str, key: object) -> tuple[datetime, Fact] | None:
        """What was noted first, and when."""
        history = self._history.get((relation, str(key)))
        return history[0] if history else None

    def of(self, relation: str) -> dict[str, Fact]:
        """What is true now of all rows of a relation that are not gone."""
        return {
            key: history[-1][1]
            for (name, key), history in self._history.items()
            if name == relation and "gone" not in history[-1][1]
        }


def discounted(listed: int, percent: int) -> int:
    """A price with a discount, which is rounded down."""
    return max(LEAST_PRICE, listed - listed * percent // 100) if percent else listed


@attrs.define
class Prices:
    """Prices of plans for customers at any moment."""

    books: Books
    facts: Facts
    _plans: dict[int, list[tuple[datetime, str, int]]] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._plans = defaultdict(list)
        for order in self.books["orders"]:
            if order["state"] == "paid" and order["kind"] == "subscription":
                self._plans[order["customer_id"]].append((order["paid_at"], order["tariff"], order["days"]))
        for opening in self.books["opening_grants"]:
            if opening["plan_days"] is not None:
                plan = (opening["opened_at"], opening["tariff"], opening["plan_days"])
                self._plans[opening["customer_id"]].append(plan)
        for plans in self._plans.values():
            plans.sort()

    def listed(self, tariff: str, days: int, at: datetime) -> int | None:
        """The price list of that day; None: not known."""
        fact = self.facts.at("prices", f"{tariff}:{days}", at)
        return None if fact is None else fact.get("amount")

    def standing(self, customer_id: int, at: datetime) -> tuple[str | None, int]:
        """The better of VIP and personal discount, and its percentage."""
        fact = self.facts.at("customers", customer_id, at) or {}
        vip = VIP_PERCENT if fact.get("is_vip") else 0
        personal = fact.get("personal_discount_percent") or 0
        if not max(vip, personal):
            return None, 0
        return ("vip", vip) if vip >= personal else ("personal", personal)

    def plan_of(self, customer_id: int, at: datetime) -> tuple[str, int] | None:
        """The plan that the customer had bought last by then."""
        plans = self._plans.get(customer_id, [])
        index = bisect.bisect_left(plans, (at, "", 0))
        return plans[index - 1][1:] if index else None

    def of_renewal(self, customer_id: int, at: datetime) -> int | None:
        """What a renewal costs: the plan bought last, at the price of the day, with the standing discount."""
        plan = self.plan_of(customer_id, at)
        listed = None if plan is None else self.listed(*plan, at)
        return None if listed is None else discounted(listed, self.standing(customer_id, at)[1])
