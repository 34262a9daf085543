"""Rules of the audit trail: what was asked for, by whom, and what came of it."""

from __future__ import annotations

import json
from typing import Any

from db.auditor.books import by, number_in
from db.auditor.derivation import Derivation
from db.auditor.findings import Found, rule
from db.auditor.money_rules import differences

RESULTS = {
    "purchase": "entitlement",
    "topup": "balance_credit",
    "payment_credit": "balance_credit",
    "suspense": "case",
    "unvalued": "case",
}
"""What the trail calls the end of a charge."""
OWNERS = {
    "finalize_purchase": "money_in",
    "refund": "refund",
    "cancel_order": "order",
    "finalize_balance_purchase": "order",
    "grant_trial": "event",
    "grant_admin": "event",
    "prolong": "event",
    "delay": "event",
    "adjust_balance": "journal",
    "credit_case": "case",
    "revoke": "subscription",
    "compensate": "subscription",
    "set_auto_renew": "subscription",
    "request_withdrawal": "withdrawal",
    "withdrawal_confirmed": "withdrawal",
    "withdrawal_approved": "withdrawal",
    "withdrawal_rejected": "withdrawal",
    "renew": "subscription",
    "renewal_missed": "subscription",
    "add_promo": "promo",
    "stop_promo": "promo",
    "set_rate": "rate",
    "set_vip": "",
    "set_personal_discount": "",
}
"""What each entry of the trail is about."""


@rule("a charge is what the trail says was captured, of whom and for what, and each is written there")
def charges_are_in_the_trail(derived: Derivation) -> Found:
    charges = by(derived.books["money_in"], "id")
    said = {row["subject"]: (row, details) for row, details in derived.said("finalize_purchase")}
    for number, charge in charges.items():
        if f"money_in:{number}" not in said and derived.is_brought_along(charge["received_at"]):
            continue
        if f"money_in:{number}" not in said:
            yield f"charge {number}", charge["customer_id"], "an entry of the trail", None
            continue
        row, details = said.pop(f"money_in:{number}")
        stored = {
            "provider": charge["provider"],
            "order": charge["order_id"],
            "amount": charge["amount"],
            "asset": charge["asset"],
            "booked": charge["booked_amount"],
            "result": RESULTS[derived.ends[number].kind],
        }
        yield from differences(
            f"charge {number}", charge["customer_id"], {name: details.get(name) for name in stored}, stored
        )
        is_same = (row["customer_id"], row["at"]) == (charge["customer_id"], charge["received_at"])
        if not is_same:
            words = f"customer {charge['customer_id']} at {charge['received_at']}"
            yield f"charge {number}", charge["customer_id"], f"customer {row['customer_id']} at {row['at']}", words
    for subject, (row, details) in said.items():
        yield subject.replace("money_in:", "charge "), row["customer_id"], f"{details.get('amount')} captured", None


