"""Rules of what others are asked for: payments at a rate, a second person's word before a payout, refunds at providers."""

from __future__ import annotations

import json
from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal
from typing import Any, Final

from db.auditor.books import by, grouped, number_in
from db.auditor.charges import CLOCKS_APART
from db.auditor.derivation import Derivation
from db.auditor.findings import Found, rule
from db.auditor.money_rules import differences

MAY_CONFIRM = ("money", "owner")
"""The roles whose word counts."""
UNDER_WAY = ("asking", "pending")
UNBOOKED = "provider_refund_unbooked"
"""The kind of case for what a provider gave back and the books refused."""


@rule(
    "a payout is confirmed by an operator of the role money or owner who did not ask for it, while it waits, for its sum"
)
def confirmations_are_of_others(derived: Derivation) -> Found:
    withdrawals = by(derived.books["withdrawals"], "id")
    asked_by = {row["subject"]: row["actor"] for row, _ in derived.said("request_withdrawal")}
    said = {(row["subject"], row["actor"]): (row, details) for row, details in derived.said("withdrawal_confirmed")}
    for row in derived.books["withdrawal_confirmations"]:
        subject, operator = f"withdrawal:{row['withdrawal_id']}", row["operator"]
        name = f"confirmation of withdrawal {row['withdrawal_id']} by {operator}"
        withdrawal = withdrawals.get(row["withdrawal_id"])
        owner = None if withdrawal is None else withdrawal["customer_id"]
        entry, details = said.pop((subject, operator), (None, {}))
        if withdrawal is None:
            yield name, None, "its withdrawal", None
            continue
        if asked_by.get(subject) == operator:
            yield name, owner, "somebody else than who asked for it", operator
        settled_at = withdrawal["settled_at"] or derived.books.now
        if not withdrawal["created_at"] <= row["confirmed_at"] <= settled_at + CLOCKS_APART:
            yield name, owner, f"from {withdrawal['created_at']} to {settled_at}", row["confirmed_at"]
        if entry is None:
            yield name, owner, "an entry of the trail", None
            continue
        if entry["role"] not in MAY_CONFIRM:
            yield name, owner, " or ".join(MAY_CONFIRM), entry["role"] or "nobody with a role"
        told = (entry["customer_id"], details.get("amount"), entry["at"])
        stored = (owner, withdrawal["amount"], row["confirmed_at"])
        if told != stored:
            yield name, owner, told, stored
    for (subject, operator), (entry, _) in said.items():
        yield f"confirmation of {subject.replace(':', ' ')} by {operator}", entry["customer_id"], entry["at"], None


@rule("a provider is asked to give back what the trail says, of that charge")
def provider_refunds_are_in_the_trail(derived: Derivation) -> Found:
    charges = by(derived.books["money_in"], "id")
    said = {row["subject"]: (row, details) for row, details in derived.said("ask_for_refund")}
    for row in derived.books["provider_refunds"]:
        name, charge = f"refund {row['id']} at a provider", charges.get(row["money_in_id"])
        if charge is None:
            yield name, None, f"charge {row['money_in_id']}", None
            continue
        entry, details = said.pop(f"provider_refund:{row['id']}", (None, {}))
        if entry is None:
            yield name, charge["customer_id"], "an entry of the trail", None
            continue
        stored = {
            "provider": charge["provider"],
            "money_in": row["money_in_id"],
            "amount": row["booked_amount"],
            "takes_access": row["takes_access"],
            "writes_off": row["writes_off"],
        }
        # Entries of before do not say what goes with it.
        expected = {
            key: details.get(key) for key in stored if key in details or key in ("provider", "money_in", "amount")
        }
        yield from differences(name, charge["customer_id"], expected, stored)
        told = (entry["customer_id"], entry["actor"], entry["at"])
        of_row = (charge["customer_id"], row["actor"], row["created_at"])
        if told != of_row:
            yield name, charge["customer_id"], told, of_row
    for subject, (entry, details) in said.items():
        yield (
            f"refund {number_in(subject)} at a provider",
            entry["customer_id"],
            f"{details.get('amount')} asked for",
            None,
        )


@rule("a provider gives back no more than the charge brought, and of its asset what the roubles stand for")
def provider_refunds_are_within_the_charge(derived: Derivation) -> Found:
    charges = by(derived.books["money_in"], "id")
    for number, rows in grouped(derived.books["provider_refunds"], "money_in_id").items():
        charge = charges.get(number)
        if charge is None:
            continue  # which another rule says
        counted = [row for row in rows if row["state"] in UNDER_WAY or row["refund_id"] is not None]
        value = derived.ends[number].value
        booked, amount = (sum(row[column] for row in counted) for column in ("booked_amount", "amount"))
        name, owner = f"refunds of charge {number} at {charge['provider']}", charge["customer_id"]
        if booked > value or amount > charge["amount"]:
            limit = f"{value} kopecks, {charge['amount']} of {charge['asset']}, at most"
            yield name, owner, limit, f"{booked} kopecks, {amount} of {charge['asset']}"
        for row in rows:
            part = charge["amount"] * row["booked_amount"] // value if value else 0
            # The last one takes what the roundings left, which is less than a unit for each of the others.
            most = part if charge["asset"] == "RUB" else part + len(rows) - 1
            stored = {"asset": row["asset"], "booked_currency": row["booked_currency"], "amount": row["amount"]}
            fits = part <= row["amount"] <= most
            expected = {"asset": charge["asset"], "booked_currency": "RUB", "amount": row["amount"] if fits else part}
            yield from differences(f"refund {row['id']} at {charge['provider']}", owner, expected, stored)


