"""Rules of entitlement events, intervals and subscriptions."""

from __future__ import annotations

from datetime import timedelta

from db.auditor.access import MICROSECOND, begins_access
from db.auditor.books import by, grouped
from db.auditor.derivation import Derivation
from db.auditor.findings import Found, rule
from db.auditor.money_rules import differences
from db.auditor.spans import Span
from db.tx import Row

ENDS = ("revoke", "compensation", "refund")
GRANTS = ("grant", "opening")
SWITCHED_OFF = timedelta(minutes=1)


@rule("each entitlement event has a fact that calls for it")
def events_have_facts(derived: Derivation) -> Found:
    for event in derived.access.events:
        if event.expected is None:
            stored = event.stored
            yield f"event {stored['id']}", event.customer_id, None, f"{stored['kind']} of {stored['period']}"


@rule("each fact about access has its entitlement event")
def facts_have_events(derived: Derivation) -> Found:
    for subject, customer_id, missing in derived.access.missing():
        yield subject, customer_id, missing, None


@rule(
    "an entitlement event says the owner, the plan, the time and the documents of its fact, and moves the end by them"
)
def events_say_their_fact(derived: Derivation) -> Found:
    for event in derived.access.events:
        for column, value in (event.expected or {}).items():
            stored = event.customer_id if column == "customer" else event.stored[column]
            if stored != value:
                yield f"event {event.stored['id']}, {column}", event.customer_id, value, stored


@rule("an interval is what its grant gave, less what ran and what was taken back, behind those that come first")
def intervals_follow_grants(derived: Derivation) -> Found:
    stored = by(derived.books["entitlement_intervals"], "event_id")
    owners = {row["id"]: row["subscription_id"] for row in derived.books["entitlement_events"]}
    due: dict[int, tuple[int, Span]] = {
        span.event_id: (number, span)
        for number, timeline in derived.access.timelines.items()
        for span in timeline.spans.values()
    }
    for event_id, (number, span) in due.items():
        found = stored.get(event_id)
        customer_id = derived.access.customers.get(number)
        if found is None:
            yield f"interval {event_id}", customer_id, f"{span.tariff} until {span.end}", None
            continue
        expected = {
            "subscription_id": number,
            "tariff": span.tariff,
            "granted": span.granted,
            "used": span.used,
            "taken": span.taken,
            "starts_at": span.start,
            "ends_at": span.end,
        }
        for column, value in expected.items():
            if found[column] != value:
                yield f"interval {event_id}, {column}", customer_id, value, found[column]
    for event_id, found in stored.items():
        if event_id not in due and owners.get(event_id) not in derived.access.given:
            yield f"interval {event_id}", None, None, f"{found['tariff']} until {found['ends_at']}"


@rule("a subscription ends, runs and is owned as its events say")
def subscriptions_follow_events(derived: Derivation) -> Found:
    events = grouped(derived.books["entitlement_events"], "subscription_id")
    subscriptions = by(derived.books["subscriptions"], "id")
    for number in events.keys() - subscriptions.keys():
        yield f"subscription {number}", None, f"{len(events[number])} events", None
    for number, row in subscriptions.items():
        timeline = derived.access.timelines.get(number)
        if number in derived.access.given:
            continue
        if timeline is None or not timeline.ended:
            yield f"subscription {number}", row["customer_id"], None, f"{row['tariff']} until {row['expires_at']}"
            continue
        last = max(events[number], key=lambda event: event["position"])
        at, end = timeline.ended[-1]
        first = min(events[number], key=lambda event: event["position"])
        source = _source_of(events[number])
        is_ended = last["kind"] in ENDS and end <= at
        has_time = end > derived.books.now or row["state"] == "active"  # which a worker ends a little later
        state = "revoked" if is_ended else "active" if has_time else "expired"
        expected = {"expires_at": end, "created_at": first["created_at"], "source": source, "state": state}
        yield from differences(f"subscription {number}", row["customer_id"], expected, row)


def _source_of(events: list[Row]) -> str | None:
    """Where the access comes from: the grant that came last; a gift only if nothing ran when it came."""
    source: str | None = None
    for event in sorted(events, key=lambda row: row["position"]):
        if event["kind"] in GRANTS and (event["source"] != "admin" or source is None or begins_access(event)):
            source = event["source"]
    return source


