"""Rules of journals, purses, refunds and rewards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from db.auditor.books import by, grouped
from db.auditor.derivation import Derivation
from db.auditor.findings import Found, rule
from db.tx import Row

PURSES = ("paid", "credit", "earned", "debt")


@rule("each fact about money has its journal")
def facts_have_journals(derived: Derivation) -> Found:
    for journal in derived.ledger.journals:
        if journal.stored is None:
            yield f"{journal.kind} {journal.key or ''}".strip(), journal.customer_id, legs_in_words(journal.legs), None


@rule("each journal has a fact that calls for it")
def journals_have_facts(derived: Derivation) -> Found:
    for stored in derived.books["journals"]:
        if derived.journal_of(stored["id"]) is None and not derived.is_opened(stored):
            legs = legs_in_words(derived.stored_legs(stored["id"]))
            yield named(stored), stored["customer_id"], None, f"{stored['kind']}: {legs}"


@rule("a journal is of the kind, the customer, the order, the charge and the time of its fact")
def journals_say_their_fact(derived: Derivation) -> Found:
    for journal in derived.ledger.journals:
        if journal.stored is not None:
            expected = {
                "kind": journal.kind,
                "customer_id": journal.customer_id,
                "order_id": journal.order_id,
                "money_in_id": journal.money_in_id,
                "created_at": journal.at,
            }
            yield from differences(named(journal.stored), journal.customer_id, expected, journal.stored)


@rule("a journal moves the amounts of its fact between the accounts of their owners")
def journals_move_what_is_due(derived: Derivation) -> Found:
    for journal in derived.ledger.journals:
        if journal.stored is None:
            continue
        stored = {leg: amount for leg, amount in derived.stored_legs(journal.stored["id"]).items() if amount}
        if stored != journal.legs:
            yield named(journal.stored), journal.customer_id, legs_in_words(journal.legs), legs_in_words(stored)


@rule("a journal has one leg for each account, and each leg its journal and its account's currency")
def legs_are_whole(derived: Derivation) -> Found:
    journals = by(derived.books["journals"], "id")
    seen: set[tuple[int, int]] = set()
    for leg in derived.books["postings"]:
        account = derived.accounts.get(leg["account_id"])
        place = (leg["journal_id"], leg["account_id"])
        if leg["journal_id"] not in journals:
            yield f"posting {leg['id']}", None, f"journal {leg['journal_id']}", None
        elif place in seen:
            yield f"posting {leg['id']}", None, f"one leg of account {leg['account_id']}", "two"
        if account is None or account["currency"] != leg["currency"]:
            yield f"posting {leg['id']}", None, account and account["currency"], leg["currency"]
        seen.add(place)


@rule("a purse holds what the facts lead to")
def purses_hold_what_is_due(derived: Derivation) -> Found:
    held = {
        (account["customer_id"], account["kind"]): account["balance"]
        for account in derived.books["accounts"]
        if account["customer_id"] is not None and account["currency"] == "RUB"
    }
    due = dict(derived.ledger.purses)
    for customer_id, kind in sorted(held.keys() | due.keys(), key=str):
        expected = due.get((customer_id, kind), 0) if kind != "customer" else 0
        stored = held.get((customer_id, kind))
        is_due = kind != "customer" or customer_id in derived.openings
        if is_due and stored != expected and (stored is not None or expected):
            yield f"purse {kind}", customer_id, expected, stored


@rule("each customer has the four purses, and no other account")
def customers_have_four_purses(derived: Derivation) -> Found:
    kinds: dict[int, Counter[str]] = {row["id"]: Counter() for row in derived.books["customers"]}
    for account in derived.books["accounts"]:
        if account["customer_id"] is not None and account["kind"] != "customer" and account["currency"] == "RUB":
            kinds.setdefault(account["customer_id"], Counter())[account["kind"]] += 1
    for customer_id, counted in kinds.items():
        if counted != Counter(PURSES):
            yield "accounts", customer_id, ", ".join(PURSES), ", ".join(sorted(counted.elements()))


@rule("no floor is lowered: a purse has none")
def purses_have_no_floor(derived: Derivation) -> Found:
    for account in derived.books["accounts"]:
        if account["kind"] != "customer" and account["balance_floor"] != 0:
            yield f"account {account['id']} ({account['kind']})", account["customer_id"], 0, account["balance_floor"]


@rule("only matured earned money is withdrawn")
def withdrawals_are_of_mature_money(derived: Derivation) -> Found:
    for subject, customer_id, most, asked in derived.ledger.overdrawn:
        yield subject, customer_id, f"at most {most}", asked


@rule("a withdrawal names the journals that reserve and settle it")
def withdrawals_name_their_journals(derived: Derivation) -> Found:
    journals = by(derived.books["journals"], "idempotency_key")
    for row in derived.books["withdrawals"]:
        reserve = journals.get(f"withdrawal:{row['customer_id']}:{row['idempotency_key']}")
        settle = journals.get(f"withdrawal:{row['id']}:settled")
        expected = {
            "reserve_journal_id": reserve and reserve["id"],
            "settle_journal_id": settle and settle["id"],
            "currency": "RUB",
            "from_paid": 0,
            "from_credit": 0,
        }
        if not (reserve is None or derived.is_opened(reserve)):
            yield from differences(f"withdrawal {row['id']}", row["customer_id"], expected, row)


@rule("a refund names its journals, and says what was spent, is owed and was written off")
def refunds_say_what_happened(derived: Derivation) -> Found:
    takes = {row["journal_id"]: row["id"] for row in derived.books["entitlement_events"] if row["kind"] == "refund"}
    for number, loss in derived.ledger.losses.items():
        journal, clawback = loss.journal, loss.clawback
        stored = None if journal is None or journal.stored is None else journal.stored["id"]
        expected = {
            "event_id": takes.get(stored) if stored is not None else None,
            "journal_id": stored,
            "clawback_journal_id": None if clawback is None or clawback.stored is None else clawback.stored["id"],
            "spent": loss.spent,
            "owed": loss.owed,
            "written_off": loss.written_off,
            "currency": "RUB",
        }
        yield from differences(f"refund {number}", None, expected, loss.refund)


@rule("what goes back of a charge, in money and as compensation, is never more than it brought")
def charges_return_what_they_brought(derived: Derivation) -> Found:
    returned: Counter[int] = Counter()
    grants = {row["id"]: row["money_in_id"] for row in derived.books["entitlement_events"]}
    for refund in derived.books["refunds"]:
        returned[refund["money_in_id"]] += refund["amount"]
    for part in derived.books["compensation_parts"]:
        if grants.get(part["event_id"]) is not None:
            returned[grants[part["event_id"]]] += part["amount"]
    for number, amount in returned.items():
        end = derived.ends.get(number)
        value = 0 if end is None else end.value
        if amount > value:
            yield f"charge {number}", None if end is None else end.customer_id, f"at most {value}", amount


@rule("a chargeback takes back what the money bought, newest first")
def chargebacks_undo_purchases(derived: Derivation) -> Found:
    stored = {(row["refund_id"], row["event_id"]): row for row in derived.books["undone_purchases"]}
    due = {
        (number, grant): parts for number, loss in derived.ledger.losses.items() for grant, parts in loss.undone.items()
    }
    for place in sorted(stored.keys() | due.keys()):
        found = stored.get(place)
        has = None if found is None else (found["base"], found["value"])
        if has != due.get(place):
            yield f"refund {place[0]} of grant {place[1]}", None, due.get(place), has


@rule("a compensation is shared out to the grants that it was given for")
def compensations_are_shared_out(derived: Derivation) -> Found:
    shared: Counter[int] = Counter()
    for part in derived.books["compensation_parts"]:
        shared[part["journal_id"]] += part["amount"]
    due: Counter[int] = Counter()
    for journal in derived.ledger.journals:
        if journal.kind == "compensation" and journal.stored is not None:
            due[journal.stored["id"]] += journal.legs.get(("credit", journal.customer_id), 0)
    for loss in derived.ledger.losses.values():
        if loss.uncompensated and loss.journal is not None and loss.journal.stored is not None:
            due[loss.journal.stored["id"]] -= loss.uncompensated
    for number in sorted(shared.keys() | due.keys()):
        if shared[number] != due[number] and not derived.is_opened(_journal(derived, number)):
            yield f"journal {number}", None, due[number], shared[number]


@rule("what is given back of a grant is the part of its price that was not used, at least, and its price at most")
def compensations_are_of_unused_time(derived: Derivation) -> Found:
    events, orders = by(derived.books["entitlement_events"], "id"), by(derived.books["orders"], "id")
    refunds = grouped(derived.books["refunds"], "money_in_id")
    for part in derived.books["compensation_parts"]:
        if part["amount"] < 0:
            continue
        grant, journal = events.get(part["event_id"]), _journal(derived, part["journal_id"])
        order = None if grant is None else orders.get(grant["order_id"])
        if grant is None or grant["subscription_id"] in derived.access.given:
            if grant is None:
                yield f"journal {part['journal_id']}", None, f"grant {part['event_id']}", None
            continue
        customer = derived.access.customers.get(grant["subscription_id"])
        if customer != journal["customer_id"]:
            yield f"grant {grant['id']}", customer, f"a grant of customer {journal['customer_id']}", customer
        price = None if customer is None else derived.prices.of_renewal(customer, grant["created_at"])
        cost = order["price_amount"] if order is not None else price or 0
        unused, whole = derived.access.unused(grant["id"], journal["created_at"])
        refunded = sum(
            row["amount"] for row in refunds.get(grant["money_in_id"], ()) if row["created_at"] < journal["created_at"]
        )
        least = max(0, cost - refunded) * unused // whole
        if not least <= part["amount"] <= max(0, cost - refunded):
            yield f"grant {grant['id']}", customer, f"{least} to {cost - refunded}", part["amount"]


@rule("a reward follows outside money that a friend spent on access, at the tier and the hold of that moment")
def rewards_follow_spending(derived: Derivation) -> Found:
    stored = {row["spending_journal_id"]: row for row in derived.books["referral_rewards"]}
    due: dict[int | None, dict[str, Any]] = {}
    for reward in derived.ledger.rewards.rewards:
        spending, journal = reward.spending.journal.stored, reward.journal and reward.journal.stored
        number = None if spending is None else spending["id"]
        due[number] = {
            "buyer_id": reward.buyer_id,
            "referrer_id": reward.referrer_id,
            "money_in_id": reward.spending.money_in_id,
            "journal_id": journal and journal["id"],
            "friends": reward.friends,
            "percent": reward.percent,
            "base": reward.base,
            "amount": reward.amount,
            "currency": "RUB",
            "created_at": reward.at,
            "matures_at": reward.matures_at,
        }
    for number, expected in due.items():
        found = stored.get(number)
        if found is None:
            yield f"spending {number}", expected["buyer_id"], f"{expected['amount']} to {expected['referrer_id']}", None
        else:
            yield from differences(f"reward {found['id']}", expected["referrer_id"], expected, found)
    for number, found in stored.items():
        if number is not None and number not in due:
            yield f"reward {found['id']}", found["referrer_id"], None, f"{found['amount']} for journal {number}"


@rule("what is taken back of a reward is in proportion to the money that went back")
def takebacks_are_in_proportion(derived: Derivation) -> Found:
    rewards = {row["id"]: row for row in derived.books["referral_rewards"]}
    stored = {
        (
            rewards[row["reward_id"]]["spending_journal_id"] if row["reward_id"] in rewards else None,
            row["journal_id"],
        ): row
        for row in derived.books["reward_takebacks"]
        if (reward := rewards.get(row["reward_id"])) is None or reward["spending_journal_id"] is not None
    }
    due = {}
    for takeback in derived.ledger.rewards.takebacks:
        spending, journal = takeback.reward.spending.journal.stored, takeback.journal.stored
        place = (spending and spending["id"], journal and journal["id"])
        due[place] = (takeback.base, takeback.amount, takeback.refund["created_at"])
    for place in stored.keys() | due.keys():
        found = stored.get(place)
        has = None if found is None else (found["base"], found["amount"], found["created_at"])
        if has != due.get(place):
            yield f"reward for journal {place[0]}, taken by {place[1]}", None, due.get(place), has


@rule("a friend pays since access was bought with outside money, until all of it has gone back")
def paying_friends_have_paid(derived: Derivation) -> Found:
    paying = derived.ledger.rewards.paying_since
    for customer in derived.books["customers"]:
        if customer["first_paid_at"] != paying.get(customer["id"]):
            yield "first_paid_at", customer["id"], paying.get(customer["id"]), customer["first_paid_at"]


def _journal(derived: Derivation, number: int) -> Row:
    missing: Row = {"id": number, "customer_id": None, "created_at": derived.books.now}
    return derived.journals.get(number, missing)


def named(stored: Row) -> str:
    """A stored journal in words."""
    return f"journal {stored['id']} ({stored['idempotency_key']})"


def legs_in_words(legs: Mapping[tuple[str, int | None], int]) -> str:
    """Legs as they are read: from whom to whom."""
    return ", ".join(
        f"{account}{'' if owner is None else f' of {owner}'} {amount:+}"
        for (account, owner), amount in sorted(legs.items(), key=lambda leg: (leg[1], str(leg[0])))
    )


def differences(subject: str, customer_id: int | None, expected: Mapping[str, object], stored: Row) -> Found:
    """Each column that says something else than the facts."""
    for column, value in expected.items():
        if stored[column] != value:
            yield f"{subject}, {column}", customer_id, value, stored[column]
