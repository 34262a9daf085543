"""Which columns mean money, access, ownership or state, and why the others do not. A new column has to be entered here."""

from collections.abc import Mapping
from typing import Final

WORDS = "words for people"
CLAIM = "who works on it for now; taken over and fenced by epochs"
WHEN = "when work is due; a worker sets it again"
IDENTITY = "the number of a row: altering it is a deletion and an addition"
NOTICE = "what customers are told, not what they have"
FRONT_END = "what a front end remembers of a conversation; what is bought is in orders, at their price"
NODE = "a node's state, which reconciling reads back (at rest: money_i10)"

WHOLE_TABLES: Final[Mapping[str, str]] = {
    "canary_keys": "keys of our own, which no customer has",
    "database_identity": "what the database is for; the clock's offset can be moved in demo and test alone",
    "epochs": CLAIM,
    "owners": CLAIM,
    "key_placements": NODE,
    "key_sightings": NODE,
    "key_usage": "traffic, which costs nothing",
    "node_nonces": "what proves to a node who its owner is; altered, the node refuses and says so",
    "reconcile_passes": NODE,
    "vpn_nodes": NODE,
    "moving_over": "how far a move has come; a place that was not reached is moved again",
    "schema_migrations": "the migrator's own, with checksums",
    "shop_nonces": "requests that were carried out; requests have keys of their own",
    "outbox": NOTICE,
    "prompts": FRONT_END,
    "entered_promos": FRONT_END,
    "accepted_rules": FRONT_END,
    "waiting_screens": FRONT_END,
    "reminder_schedule": NOTICE,
    "renewal_schedule": WHEN,
    "tariff_terms": "from before intervals; nothing reads it",
    "audited_parts": "the auditor's own, sealed and checked by a test of its own",
    "purse_openings": "only in databases that were moved over; checked by their own test",
    "provider_events": "what providers sent: `outcome` and `provider` below, the rest is delivery",
    "provider_statements": "how far a provider's statement was read; reading it again books nothing twice",
    "rates": "what assets are worth for the next quote; an order keeps the rate of its own",
    "seal_keys": "which keys have sealed; no key",
    "trial_attempts": "how often somebody asked; the trial itself is in trials",
    "invoices": "what customers were given to pay with: no money is there before a charge is",
}

EXCEPT: Final[Mapping[str, tuple[str, ...]]] = {"provider_events": ("provider", "outcome")}
"""Columns that mean something in tables that do not as a whole."""

NOT_MONEY: Final[Mapping[str, Mapping[str, str]]] = {
    "accounts": {"id": IDENTITY},
    "assets": {},
    "audit": {"id": IDENTITY, "how": "by which way an operator came"},
    "cases": {"id": IDENTITY, "key_id": "which key could not be activated", "resolution": WORDS},
    "compensation_parts": {},
    "customers": {
        "id": IDENTITY,
        "language": WORDS,
        "is_reachable": NOTICE,
        "contacted_at": NOTICE,
        "created_at": "when the row was written; nothing follows from it",
    },
    "entitlement_events": {"id": IDENTITY},
    "entitlement_intervals": {},
    "first_placements": {},
    "journals": {"id": IDENTITY, "note": WORDS},
    "money_in": {"id": IDENTITY, "stated": "a provider's words about an amount that has no value here"},
    "openings": {},
    "opening_grants": {},
    "orders": {
        "id": IDENTITY,
        "unused_promo_id": "a code that lowered nothing and was not used",
        "receipt_contact": "where the fiscal receipt goes",
    },
    "postings": {"id": IDENTITY},
    "prices": {},
    "provider_refunds": {
        "id": IDENTITY,
        "request_key": "by which the provider knows a repetition",
        "reference": WORDS,
        "next_attempt_at": WHEN,
        "attempts": WHEN,
        "last_error": WORDS,
        "claimed_by": CLAIM,
        "claimed_incarnation": CLAIM,
        "claim_epoch": CLAIM,
        "claim_until": CLAIM,
    },
    "prolongations": {"id": IDENTITY, "reason": WORDS},
    "promo_codes": {"id": IDENTITY, "created_at": "when the row was written; nothing follows from it"},
    "promo_uses": {},
    "rates_kept": {},
    "referral_rewards": {"id": IDENTITY},
    "referral_rules": {"id": IDENTITY},
    "refunds": {"id": IDENTITY},
    "renewals": {},
    "reissues": dict.fromkeys(
        ("id", "subscription_id", "key_id", "idempotency_key", "actor", "requested_at", "finished_at", "result"),
        "how a key is replaced; which key is whose is in vpn_keys",
    ),
    "reward_takebacks": {"id": IDENTITY},
    "row_facts": {"id": IDENTITY},
    "subscription_links": {"created_at": "when the row was written; nothing follows from it"},
    "subscriptions": {"id": IDENTITY},
    "tariffs": {},
    "trials": {},
    "undone_purchases": {},
    "vpn_keys": {
        "id": IDENTITY,
        "generation": NODE,
        "activation_status": NODE,
        "activated_at": NODE,
        "pending_since": WHEN,
        "next_attempt_at": WHEN,
        "attempts": WHEN,
        "last_error": WORDS,
        "claimed_by": CLAIM,
        "claimed_incarnation": CLAIM,
        "claim_epoch": CLAIM,
        "claim_until": CLAIM,
        "created_at": "when the row was written; nothing follows from it",
        "given_up_at": "when a key could not be activated; a case and the compensation follow from it",
    },
    "withdrawal_confirmations": {},
    "withdrawals": {
        "id": IDENTITY,
        "requisites": "where to pay to, from before it was sealed",
        "destination_sealed": "where to pay to; a seal that was altered does not open",
        "destination_end": WORDS,
        "sealed_with": "which key opens it",
        "reference": WORDS,
        "reason": WORDS,
    },
}
"""Columns that mean nothing, in tables whose other columns all mean money, access, ownership or state."""


def means_money(table: str, column: str) -> bool:
    """Whether altering the column alters money, access, ownership or state. Raises KeyError for what is not classified."""
    if table in WHOLE_TABLES:
        return column in EXCEPT.get(table, ())
    return column not in NOT_MONEY[table]
