"""Texts: every kind in both languages with the same facts, and every number, date and amount as its readers write it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from string import Formatter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.notices.english import ENGLISH
from actors.notices.language import Language
from actors.notices.rendering import LANGUAGES, LEFT, UntellableNotice, is_stale, language_of, text_of
from actors.notices.russian import RUSSIAN
from db.money import DIGITS
from db.work.notices import NOTICE_KINDS, NoticeKind, PayloadType, payload_problems

REPOSITORY = Path(__file__).parent.parent.parent.parent
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
END = NOW + timedelta(days=2)
SAMPLES = {
    PayloadType.AMOUNT: 139950,
    PayloadType.CHANGE: -5000,
    PayloadType.MOMENT: END.isoformat(),
    PayloadType.COUNT: 30,
    PayloadType.PERCENT: 25,
    PayloadType.WORD: "basic",
    PayloadType.FLAG: True,
    PayloadType.TEXT: "as agreed",
}
both = pytest.mark.parametrize("language", LANGUAGES.values(), ids=LANGUAGES.keys())
every_kind = pytest.mark.parametrize("kind", NOTICE_KINDS.values(), ids=NOTICE_KINDS.keys())


def payload(kind: NoticeKind, *, optional: bool = True) -> dict[str, object]:
    """A payload of this kind, with or without what it may lack."""
    return {name: SAMPLES[fact] for name, fact in (kind.facts if optional else kind.required).items()}


def readers(kind: NoticeKind) -> list[bool]:
    """Who is told: False for the customer, True for the operator."""
    return [False] * kind.for_customer + [True] * kind.for_operator


def placeholders(template: str) -> set[str]:
    """The names that a template fills in."""
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}


# ---- the catalog --------------------------------------------------------------------------------------------------------


@both
@every_kind
@pytest.mark.parametrize("optional", [True, False], ids=["whole", "least"])
def test_every_kind_has_a_text_for_each_of_its_readers(kind: NoticeKind, language: Language, optional: bool) -> None:
    assert readers(kind)
    for for_operator in readers(kind):
        text = text_of(kind.name, payload(kind, optional=optional), language, NOW, for_operator=for_operator)
        assert text and text == text.strip() and len(text) < 4096
        assert "{" not in text and "  " not in text and "None" not in text


def test_both_languages_have_the_same_texts_with_the_same_facts() -> None:
    assert RUSSIAN.texts.keys() == ENGLISH.texts.keys()
    assert RUSSIAN.words.keys() == ENGLISH.words.keys()
    assert RUSSIAN.nouns.keys() == ENGLISH.nouns.keys()
    assert RUSSIAN.clauses.keys() == ENGLISH.clauses.keys()
    for name, text in RUSSIAN.texts.items():
        assert placeholders(text) == placeholders(ENGLISH.texts[name]), name


@both
def test_every_text_belongs_to_a_kind_and_says_only_what_the_kind_has(language: Language) -> None:
    for name, text in language.texts.items():
        kind = NOTICE_KINDS[name.partition("@")[0].partition(".")[0]]
        allowed = {*kind.facts, *([LEFT] if kind.useful_until else [])}
        assert placeholders(text) <= allowed, name
        assert "." not in name or kind.variant, name


@both
@every_kind
def test_every_required_fact_is_in_a_text_of_its_kind_except_the_one_that_chooses(
    kind: NoticeKind, language: Language
) -> None:
    said = {
        placeholder
        for name, text in language.texts.items()
        if name.partition("@")[0].partition(".")[0] == kind.name
        for placeholder in placeholders(text)
    }
    assert set(kind.required) - {kind.variant} <= said


@both
def test_a_clause_says_its_own_fact_and_every_counted_noun_has_all_forms(language: Language) -> None:
    for name, clause in language.clauses.items():
        assert placeholders(clause) == {name}
    counted = {name for kind in NOTICE_KINDS.values() for name, fact in kind.facts.items() if fact is PayloadType.COUNT}
    assert counted <= language.nouns.keys()
    used = {language.plural(number) for number in range(1000)}
    for forms in language.nouns.values():
        assert set(range(len(forms))) == used
    assert len(set(language.months)) == 12


def written_kinds() -> Iterator[tuple[str, str, ast.Call]]:
    """Every call that writes a notice of a kind that stands there as text: where, its kind, the call."""
    for room in ("db", "actors"):
        for file in sorted((REPOSITORY / room).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Call):
                    continue
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                position = {"add_message": 1, "Notice": 0}.get(name)
                if position is None or len(node.args) <= position:
                    continue
                kind = node.args[position]
                if isinstance(kind, ast.Constant) and isinstance(kind.value, str):
                    yield f"{file.relative_to(REPOSITORY)}:{node.lineno}", kind.value, node


def test_whoever_writes_a_notice_writes_a_known_kind_with_its_facts() -> None:
    found = list(written_kinds())
    assert {kind for _, kind, _ in found} >= {"purchase", "key_active", "case_opened"}
    for where, kind, call in found:
        assert kind in NOTICE_KINDS, f"{where}: list {kind!r} in db/work/notices.py and give it texts"
        given = next((keyword.value for keyword in call.keywords if keyword.arg == "payload"), None)
        if given is None and len(call.args) > 3:
            given = call.args[3]
        if isinstance(given, ast.Dict) and None not in given.keys:  # a ** stands under None
            names = {key.value for key in given.keys if isinstance(key, ast.Constant)}
            missing = NOTICE_KINDS[kind].required.keys() - names
            assert not missing, f"{where}: the payload of {kind!r} lacks {', '.join(sorted(missing))}"
        elif given is None:
            assert not NOTICE_KINDS[kind].required, f"{where}: {kind!r} has no payload"


def test_every_reminder_that_the_schema_schedules_is_a_kind() -> None:
    texts = [file.read_text(encoding="utf-8") for file in (REPOSITORY / "db" / "schema" / "migrations").glob("*.sql")]
    scheduled = set(re.findall(r"'(reminder_[a-z0-9_]+)'", "".join(texts)))
    assert scheduled == {kind for kind in NOTICE_KINDS if kind.startswith("reminder_")}


# ---- languages ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "language"),
    [
        ("ru", RUSSIAN),
        ("ru-RU", RUSSIAN),
        ("RU", RUSSIAN),
        (None, RUSSIAN),
        ("", RUSSIAN),
        ("en", ENGLISH),
        ("de", ENGLISH),
    ],
)
def test_whoever_speaks_another_language_reads_english(code: str | None, language: Language) -> None:
    assert language_of(code) is language


@pytest.mark.parametrize(
    ("number", "words"),
    [
        *((number, "день") for number in (1, 21, 101, 121)),
        *((number, "дня") for number in (2, 4, 22, 104)),
        *((number, "дней") for number in (0, 5, 11, 12, 14, 20, 25, 111, 112, 365)),
    ],
)
def test_russian_counts_as_russians_do(number: int, words: str) -> None:
    assert RUSSIAN.count("days", number) == f"{number}\u00a0{words}"


def test_english_has_one_form_for_one_and_another_for_all_else() -> None:
    assert [ENGLISH.count("days", number) for number in (0, 1, 2, 21)] == [
        "0\u00a0days",
        "1\u00a0day",
        "2\u00a0days",
        "21\u00a0days",
    ]


@pytest.mark.parametrize(
    ("amount", "currency", "russian", "english"),
    [
        (14900, "RUB", "149 ₽", "149 ₽"),
        (139950, "RUB", "1 399,50 ₽", "1,399.50 ₽"),
        (5, "RUB", "0,05 ₽", "0.05 ₽"),
        (100000000, "RUB", "1 000 000 ₽", "1,000,000 ₽"),
        (250, "XTR", "250 ⭐", "250 ⭐"),
        (1500000, "USDT", "1,5 USDT", "1.5 USDT"),
        (1, "TON", "0,000000001 TON", "0.000000001 TON"),
        (0, "RUB", "0 ₽", "0 ₽"),
    ],
)
def test_money_is_written_as_readers_write_it(amount: int, currency: str, russian: str, english: str) -> None:
    assert RUSSIAN.money(amount, currency).replace("\u00a0", " ") == russian
    assert ENGLISH.money(amount, currency).replace("\u00a0", " ") == english


@both
@given(amount=st.integers(0, 2**63 - 1), currency=st.sampled_from(sorted(DIGITS)))
def test_no_money_is_rounded_away(language: Language, amount: int, currency: str) -> None:
    number = language.money(amount, currency).rpartition("\u00a0")[0]
    whole, _, places = number.replace(language.thousands, "").partition(language.decimals)
    assert int(whole + places.ljust(DIGITS[currency], "0")) == amount


def test_a_change_shows_its_sign() -> None:
    assert "+50" in text_of("balance_adjusted", {"amount": 5000}, ENGLISH, NOW)
    assert "\u221250" in text_of("balance_adjusted", {"amount": -5000}, ENGLISH, NOW)


def test_dates_are_in_moscow_and_say_so() -> None:
    evening = datetime(2026, 12, 31, 21, 30, tzinfo=UTC)
    assert RUSSIAN.moment(evening) == "1 января 2027, 00:30 МСК"
    assert ENGLISH.moment(evening) == "1 January 2027, 00:30 Moscow time"


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (timedelta(days=3, minutes=-5), "3 дня"),
        (timedelta(hours=48), "2 дня"),
        (timedelta(hours=47), "47 часов"),
        (timedelta(hours=24), "24 часа"),
        (timedelta(hours=3, seconds=-40), "3 часа"),
        (timedelta(minutes=61), "1 час"),
        (timedelta(minutes=59), "59 минут"),
        (timedelta(seconds=1), "1 минута"),
    ],
)
def test_what_is_left_is_told_as_it_is_when_the_notice_leaves(span: timedelta, words: str) -> None:
    assert RUSSIAN.left(span).replace("\u00a0", " ") == words
    assert words in text_of(
        "reminder_paid_3h", {"expires_at": (NOW + span).isoformat()}, RUSSIAN, NOW
    ).replace("\u00a0", " ")  # fmt: skip


# ---- what cannot be told ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "facts", "why"),
    [
        ("greeting", {}, "no kind 'greeting'"),
        ("purchase", {"tariff": "basic", "days": 30}, "expires_at is missing"),
        ("purchase", {"tariff": "basic", "days": -1, "expires_at": END.isoformat()}, "days is no count"),
        ("purchase", {"tariff": "basic", "days": 30, "expires_at": "2026-11-24T12:00:00"}, "expires_at is no moment"),
        ("purchase", {"tariff": "basic", "days": 30, "expires_at": "soon"}, "expires_at is no moment"),
        ("refund_paid", {"amount": 1.5}, "amount is no amount"),
        ("refund_paid", {"amount": True}, "amount is no amount"),
        ("refund_paid", {"amount": 100, "currency": "DOGE"}, "currency is unknown"),
        ("case_opened", {"kind": "late", "subject": "order:1"}, "no text for them"),
    ],
)
def test_a_notice_that_lacks_something_is_refused_with_what_it_lacks(
    kind: str, facts: dict[str, object], why: str
) -> None:
    with pytest.raises(UntellableNotice, match=why):
        text_of(kind, facts, ENGLISH, NOW)


def test_a_customers_notice_is_not_told_to_the_operator() -> None:
    with pytest.raises(UntellableNotice, match="the operator"):
        text_of("key_active", {}, ENGLISH, NOW, for_operator=True)


def test_what_a_human_wrote_is_shown_as_it_is_and_no_longer_than_a_message_may_be() -> None:
    text = text_of("withdrawal_rejected", {"amount": 100, "reason": "{amount} <b> " + "x" * 9000}, ENGLISH, NOW)
    assert "{amount} <b> xxx" in text and len(text) < 1000


def test_a_reminder_of_an_end_that_has_passed_is_stale_and_a_purchase_never() -> None:
    passed = {"expires_at": NOW.isoformat(), "tariff": "basic", "days": 30}
    assert is_stale("reminder_paid_3h", passed, NOW)
    assert not is_stale("reminder_paid_3h", {"expires_at": END.isoformat()}, NOW)
    assert not is_stale("purchase", passed, NOW)
    assert not is_stale("greeting", {}, NOW)


def test_a_reminder_of_what_renews_itself_does_not_ask_to_renew_it() -> None:
    facts: dict[str, object] = {"expires_at": END.isoformat(), "tariff": "basic"}
    assert "Renew" in text_of("reminder_paid_24h", {**facts, "auto_renew": False}, ENGLISH, NOW)
    assert "renews itself" in text_of("reminder_paid_24h", {**facts, "auto_renew": True}, ENGLISH, NOW)


def test_a_payload_may_hold_more_than_the_text_says() -> None:
    assert payload_problems("key_active", {"node": "local"}) == []
