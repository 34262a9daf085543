"""The entitlement events that the facts call for, and the intervals that they lead to."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import attrs

from db.auditor.books import Books, by, grouped, number_in
from db.auditor.prices import Prices
from db.auditor.spans import NONE, Span, Timeline
from db.tx import Row

TRIAL: Final = timedelta(hours=72)
PATIENCE: Final = timedelta(minutes=5)
"""A new access that a node has by then was delivered in time."""
SOLD: Final = ("payment", "balance", "auto_renewal")
MICROSECOND: Final = timedelta(microseconds=1)

Expected = dict[str, Any]
"""Columns of an event and what the facts say of them."""


@attrs.define(slots=False)
class Event:
    """A stored event, and what the facts say of it; None: no fact stands behind it."""

    stored: Row
    customer_id: int | None
    expected: Expected | None


@attrs.define(slots=False)
class Access:
    """A replay of all subscriptions, event by event."""

    books: Books
    prices: Prices
    paying: Mapping[Any, int]
    """The charge that pays each order."""
    events: list[Event] = attrs.field(factory=list)
    timelines: dict[int, Timeline] = attrs.field(factory=dict)
    given: set[int] = attrs.field(factory=set)
    """Subscriptions from before intervals, whose past is taken as it is."""
    _before: dict[tuple[int, datetime], Timeline] = attrs.field(factory=dict)
    _subscription_of: dict[int, int] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.customers = {row["id"]: row["customer_id"] for row in self.books["subscriptions"]}
        self._events = by(self.books["entitlement_events"], "id")
        self._orders = by(self.books["orders"], "id")
        self._ranks = {code: fact.get("rank", 0) for code, fact in self.prices.facts.of("tariffs").items()}
        self._refunds = by((row for row in self.books["refunds"] if row["event_id"] is not None), "event_id")
        self._undone = by((row for row in self.books["undone_purchases"] if row["moved_by"] is not None), "moved_by")
        self._refunds_by_id = by(self.books["refunds"], "id")
        self._bases: dict[int, int] = {}
        self._renewals = by(self.books["renewals"], "event_id")
        self._trials = by(self.books["trials"], "event_id")
        self._openings = by(self.books["opening_grants"], "event_id")
        self._placements = by(self.books["first_placements"], "event_id")
        self._outages = by(self.books["prolongations"], "id")
        self._journals = by(self.books["journals"], "idempotency_key")
        self._of_charge = by((row for row in self.books["entitlement_events"] if row["money_in_id"]), "money_in_id")
        self._said: dict[tuple[str, str], Row] = {(row["action"], row["subject"]): row for row in self.books["audit"]}
        self._ends_said = {
            (row["action"], row["subject"], row["at"]): row
            for row in self.books["audit"]
            if row["action"] in ("revoke", "compensate")
        }
        moved = next((row for row in self.books["moving_over"] if row["step"] == "intervals"), None)
        if moved is not None and moved["last_id"]:
            self.given = {
                row["subscription_id"]
                for row in self.books["entitlement_events"]
                if moved["done_at"] is None or row["created_at"] < moved["done_at"]
            }

    def replay(self) -> None:
        """Derive all events and intervals."""
        for number, events in grouped(self.books["entitlement_events"], "subscription_id").items():
            if number in self.given:
                continue
            timeline = self.timelines[number] = Timeline()
            end: datetime | None = None
            for position, event in enumerate(sorted(events, key=lambda row: row["position"]), 1):
                end = self._replay_event(number, timeline, event, position, end)

    def unused(self, grant: int, at: datetime) -> tuple[int, int]:
        """How much of a grant had not run just before the change at that moment, if any of it was left, and how much it was."""
        timeline = self._before.get((self._subscription_of.get(grant, 0), at))
        span = None if timeline is None else timeline.spans.get(grant)
        if span is None or span.left(at) == NONE:
            return 0, 1
        return (span.granted - span.used_until(at)) // MICROSECOND, span.granted // MICROSECOND

    def _replay_event(
        self, number: int, timeline: Timeline, event: Row, position: int, previous: datetime | None
    ) -> datetime:
        now = event["created_at"]
        self._subscription_of[event["id"]] = number
        if event["kind"] in ("refund", "compensation"):
            self._before.setdefault((number, now), copy.deepcopy(timeline))
        expected = self._expected(number, timeline, event)
        if expected is None:
            self.events.append(Event(event, self.customers.get(number), None))
            return previous or event["new_end"]
        tariff, period = expected.get("tariff", event["tariff"]), expected.get("period", event["period"])
        of_event = expected.get("of_event_id")
        match event["kind"]:
            case "grant" | "opening" if period is not None:
                span = Span(event["id"], tariff, self._ranks.get(tariff, 0), period, now, now + period)
                timeline.add(span, now)
            case "delay" if of_event in timeline.spans and period is not None:
                timeline.lengthen(of_event, period, now)
            case "refund" if of_event in timeline.spans and period is not None:
                timeline.take(of_event, period, now)
            case "revoke" | "compensation":
                timeline.take_all(now)
        end = timeline.end(now)
        if event["kind"] in ("revoke", "compensation") and previous is not None and previous < now:
            end = previous
        timeline.note_end(now, end)
        expected |= {"position": position, "previous_end": previous, "new_end": end}
        self.events.append(Event(event, self.customers.get(number), expected))
        return end

    # ---- the fact behind an event ----------------------------------------------------------------------------------------

    def _expected(self, number: int, timeline: Timeline, event: Row) -> Expected | None:
        match event["kind"]:
            case "grant" if event["source"] in ("payment", "balance"):
                return self._bought(number, event)
            case "grant" if event["source"] == "auto_renewal":
                return self._renewed(number, event)
            case "grant" if event["source"] == "trial":
                return self._tried(number, event)
            case "grant":
                return self._given(number, timeline, event)
            case "delay":
                return self._delayed(timeline, event)
            case "refund":
                return self._refunded(timeline, event)
            case "revoke" | "compensation":
                return self._ended(number, timeline, event)
            case "opening":
                return self._brought_along(event)
        return None

    def _bought(self, number: int, event: Row) -> Expected | None:
        order = self._orders.get(event["order_id"])
        if order is None or order["state"] != "paid" or order["kind"] != "subscription":
            return None
        charge = self.paying.get(order["id"])
        is_charged = order["paid_from"] == "provider"
        action = (
            ("finalize_purchase", f"money_in:{charge}")
            if is_charged
            else ("finalize_balance_purchase", f"order:{order['id']}")
        )
        return {
            "customer": order["customer_id"],
            "source": "payment" if is_charged else "balance",
            "tariff": order["tariff"],
            "period": timedelta(days=order["days"]),
            "order_id": order["id"],
            "money_in_id": charge if is_charged else None,
            "journal_id": self._journal(f"purchase:{order['id']}"),
            "created_at": order["paid_at"],
            "of_event_id": None,
            "idempotency_key": None,
            **self._who(*action),
        }

    def _renewed(self, number: int, event: Row) -> Expected | None:
        renewal = self._renewals.get(event["id"])
        customer = self.customers.get(number)
        if renewal is None or customer is None or renewal["subscription_id"] != number:
            return None
        plan = self.prices.plan_of(customer, renewal["created_at"])
        subject = f"subscription:{number}:{int(renewal['period_start'].timestamp())}"
        return {
            **({} if plan is None else {"tariff": plan[0], "period": timedelta(days=plan[1])}),
            "order_id": None,
            "money_in_id": None,
            "journal_id": self._journal(f"renewal:{subject}"),
            "idempotency_key": f"renewal:{subject}",
            "created_at": renewal["created_at"],
            "of_event_id": None,
            **self._who("renew", subject),
        }

    def _tried(self, number: int, event: Row) -> Expected | None:
        trial, said = self._trials.get(event["id"]), self._said.get(("grant_trial", f"event:{event['id']}"))
        if trial is None or said is None:
            return None
        return {
            "customer": trial["customer_id"],
            "period": TRIAL,
            "tariff": json.loads(said["details"])["tariff"],
            "created_at": trial["granted_at"],
            "actor": said["actor"],
            **_alone(),
        }

    def _given(self, number: int, timeline: Timeline, event: Row) -> Expected | None:
        subject = f"event:{event['id']}"
        said = self._said.get(("grant_admin", subject)) or self._said.get(("prolong", subject))
        if said is None:
            return None
        details = json.loads(said["details"])
        expected = {
            "customer": said["customer_id"],
            "source": "admin",
            "created_at": said["at"],
            "actor": said["actor"],
            **_alone(without_key=False),
        }
        if said["action"] == "grant_admin":
            hours = timedelta(hours=details["hours"])
            is_so = event["period"] is not None and hours <= event["period"] < hours + timedelta(hours=1)
            return {**expected, "tariff": details["tariff"], "period": event["period"] if is_so else hours}
        outage = self._outages.get(details["prolongation"])
        if outage is None:
            return None
        running = timeline.running(event["created_at"])
        period = timeline.overlap(outage["since"], outage["until"], event["created_at"])
        return {**expected, "period": period, **({} if running is None else {"tariff": running.tariff})}

    def _brought_along(self, event: Row) -> Expected | None:
        """Access until an end that it had in another system."""
        opening = self._openings.get(event["id"])
        if opening is None:
            return None
        return {
            "customer": opening["customer_id"],
            "source": opening["source"],
            "tariff": opening["tariff"],
            "period": opening["ends_at"] - opening["opened_at"],
            "created_at": opening["opened_at"],
            "actor": opening["actor"],
            "idempotency_key": f"opening:{opening['idempotency_key']}",
            **_alone(without_key=False),
        }

    def _delayed(self, timeline: Timeline, event: Row) -> Expected | None:
        grant, placed = self._events.get(event["of_event_id"]), self._placements.get(event["of_event_id"])
        if grant is None or placed is None or grant["subscription_id"] != event["subscription_id"]:
            return None
        waited = placed["placed_at"] - grant["created_at"]
        if waited <= PATIENCE or not begins_access(grant) or grant["source"] not in SOLD:
            return None
        return {
            "period": waited,
            "tariff": grant["tariff"],
            "of_event_id": grant["id"],
            "created_at": placed["placed_at"],
            **self._who("delay", f"event:{event['id']}"),
            "order_id": None,
            "money_in_id": None,
            "journal_id": None,
        }

    def _refunded(self, timeline: Timeline, event: Row) -> Expected | None:
        refund, undone = self._refunds.get(event["id"]), self._undone.get(event["id"])
        if refund is not None:
            grant = self._of_charge.get(refund["money_in_id"])
            of_event = None if grant is None else grant["id"]
            journal = refund["journal_id"]
        elif undone is not None:
            refund, of_event, journal = self._refunds_by_id.get(undone["refund_id"]), undone["event_id"], None
        else:
            return None
        span = timeline.spans.get(of_event) if of_event is not None else None
        if refund is None or span is None:
            return None
        period = span.left(event["created_at"])
        if undone is not None and journal is None:
            period = self._part(undone, span, period)
            if event["period"] is not None and abs(event["period"] - period) <= MICROSECOND:
                period = event["period"]  # who divides time rounds it
        return {
            "period": period,
            "tariff": span.tariff,
            "of_event_id": of_event,
            "journal_id": journal,
            "created_at": refund["created_at"],
            "actor": refund["actor"],
            "order_id": None,
            "money_in_id": None,
            "idempotency_key": None,
        }

    def _part(self, undone: Row, span: Span, left: timedelta) -> timedelta:
        """What went back of the outside money in a purchase takes its share of the time that is left."""
        grant = self._events[span.event_id]
        order = self._orders.get(grant["order_id"])
        customer = self.customers.get(grant["subscription_id"])
        price = order["price_amount"] if order is not None else None
        if price is None and customer is not None:
            price = self.prices.of_renewal(customer, grant["created_at"])
        before = self._bases.get(span.event_id, 0)
        self._bases[span.event_id] = before + undone["base"]
        if not price or price - before <= undone["base"]:
            return left
        return timedelta(microseconds=left // MICROSECOND * undone["base"] // (price - before))

    def _ended(self, number: int, timeline: Timeline, event: Row) -> Expected | None:
        action = "revoke" if event["kind"] == "revoke" else "compensate"
        said = self._ends_said.get((action, f"subscription:{number}", event["created_at"]))
        if said is None:
            return None
        return {"customer": said["customer_id"], "actor": said["actor"], "source": "admin", "period": None, **_alone()}

    def _journal(self, key: str) -> int | None:
        stored = self._journals.get(key)
        return None if stored is None else stored["id"]

    def _who(self, action: str, subject: str) -> Expected:
        said = self._said.get((action, subject))
        return {"actor": None} if said is None else {"actor": said["actor"]}

    # ---- facts without an event -------------------------------------------------------------------------------------------

    def missing(self) -> Iterator[tuple[str, int | None, str]]:
        """Facts that call for an event which is not there: subject, customer, what is missing."""
        stored = self.books["entitlement_events"]
        by_order = by((row for row in stored if row["order_id"] is not None), "order_id")
        for order in self.books["orders"]:
            if order["state"] == "paid" and order["kind"] == "subscription" and order["id"] not in by_order:
                yield (
                    f"order {order['id']}",
                    order["customer_id"],
                    f"a grant of {order['tariff']} for {order['days']} days",
                )
        for table, action in (("trials", "grant_trial"), ("renewals", "renew")):
            for row in self.books[table]:
                if row["event_id"] is not None and row["event_id"] not in self._events:
                    whose = row["customer_id"] if table == "trials" else self.customers.get(row["subscription_id"])
                    yield f"event {row['event_id']}", whose, f"the grant of {action}"
        ends = {(row["subscription_id"], row["kind"], row["created_at"]) for row in stored}
        for said in self.books["audit"]:
            if said["action"] in ("grant_admin", "grant_trial", "prolong", "delay"):
                if said["subject"].startswith("event:") and number_in(said["subject"]) not in self._events:
                    yield said["subject"].replace(":", " "), said["customer_id"], f"the event of {said['action']}"
            elif said["action"] in ("revoke", "compensate"):
                kind = "revoke" if said["action"] == "revoke" else "compensation"
                number = number_in(said["subject"])
                if number not in self.given and (number, kind, said["at"]) not in ends:
                    yield f"subscription {number}", said["customer_id"], f"an end by {said['action']} at {said['at']}"
        for event_id, opening in self._openings.items():
            if event_id not in self._events:
                yield f"event {event_id}", opening["customer_id"], f"access brought along until {opening['ends_at']}"
        for refund in self.books["refunds"]:
            if refund["event_id"] is not None and refund["event_id"] not in self._events:
                yield f"refund {refund['id']}", None, f"event {refund['event_id']}, which takes time back"
        yield from self._missing_delays()

    def _missing_delays(self) -> Iterator[tuple[str, int | None, str]]:
        delayed = {row["of_event_id"] for row in self.books["entitlement_events"] if row["kind"] == "delay"}
        went_back = {row["money_in_id"] for row in self.books["refunds"]}
        given_back = {
            row["event_id"] for table in ("compensation_parts", "undone_purchases") for row in self.books[table]
        }
        for event_id, placed in self._placements.items():
            grant = self._events.get(event_id)
            if grant is None:
                yield f"first placement {event_id}", None, "the grant that was delivered"
            elif (
                placed["placed_at"] - grant["created_at"] > PATIENCE
                and grant["source"] in SOLD
                and begins_access(grant)
                and grant["subscription_id"] not in self.given
                and not {event_id} & (delayed | given_back)
                and grant["money_in_id"] not in went_back
            ):
                whose = self.customers.get(grant["subscription_id"])
                yield f"event {event_id}", whose, f"a delay of {placed['placed_at'] - grant['created_at']}"


def begins_access(grant: Row) -> bool:
    """Whether access began with this grant: nothing ran when it came."""
    return grant["kind"] == "grant" and (grant["previous_end"] is None or grant["previous_end"] <= grant["created_at"])


def _alone(*, without_key: bool = True) -> Expected:
    return {
        "order_id": None,
        "money_in_id": None,
        "journal_id": None,
        "of_event_id": None,
        **({"idempotency_key": None} if without_key else {}),
    }
