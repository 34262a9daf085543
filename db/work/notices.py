"""Every kind of notice, with what its payload holds: the one list that writers, texts and checks go by.

A notice is one row of the outbox, told to the customer or, without a customer, to the operator. The payload holds plain
facts: the texts in each language are made from them when the notice is sent.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import datetime

import attrs

from db.money import DIGITS


class PayloadType(enum.Enum):
    """What a field of a payload holds, and so how the texts show it."""

    AMOUNT = "amount"
    """Whole smallest units, not negative, beside `currency` (roubles without it)."""
    CHANGE = "change"
    """The same, and shown with its sign: negative when it was taken."""
    MOMENT = "moment"
    """ISO 8601 with a time zone."""
    COUNT = "count"
    """A whole number, not negative."""
    PERCENT = "percent"
    """A whole number."""
    WORD = "word"
    """A code of ours, such as a tariff or a reason: the texts have a name for it."""
    FLAG = "flag"
    """True or false; it only ever chooses a text."""
    TEXT = "text"
    """What a human wrote, shown as it is."""


@attrs.frozen
class NoticeKind:
    """One kind. A payload may hold more fields than these; the texts do not use them."""

    name: str
    required: Mapping[str, PayloadType] = attrs.field(factory=dict)
    optional: Mapping[str, PayloadType] = attrs.field(factory=dict)
    for_customer: bool = True
    for_operator: bool = False
    variant: str = ""
    """The field whose value may choose a text of its own; for a flag, when it is true."""
    useful_until: str = ""
    """The field with the moment after which the notice is not sent any more: it would only mislead."""

    @property
    def facts(self) -> Mapping[str, PayloadType]:
        """The required and the optional fields: all that the texts may use."""
        return {**self.required, **self.optional}


_AMOUNT = {"amount": PayloadType.AMOUNT}
_TARIFF = {"tariff": PayloadType.WORD}
_END = {"expires_at": PayloadType.MOMENT}
_REASON = {"reason": PayloadType.TEXT}


def _reminder(what: str) -> NoticeKind:
    facts = {**_TARIFF, "auto_renew": PayloadType.FLAG}
    return NoticeKind(f"reminder_{what}", _END, facts, variant="auto_renew", useful_until="expires_at")


NOTICE_KINDS: Mapping[str, NoticeKind] = {
    kind.name: kind
    for kind in (
        # money
        NoticeKind("purchase", {**_TARIFF, "days": PayloadType.COUNT, **_END}),
        NoticeKind("balance_credited", {**_AMOUNT, "why": PayloadType.WORD}, variant="why"),
        NoticeKind("referral_reward", {**_AMOUNT, "percent": PayloadType.PERCENT}),
        NoticeKind("renewal_succeeded", {**_TARIFF, **_END}, {**_AMOUNT, "days": PayloadType.COUNT}),
        NoticeKind("renewal_lacks_funds", {**_AMOUNT, **_END}, _TARIFF, useful_until="expires_at"),
        NoticeKind("renewal_missed", {**_AMOUNT, "why": PayloadType.WORD, **_END}, _TARIFF, variant="why"),
        NoticeKind("refund_paid", _AMOUNT),
        NoticeKind("withdrawal_requested", _AMOUNT, for_operator=True),
        NoticeKind("withdrawal_approved", _AMOUNT),
        NoticeKind("withdrawal_rejected", _AMOUNT, _REASON),
        NoticeKind("balance_adjusted", {"amount": PayloadType.CHANGE}, _REASON),
        NoticeKind("compensation_credited", _AMOUNT, _REASON),
        # access
        NoticeKind("access_granted", {**_TARIFF, "source": PayloadType.WORD, **_END}, variant="source"),
        NoticeKind("access_expired", optional={**_TARIFF, **_END}),
        NoticeKind("key_active"),
        NoticeKind("key_reissued", optional=_END),
        # reminders, named for what ends and how long before
        _reminder("paid_3d"),
        _reminder("paid_24h"),
        _reminder("paid_3h"),
        _reminder("grant_24h"),
        _reminder("grant_6h"),
        _reminder("trial_6h_in"),
        _reminder("trial_48h_in"),
        _reminder("trial_6h"),
        # for the operator
        NoticeKind(
            "case_opened",
            {"kind": PayloadType.WORD, "subject": PayloadType.TEXT},
            for_customer=False,
            for_operator=True,
        ),
    )
}


def payload_problems(kind: str, payload: Mapping[str, object]) -> list[str]:
    """What keeps this payload from being told, as short phrases; empty if nothing does."""
    known = NOTICE_KINDS.get(kind)
    if known is None:
        return [f"there is no kind {kind!r}"]
    problems = [f"{name} is missing" for name in known.required if payload.get(name) is None]
    for name, fact in known.facts.items():
        value = payload.get(name)
        if value is not None and not _is(fact, value):
            problems.append(f"{name} is no {fact.value}")
    if {PayloadType.AMOUNT, PayloadType.CHANGE} & {*known.facts.values()} and payload.get(
        "currency", "RUB"
    ) not in DIGITS:
        problems.append("currency is unknown")
    return problems


def _is(fact: PayloadType, value: object) -> bool:
    match fact:
        case PayloadType.CHANGE:
            return type(value) is int
        case PayloadType.AMOUNT | PayloadType.COUNT | PayloadType.PERCENT:
            return type(value) is int and value >= 0
        case PayloadType.WORD | PayloadType.TEXT:
            return isinstance(value, str)
        case PayloadType.FLAG:
            return isinstance(value, bool)
        case PayloadType.MOMENT:
            try:
                return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
            except ValueError:
                return False
