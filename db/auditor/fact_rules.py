"""Rules of the facts themselves: two places that say the same thing say it alike."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime, timedelta
from itertools import pairwise

from db.auditor.access import SOLD, begins_access
from db.auditor.books import by, grouped, number_in
from db.auditor.charges import CLOCKS_APART
from db.auditor.derivation import Derivation
from db.auditor.findings import Found, rule
from db.auditor.money_rules import differences
from db.auditor.prices import discounted
from db.auditor.trail_rules import RESULTS
from db.tx import Row

ORDER_LIFETIME = timedelta(minutes=30)
KEYS = {
    "prices": ("tariff", "days"),
    "tariffs": ("code",),
    "assets": ("code",),
    "promo_codes": ("id",),
    "customers": ("id",),
    "vpn_keys": ("id",),
    "subscription_links": ("customer_id",),
}
"""Relations whose values are noted by triggers, and the columns that name their rows."""
NOTED = {
    "prices": {"amount", "currency"},
    "tariffs": {"rank", "is_sold"},
    "assets": {"digits"},
    "promo_codes": {"code", "percent", "max_uses", "valid_until"},
    "customers": {"telegram_id", "referrer_id", "is_vip", "personal_discount_percent"},
    "vpn_keys": {"subscription_id", "key_id", "uuid"},
    "subscription_links": {"token"},
}
"""The columns that are noted."""


@rule("prices, tariffs, codes, customers, keys and links are what was noted when they were written")
def rows_are_as_noted(derived: Derivation) -> Found:
    for relation, columns in KEYS.items():
        facts = derived.facts.of(relation)
        for row in derived.books[relation]:
            key = ":".join(str(row[column]) for column in columns)
            fact = facts.pop(key, None)
            customer_id = row["id"] if relation == "customers" else None
            if fact is None:
                yield f"{relation} {key}", customer_id, None, "a row that was never noted"
            else:
                for column in sorted(NOTED[relation]):
                    value = fact.get(column, "nothing of this")
                    stored = row[column].isoformat() if column == "valid_until" and row[column] else row[column]
                    if stored != value and not _same_time(stored, value):
                        yield f"{relation} {key}, {column}", customer_id, value, row[column]
        for key, fact in facts.items():
            yield f"{relation} {key}", None, fact, None


def _same_time(stored: object, value: object) -> bool:
    if not isinstance(stored, str) or not isinstance(value, str) or "T" not in value:
        return False
    return datetime.fromisoformat(stored) == datetime.fromisoformat(value)


@rule(
    "an order costs what the price list and the best discount of its day say, for half an hour or as long as its page"
)
def orders_cost_what_was_listed(derived: Derivation) -> Found:
    pages = grouped(derived.books["invoices"], "order_id")
    for order in derived.books["orders"]:
        if derived.is_brought_along(order["created_at"]):
            continue
        # A pay page that outlives its order is honoured at its price, as long as nothing was paid before it was opened.
        half_an_hour = order["created_at"] + ORDER_LIFETIME
        ends = [page["page_ends_at"] for page in pages.get(order["id"], ()) if page["page_ends_at"] is not None]
        lasts = order["expires_at"] if order["expires_at"] in ends else max([half_an_hour, *ends])
        if order["expires_at"] == half_an_hour and order["state"] != "pending":
            lasts = half_an_hour
        expected = {"price_currency": "RUB", "expires_at": lasts}
        promo = None
        if order["promo_code_id"] is not None:
            fact = derived.facts.last("promo_codes", order["promo_code_id"])
            promo = None if fact is None else fact["percent"]
        if order["kind"] == "topup":
            expected |= {"list_amount": order["price_amount"], "discount_percent": 0, "discount_source": None}
        elif derived.facts.first("customers", order["customer_id"]) is not None:
            listed = derived.prices.listed(order["tariff"], order["days"], order["created_at"])
            source, percent = derived.prices.standing(order["customer_id"], order["created_at"])
            if promo is not None:
                source, percent = "promo", promo
            if listed is not None:
                expected |= {
                    "list_amount": listed,
                    "discount_source": source,
                    "discount_percent": percent,
                    "price_amount": discounted(listed, percent),
                }
        if order["quoted_asset"] == "RUB":
            expected |= {"quoted_amount": order["price_amount"], "quoted_rate": 1}
        yield from differences(f"order {order['id']}", order["customer_id"], expected, order)


@rule("an order is paid once, by the charge or the journal that pays it, at its time")
def orders_are_paid_by_something(derived: Derivation) -> Found:
    charges = by(derived.books["money_in"], "id")
    spent = {row["subject"]: row for row, _ in derived.said("finalize_balance_purchase")}
    cancelled = {row["subject"] for row, _ in derived.said("cancel_order")}
    for order in derived.books["orders"]:
        charge, said = derived.paying.get(order["id"]), spent.get(f"order:{order['id']}")
        opening = derived.openings.get(order["customer_id"])
        if opening is not None and order["created_at"] < opening["moved_at"]:
            continue
        if charge is not None:
            expected = {"state": "paid", "paid_from": "provider", "paid_at": charges[charge]["received_at"]}
        elif said is not None:
            expected = {"state": "paid", "paid_from": "balance", "paid_at": said["at"]}
        elif order["state"] == "paid":
            expected = {"state": "pending or expired", "paid_from": None, "paid_at": None}
        elif f"order:{order['id']}" in cancelled:
            expected = {"state": "cancelled"}
        elif order["state"] == "cancelled" or order["expires_at"] > derived.books.now + CLOCKS_APART:
            expected = {"state": "pending"}
        else:
            expected = {}
        yield from differences(f"order {order['id']}", order["customer_id"], expected, order)


@rule("a charge is booked at the value that its order was quoted at")
def charges_are_booked_as_quoted(derived: Derivation) -> Found:
    for charge in derived.books["money_in"]:
        expected = {"booked_amount": derived.ends[charge["id"]].value, "booked_currency": "RUB"}
        yield from differences(f"charge {charge['id']}", charge["customer_id"], expected, charge)


@rule("a code is used once by each customer, by the paid orders that name it, and as often as it says")
def codes_are_used_by_paid_orders(derived: Derivation) -> Found:
    due = {
        order["id"]: (order["promo_code_id"], order["customer_id"], order["paid_at"])
        for order in derived.books["orders"]
        if order["state"] == "paid" and order["promo_code_id"] is not None
    }
    stored = {
        row["order_id"]: (row["promo_code_id"], row["customer_id"], row["used_at"])
        for row in derived.books["promo_uses"]
    }
    for number in due.keys() | stored.keys():
        if due.get(number) != stored.get(number):
            yield f"code of order {number}", None, due.get(number), stored.get(number)
    uses = Counter(code for code, _, _ in due.values())
    twice = Counter((code, customer_id) for code, customer_id, _ in due.values())
    for (code, customer_id), count in twice.items():
        if count > 1:
            yield f"code {code}", customer_id, "one use", f"{count} uses"
    for row in derived.books["promo_codes"]:
        if row["uses"] != uses[row["id"]]:
            yield f"code {row['id']}, uses", None, uses[row["id"]], row["uses"]


@rule("money whose owner or value is not known waits in a case, until it is credited or refunded")
def unknown_money_waits_in_a_case(derived: Derivation) -> Found:
    cases = {row["money_in_id"]: row for row in derived.books["cases"] if row["money_in_id"] is not None}
    charges = by(derived.books["money_in"], "id")
    credited = {row["subject"]: row for row, _ in derived.said("credit_case")}
    refunds = grouped(derived.books["refunds"], "money_in_id")
    for number, end in derived.ends.items():
        case = cases.pop(number, None)
        if derived.is_brought_along(charges[number]["received_at"]):
            continue
        if end.kind not in ("suspense", "unvalued"):
            if case is not None:
                yield f"case {case['id']}", end.customer_id, None, f"charge {number}, which is settled"
        elif case is None:
            yield f"charge {number}", end.customer_id, "a case", None
        else:
            charge = charges[number]
            said = credited.get(f"case:{case['id']}")
            returned = refunds.get(number, [])
            is_returned = end.value > 0 and sum(row["amount"] for row in returned) >= end.value
            expected = {
                "kind": "payment",
                "subject": f"money_in:{number}",
                "customer_id": charge["customer_id"],
                "opened_at": charge["received_at"],
            }
            told, captured = json.loads(case["details"]), {"amount": charge["amount"], "order": charge["order_id"]}
            yield from differences(f"case {case['id']}", charge["customer_id"], captured, _Words(told))
            if said is not None:
                expected |= {"state": "closed", "closed_at": said["at"], "closed_by": said["actor"]}
            elif is_returned:
                expected |= {
                    "state": "closed",
                    "closed_at": returned[-1]["created_at"],
                    "closed_by": returned[-1]["actor"],
                }
            elif end.value > 0:
                expected |= {"state": "open", "closed_at": None}
            yield from differences(f"case {case['id']}", charge["customer_id"], expected, case)
    for number, case in cases.items():
        yield f"case {case['id']}", case["customer_id"], f"charge {number}", None


class _Words(dict[str, object]):
    """Details of a case or of the trail; what is not said is None."""

    def __missing__(self, key: str) -> None:
        return None


@rule("a case that is open was closed by nobody")
def open_cases_are_open(derived: Derivation) -> Found:
    for case in derived.books["cases"]:
        if case["state"] == "open":
            yield from differences(
                f"case {case['id']}", case["customer_id"], {"closed_at": None, "closed_by": None}, case
            )


@rule("a chargeback of money that was spent has a case with its numbers")
def chargebacks_have_cases(derived: Derivation) -> Found:
    cases = {row["subject"]: row for row in derived.books["cases"] if row["kind"] == "chargeback"}
    for row, details in derived.said("refund"):
        number = number_in(row["subject"])
        loss = derived.ledger.losses.get(number)
        if not details.get("chargeback") or loss is None:
            continue
        case = cases.pop(f"refund:{number}", None)
        if case is None and not (loss.spent or loss.uncompensated):
            continue
        if case is None:
            yield f"refund {number}", row["customer_id"], "a case", None
            continue
        told = _Words(json.loads(case["details"]))
        expected = {
            "owed": loss.owed,
            "spent": loss.spent,
            "written_off": loss.written_off,
            "amount": loss.refund["amount"],
        }
        yield from differences(f"case {case['id']}", row["customer_id"], expected, told)
        yield from differences(f"case {case['id']}", row["customer_id"], {"customer_id": row["customer_id"]}, case)
    for subject, case in cases.items():
        yield f"case {case['id']}", case["customer_id"], None, subject


@rule("an event of a provider that was booked has its charge, and ended as the charge did")
def provider_events_have_charges(derived: Derivation) -> Found:
    charges = by(derived.books["money_in"], "id")
    for event in derived.books["provider_events"]:
        outcome = json.loads(event["outcome"])
        number = outcome.get("money_in")
        if number is None:
            continue
        charge = charges.get(number)
        if charge is None:
            yield f"event {event['id']} of {event['provider']}", None, f"charge {number}", None
            continue
        expected = {"provider": event["provider"], "result": outcome.get("result")}
        stored = {"provider": charge["provider"], "result": RESULTS[derived.ends[number].kind]}
        if not outcome.get("replayed"):
            expected["settled_at"], stored["settled_at"] = event["settled_at"], charge["received_at"]
        elif event["settled_at"] == charge["received_at"] or event["settled_at"] + CLOCKS_APART < charge["received_at"]:
            expected["replayed"], stored["replayed"] = f"after {charge['received_at']}", f"at {event['settled_at']}"
        yield from differences(f"event {event['id']}, charge {number}", charge["customer_id"], expected, stored)


@rule("an invoice is paid if its provider captured something for its order")
def invoices_are_paid_by_charges(derived: Derivation) -> Found:
    captured = {(row["order_id"], row["provider"]) for row in derived.books["money_in"]}
    for row in derived.books["invoices"]:
        if row["state"] != "paid":
            continue
        if (row["order_id"], row["provider"]) not in captured:
            yield f"invoice {row['id']}", None, f"a charge of {row['provider']} for order {row['order_id']}", None


@rule("keys are wanted for access that runs, and for no other")
def keys_follow_access(derived: Derivation) -> Found:
    wanted = grouped((row for row in derived.books["vpn_keys"] if row["wanted"] == "present"), "subscription_id")
    states = {row["id"]: row for row in derived.books["subscriptions"]}
    for number, rows in wanted.items():
        found = states.get(number)
        if found is None or found["state"] != "active":
            owner = None if found is None else found["customer_id"]
            yield f"key {rows[0]['id']}", owner, "absent", f"present for subscription {number}"
    given_up = {row["subscription_id"] for row in derived.books["vpn_keys"] if row["activation_status"] == "failed"}
    for number, row in states.items():
        is_running = row["state"] == "active" and row["expires_at"] > derived.books.now
        if is_running and number not in wanted and number not in given_up:
            yield f"subscription {number}", row["customer_id"], "a key", None


@rule("a new access is delivered after it was bought")
def placements_follow_purchases(derived: Derivation) -> Found:
    events = by(derived.books["entitlement_events"], "id")
    for row in derived.books["first_placements"]:
        event = events.get(row["event_id"])
        if event is not None and row["placed_at"] < event["created_at"]:
            yield f"first placement {row['event_id']}", None, f"after {event['created_at']}", row["placed_at"]


@rule("an access that was bought and whose key was activated was delivered then, or before on its first node")
def keys_have_placements(derived: Derivation) -> Found:
    begun: dict[int, list[Row]] = {}
    for event in derived.books["entitlement_events"]:
        if begins_access(event) and event["subscription_id"] not in derived.access.given:
            begun.setdefault(event["subscription_id"], []).append(event)
    placed = {row["event_id"]: row["placed_at"] for row in derived.books["first_placements"]}
    for key in derived.books["vpn_keys"]:
        grants = [
            event
            for event in begun.get(key["subscription_id"], ())
            if key["activated_at"] and event["created_at"] <= key["activated_at"]
        ]
        if grants:
            last = max(grants, key=lambda event: event["position"])
            if last["source"] not in SOLD:
                continue
            at = placed.get(last["id"])
            if at is None or at > key["activated_at"]:
                owner = derived.access.customers.get(key["subscription_id"])
                yield f"first placement {last['id']}", owner, f"at {key['activated_at']} at the latest", at


@rule("no hour of a node is made good twice")
def outages_do_not_overlap(derived: Derivation) -> Found:
    outages = sorted(derived.books["prolongations"], key=lambda row: row["since"])
    for number, row in enumerate(outages):
        for other in outages[number + 1 :]:
            is_same_node = row["node_id"] is None or other["node_id"] in (None, row["node_id"])
            if is_same_node and other["since"] < row["until"]:
                yield f"prolongation {other['id']}", None, f"from {row['until']}", other["since"]


@rule("a rule of rewards follows another one in time, and says something else")
def rules_follow_each_other(derived: Derivation) -> Found:
    rules = sorted(derived.books["referral_rules"], key=lambda row: row["id"])
    for row, following in pairwise(rules):
        if following["valid_from"] < row["valid_from"] or following["hold_days"] == row["hold_days"]:
            yield (
                f"rule {following['id']}",
                None,
                f"other than {row['hold_days']} days, from {row['valid_from']}",
                f"{following['hold_days']} days from {following['valid_from']}",
            )