@rule("a refund that a provider has made is in the books or in a case, and one that it refused says so")
def provider_refunds_end_in_the_books(derived: Derivation) -> Found:
    refunds = by(derived.books["refunds"], "id")
    unbooked = {row["subject"]: row for row in derived.books["cases"] if row["kind"] == UNBOOKED}
    refused = grouped((row for row, _ in derived.said("refuse_refund")), "subject")
    booked = {row["id"]: row for row in derived.books["refunds"] if row["idempotency_key"].startswith("at_provider:")}
    for row in derived.books["provider_refunds"]:
        subject, name = f"provider_refund:{row['id']}", f"refund {row['id']} at a provider"
        owner = None
        case = unbooked.pop(subject, None)
        done = refunds.get(row["refund_id"])
        if row["refund_id"] is not None:
            booked.pop(row["refund_id"], None)
            if done is None:
                yield name, owner, f"refund {row['refund_id']} with its journal", None
                continue
            expected = {
                "money_in_id": done["money_in_id"],
                "booked_amount": done["amount"],
                "actor": done["actor"],
                "settled_at": done["created_at"],
                "state": "done",
            }
            yield from differences(name, owner, expected, row)
            if done["idempotency_key"] != f"at_provider:{row['id']}":
                yield name, owner, f"the refund of the key at_provider:{row['id']}", done["idempotency_key"]
        elif row["state"] == "done":
            if case is None:
                yield name, owner, "a refund in the books, or a case", None
                continue
            told = json.loads(case["details"])
            expected = {"money_in_id": told.get("money_in"), "booked_amount": told.get("booked")}
            yield from differences(name, owner, {**expected, "settled_at": case["opened_at"]}, row)
        elif row["state"] == "refused":
            refusals = refused.get(subject, [])
            expected = {"settled_at": refusals[-1]["at"] if refusals else None}
            yield from differences(name, owner, expected, row)
        if case is not None and (row["state"], row["refund_id"]) != ("done", None):
            yield f"case {case['id']}", owner, None, f"{name}, which is {row['state']}"
    for number, done in booked.items():
        yield f"refund {number}", None, f"the provider's answer to {done['idempotency_key']}", None
    for subject, case in unbooked.items():
        yield f"case {case['id']}", None, subject, None

    known = {f"provider_refund:{row['id']}" for row in derived.books["provider_refunds"]}
    for subject in refused.keys() - known:
        yield f"refusal of {subject}", None, subject, None


@rule("what an order is quoted at in another asset is its price at the rate that it keeps, in whole units of that day")
def orders_are_quoted_at_their_rate(derived: Derivation) -> Found:
    for order in derived.books["orders"]:
        asset = order["quoted_asset"]
        known = derived.facts.at("assets", asset, order["created_at"])
        if asset == "RUB" or known is None or derived.is_brought_along(order["created_at"]):
            continue
        exact = (Decimal(order["price_amount"]) / 100 / Decimal(order["quoted_rate"])).scaleb(known["digits"])
        # Up, or to the nearest unit where that would be too much for an asset of coarse units.
        allowed = [int(exact.quantize(Decimal(1), rounding)) for rounding in (ROUND_CEILING, ROUND_HALF_UP)]
        if order["quoted_amount"] not in allowed:
            name = f"order {order['id']}, quoted_amount in {asset}"
            yield (
                name,
                order["customer_id"],
                f"{allowed[0]} at a rate of {order['quoted_rate']}",
                order["quoted_amount"],
            )


@rule(
    "an order in another asset keeps the rate that it is quoted at, which was young enough and within its bounds then"
)
def quotes_keep_their_rate(derived: Derivation) -> Found:
    orders = by(derived.books["orders"], "id")
    kept = by(derived.books["rates_kept"], "order_id")
    began = min((row["kept_at"] for row in kept.values()), default=None)
    set_by_hand = {
        (row["subject"], row["at"]): (row["actor"], Decimal(details["rate"]))
        for row, details in derived.said("set_rate")
    }
    operators = {(subject, actor) for (subject, _), (actor, _) in set_by_hand.items()}
    for number, order in orders.items():
        is_foreign = order["quoted_asset"] != order["price_currency"]
        if number not in kept and is_foreign and began is not None and order["created_at"] >= began:
            yield f"order {number}", order["customer_id"], "the rate that was used", None
    for number, row in kept.items():
        order = orders.get(number, _NONE)
        owner, subject = order["customer_id"], f"rate:{row['asset']}"
        expected = {
            "asset": order["quoted_asset"],
            "currency": order["price_currency"],
            "rate": order["quoted_rate"],
            "kept_at": order["created_at"],
        }
        said = set_by_hand.get((subject, row["observed_at"]))
        if said is not None:
            yield from differences(f"rate of order {number}", owner, {"source": said[0], "rate": said[1]}, row)
        elif (subject, row["source"]) in operators:
            expected["observed_at"] = f"when {row['source']} set it"
        yield from differences(f"rate of order {number}", owner, expected, row)
        if row["asset"] == row["currency"]:
            yield f"rate of order {number}", owner, f"no rate of {row['asset']} in itself", row["rate"]
        for bound, is_beyond in (
            ("lowest", row["lowest"] is not None and row["rate"] < row["lowest"]),
            ("highest", row["highest"] is not None and row["rate"] > row["highest"]),
        ):
            if is_beyond:
                yield f"rate of order {number}, {bound}", owner, row[bound], row["rate"]
        if row["observed_at"] is not None:
            age = row["kept_at"] - row["observed_at"]
            if not -CLOCKS_APART <= age <= row["max_age"] + CLOCKS_APART:
                yield f"rate of order {number}, observed_at", owner, f"at most {row['max_age']} before", age


_NONE: Final[dict[str, Any]] = dict.fromkeys(
    ("customer_id", "quoted_asset", "price_currency", "quoted_rate", "created_at")
)
"""The columns of an order that is not there."""