@rule("a subscription names the tariff that runs, until that changes")
def subscriptions_name_the_tariff(derived: Derivation) -> Found:
    for row in derived.books["subscriptions"]:
        timeline = derived.access.timelines.get(row["id"])
        if timeline is None or not timeline.ended:
            continue
        at, end = timeline.ended[-1]
        until = row["tariff_until"]
        spans = [span for span in timeline.spans.values() if span.end > span.start]
        before = [span for span in spans if span.start < until <= span.end]
        after = timeline.running(until)
        is_right = bool(before) and before[0].tariff == row["tariff"] and (until == before[0].end)
        is_right = is_right and (after is None or after.tariff != row["tariff"]) and at <= until
        if end <= at:  # ended by force: the name is that of something that ran
            is_right = until == end and row["tariff"] in {span.tariff for span in timeline.spans.values()}
        if not is_right:
            running = timeline.running(min(derived.books.now, end - MICROSECOND))
            words = "nothing" if running is None else f"{running.tariff} until {running.end}"
            yield f"subscription {row['id']}, tariff", row["customer_id"], words, f"{row['tariff']} until {until}"


@rule("the plan of a subscription is the one bought last, at its price")
def subscriptions_keep_the_plan(derived: Derivation) -> Found:
    plans = {row["event_id"]: row["plan_days"] for row in derived.books["opening_grants"]}
    paid = {row["event_id"]: row["price_amount"] for row in derived.books["opening_grants"]}
    bought = {
        event["subscription_id"]: event
        for event in sorted(derived.books["entitlement_events"], key=lambda event: event["position"])
        if (event["kind"] == "grant" and event["source"] in ("payment", "balance", "auto_renewal"))
        or plans.get(event["id"]) is not None
    }
    orders = by(derived.books["orders"], "id")
    for row in derived.books["subscriptions"]:
        event = bought.get(row["id"])
        if row["id"] in derived.access.given:
            continue
        order = None if event is None else orders.get(event["order_id"])
        price = None
        if event is not None:
            price = (
                order["price_amount"] if order else derived.prices.of_renewal(row["customer_id"], event["created_at"])
            )
        days = event and event["period"].days
        if event is not None and event["id"] in plans:
            days, price = plans[event["id"]], paid[event["id"]]
        expected = {
            "plan_tariff": event and event["tariff"],
            "period_days": days,
            "price_amount": row["price_amount"] if event is not None and price is None else price,
            "price_currency": event and "RUB",
        }
        yield from differences(f"subscription {row['id']}", row["customer_id"], expected, row)


@rule("automatic renewal is on because it was switched on, and until it is switched off")
def renewal_is_switched(derived: Derivation) -> Found:
    owned = {row["customer_id"]: row["id"] for row in derived.books["subscriptions"]}
    switches = {
        f"subscription:{owned[row['customer_id']]}": (row["opened_at"], True)
        for row in derived.books["opening_grants"]
        if row["auto_renew"] and row["customer_id"] in owned
    }
    for row, details in derived.said("set_auto_renew"):
        switches[row["subject"]] = (row["at"], details["enabled"])
    for row in derived.books["subscriptions"]:
        at, is_on = switches.get(f"subscription:{row['id']}", (None, False))
        if row["auto_renew"] and not is_on:
            yield f"subscription {row['id']}, auto_renew", row["customer_id"], is_on, True
        elif is_on and not row["auto_renew"] and not _went_back(derived, row["id"], row["customer_id"], at):
            yield f"subscription {row['id']}, auto_renew", row["customer_id"], True, False


def _went_back(derived: Derivation, number: int, customer_id: int, since: object) -> bool:
    return any(
        event["subscription_id"] == number and event["kind"] in ENDS and event["created_at"] >= since
        for event in derived.books["entitlement_events"]
    ) or any(
        (end := derived.ends.get(refund["money_in_id"])) is not None
        and end.customer_id == customer_id
        and refund["created_at"] >= since
        for refund in derived.books["refunds"]
    )


@rule("a renewal is of the period that begins where the one before ended, once")
def renewals_are_once(derived: Derivation) -> Found:
    events = by(derived.books["entitlement_events"], "id")
    journals = by(derived.books["journals"], "idempotency_key")
    for row in derived.books["renewals"]:
        event = events.get(row["event_id"])
        if event is None or event["subscription_id"] in derived.access.given:
            continue
        key = f"renewal:subscription:{row['subscription_id']}:{int(row['period_start'].timestamp())}"
        journal = journals.get(key)
        subject = f"renewal of {row['period_start']}"
        owner = derived.access.customers.get(row["subscription_id"])
        stored = {
            "period_start": row["period_start"],
            "journal_id": row["journal_id"],
            "created_at": row["created_at"],
            "subscription_id": row["subscription_id"],
        }
        expected = {
            "period_start": event["previous_end"],
            "journal_id": journal and journal["id"],
            "created_at": event["created_at"],
            "subscription_id": event["subscription_id"],
        }
        yield from differences(subject, owner, expected, stored)