@rule("what was asked for stands in the trail with its customer, its amount and its time, and nothing else does")
def documents_are_in_the_trail(derived: Derivation) -> Found:
    subscriptions = by(derived.books["subscriptions"], "id")
    charges = {row["id"]: row["money_in_id"] for row in derived.books["refunds"]}
    expected: dict[tuple[str, str], tuple[int | None, int | None, Any, str | None]] = {}
    for order in derived.books["orders"]:
        if order["paid_from"] == "balance":
            expected["finalize_balance_purchase", f"order:{order['id']}"] = (
                order["customer_id"], order["price_amount"], order["paid_at"], None,
            )  # fmt: skip
    for row in derived.books["renewals"]:
        owner = subscriptions.get(row["subscription_id"])
        subject = f"subscription:{row['subscription_id']}:{int(row['period_start'].timestamp())}"
        customer_id = None if owner is None else owner["customer_id"]
        expected["renew", subject] = (customer_id, None, row["created_at"], None)
    for row in derived.books["withdrawals"]:
        subject, customer_id, amount = f"withdrawal:{row['id']}", row["customer_id"], row["amount"]
        expected["request_withdrawal", subject] = (customer_id, amount, row["created_at"], None)
        if row["state"] != "reserved":
            action = "withdrawal_approved" if row["state"] == "paid" else "withdrawal_rejected"
            expected[action, subject] = (customer_id, amount, row["settled_at"], row["settled_by"])
    for row in derived.books["refunds"]:
        end = derived.ends.get(row["money_in_id"])
        expected["refund", f"refund:{row['id']}"] = (
            None if end is None else end.customer_id,
            row["amount"],
            row["created_at"],
            row["actor"],
        )
    actions = {action for action, _ in expected} | {"withdrawal_approved", "withdrawal_rejected", "refund", "renew"}
    for said in derived.books["audit"]:
        if said["action"] not in actions:
            continue
        place = (said["action"], said["subject"])
        found, details = expected.pop(place, None), json.loads(said["details"])
        if found is None:
            yield (
                f"{said['action']} {said['subject']}",
                said["customer_id"],
                f"what the trail says at {said['at']}",
                None,
            )
            continue
        customer_id, amount, at, actor = found
        told = (said["customer_id"], details.get("amount") if amount is not None else None, said["at"])
        if told != (customer_id, amount, at) or (actor is not None and actor != said["actor"]):
            yield (
                f"{said['action']} {said['subject']}",
                customer_id,
                (*told, said["actor"]),
                (customer_id, amount, at, actor),
            )
        if said["action"] == "refund":
            number = number_in(said["subject"])
            charge = charges[number]
            if details.get("money_in") != charge:
                yield f"refund {number}, money_in_id", customer_id, details.get("money_in"), charge
    for (action, subject), (customer_id, amount, at, _) in expected.items():
        if derived.is_brought_along(at):
            continue
        yield f"{action} {subject}", customer_id, None, f"{amount} at {at}, of which the trail says nothing"


@rule("an entry of the trail speaks of a row that is there, and of its owner")
def trail_speaks_of_rows(derived: Derivation) -> Found:
    owners: dict[str, dict[str, int | None]] = {
        "money_in": {str(row["id"]): row["customer_id"] for row in derived.books["money_in"]},
        "refund": {
            str(row["id"]): None if (end := derived.ends.get(row["money_in_id"])) is None else end.customer_id
            for row in derived.books["refunds"]
        },
        "order": {str(row["id"]): row["customer_id"] for row in derived.books["orders"]},
        "event": {
            str(row["id"]): derived.access.customers.get(row["subscription_id"])
            for row in derived.books["entitlement_events"]
        },
        "journal": {str(row["id"]): row["customer_id"] for row in derived.books["journals"]},
        "subscription": {str(row["id"]): row["customer_id"] for row in derived.books["subscriptions"]},
        "withdrawal": {str(row["id"]): row["customer_id"] for row in derived.books["withdrawals"]},
        "promo": {row["code"]: None for row in derived.books["promo_codes"]},
        "rate": {row["code"]: None for row in derived.books["assets"]},
    }
    cases = {str(row["id"]) for row in derived.books["cases"]}
    outages = {f"prolongation:{row['id']}" for row in derived.books["prolongations"]}
    for said in derived.books["audit"]:
        relation = OWNERS.get(said["action"])
        if relation is None or (said["action"] == "prolong" and said["subject"] in outages):
            continue
        prefix, _, number = said["subject"].partition(":")
        if relation == "subscription" and number.rpartition(":")[2].isdigit():  # of one period of it
            number = number.partition(":")[0]
        owner = said["customer_id"] if relation in ("", "case") else owners[relation].get(number)
        is_there = number in cases if relation == "case" else relation == "" or number in owners[relation]
        if relation == "event" and prefix == relation and not is_there:
            continue  # which is missing, as another rule says
        if prefix != relation or not is_there or owner != said["customer_id"]:
            derived_owner = f"{relation or 'no subject'}, of customer {said['customer_id']}"
            yield (
                f"entry {said['id']} ({said['action']})",
                said["customer_id"],
                derived_owner,
                f"{said['subject']} of {owner}",
            )


@rule("standing discounts and codes are what an operator set")
def discounts_are_set_by_operators(derived: Derivation) -> Found:
    vip = {row["customer_id"]: details["is_vip"] for row, details in derived.said("set_vip")}
    personal = {row["customer_id"]: details["percent"] for row, details in derived.said("set_personal_discount")}
    for row in derived.books["customers"]:
        expected = {
            "is_vip": vip.get(row["id"], False),
            "personal_discount_percent": personal.get(row["id"], 0),
        }
        yield from differences("discount", row["id"], expected, row)
