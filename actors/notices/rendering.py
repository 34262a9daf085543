"""From a notice's facts to what is sent, in the reader's language."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from actors.notices.english import ENGLISH
from actors.notices.language import Language
from actors.notices.russian import RUSSIAN
from db.work.notices import NOTICE_KINDS, NoticeKind, PayloadType, payload_problems
from runtime import AtlasError

LANGUAGES: Final[Mapping[str, Language]] = {language.code: language for language in (RUSSIAN, ENGLISH)}
LEFT: Final = "left"
"""A placeholder beside the facts, for kinds that are useful until a moment: how long it is until then."""

_MAX_TEXT: Final = 500


class UntellableNotice(AtlasError):
    """A notice of a kind that has no text here, or whose payload lacks what the text says."""


def language_of(code: str | None) -> Language:
    """Return Russian for Russian and for an unknown language; English for every other."""
    if not code:
        return RUSSIAN
    return LANGUAGES.get(code.lower().split("-")[0], ENGLISH)


def is_stale(kind: str, payload: Mapping[str, object], now: datetime) -> bool:
    """Whether the moment has passed until which a notice of this kind is of use."""
    if payload_problems(kind, payload) or not NOTICE_KINDS[kind].useful_until:
        return False
    return datetime.fromisoformat(str(payload[NOTICE_KINDS[kind].useful_until])) <= now


def text_of(
    kind: str, payload: Mapping[str, object], language: Language, now: datetime, *, for_operator: bool = False
) -> str:
    """The text of a notice. Raises UntellableNotice with what is wrong; its text repeats no value of the payload."""
    problems = payload_problems(kind, payload)
    template = None if problems else _template(NOTICE_KINDS[kind], payload, language, for_operator=for_operator)
    if template is None:
        reader = "the operator" if for_operator else "a customer"
        raise UntellableNotice(f"{kind} cannot be told to {reader}: {', '.join(problems) or 'it has no text for them'}")
    known = NOTICE_KINDS[kind]
    currency = str(payload.get("currency", "RUB"))
    values = dict.fromkeys(known.optional, "")
    for name, fact in known.facts.items():
        value = payload.get(name)
        if value is not None and fact is not PayloadType.FLAG:
            shown = _shown(language, name, fact, value, currency)
            values[name] = language.clauses[name].format(**{name: shown}) if name in known.optional else shown
    if known.useful_until:
        values[LEFT] = language.left(datetime.fromisoformat(str(payload[known.useful_until])) - now)
    return template.format(**values)


def _template(kind: NoticeKind, payload: Mapping[str, object], language: Language, *, for_operator: bool) -> str | None:
    if for_operator:
        return language.texts.get(f"{kind.name}@operator")
    if not kind.for_customer:
        return None
    chosen = payload.get(kind.variant) if kind.variant else None
    if chosen is True:
        chosen = kind.variant
    return language.texts.get(f"{kind.name}.{chosen}") or language.texts.get(kind.name)


def _shown(language: Language, name: str, fact: PayloadType, value: object, currency: str) -> str:
    match fact, value:
        case ((PayloadType.AMOUNT | PayloadType.CHANGE), int()):
            return language.money(value, currency, signed=fact is PayloadType.CHANGE)
        case PayloadType.COUNT, int():
            return language.count(name, value)
        case PayloadType.PERCENT, int():
            return language.percent(value)
        case PayloadType.MOMENT, str():
            return language.moment(datetime.fromisoformat(value))
        case PayloadType.WORD, str():
            return language.word(value)
    return str(value)[:_MAX_TEXT]
