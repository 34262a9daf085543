"""Reading providers' JSON strictly: a value of another type than documented is an error, never a guess."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import NoReturn

from actors.payments.provider import NotUnderstood
from db.money import Money, NotMoney

Fields = Mapping[str, object]

_ORDER = re.compile(r"order:(\d{1,18})")


def read_object(body: bytes) -> Fields:
    """The body as a JSON object. Numbers with a point are read as decimals, never as floats."""
    try:
        value = json.loads(body, parse_float=Decimal, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise NotUnderstood(f"the body is no JSON: {type(error).__name__}") from error
    if not isinstance(value, dict):
        raise NotUnderstood(f"the body is {type(value).__name__}, not a JSON object")
    return value


def sub(fields: Fields, name: str) -> Fields:
    """A member that must be an object."""
    value = fields.get(name)
    return value if isinstance(value, dict) else _missing(name, "an object", value)


def maybe_sub(fields: Fields, name: str) -> Fields | None:
    """A member that is an object, if it is there."""
    return None if fields.get(name) is None else sub(fields, name)


def text(fields: Fields, name: str) -> str:
    """A member that must be text, and not empty."""
    value = fields.get(name)
    return value if isinstance(value, str) and value else _missing(name, "text", value)


def maybe_text(fields: Fields, name: str) -> str:
    """A member that is text, or nothing."""
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def whole(fields: Fields, name: str) -> int:
    """A member that must be a whole number."""
    value = fields.get(name)
    return value if type(value) is int else _missing(name, "a whole number", value)


def identifier(fields: Fields, name: str) -> str:
    """A member that names something: text, or a whole number."""
    value = fields.get(name)
    return str(value) if type(value) is int else text(fields, name)


def minor_units(amount: int, currency: str) -> Money:
    """An amount in the smallest unit. Raises NotUnderstood for a currency that we do not know."""
    return _money(lambda: Money(amount, currency.upper()))


def decimal_text(amount: str, currency: str) -> Money:
    """An amount written as decimal text. Raises NotUnderstood if it is not exactly one."""
    return _money(lambda: Money.parse(amount, currency.upper()))


def order_tag(order_id: int) -> str:
    """How an order is named in a provider's payload or metadata."""
    return f"order:{order_id}"


def order_of(tag: str) -> int | None:
    """The order that a payload or metadata names, or None."""
    found = _ORDER.fullmatch(tag)
    return int(found[1]) if found else None


def _money(build: object) -> Money:
    assert callable(build)
    try:
        money = build()
    except NotMoney as error:
        raise NotUnderstood(str(error)) from error
    assert isinstance(money, Money)
    if money.amount <= 0:
        raise NotUnderstood(f"{money} cannot have been paid")
    return money


def _missing(name: str, wanted: str, value: object) -> NoReturn:
    raise NotUnderstood(f"{name!r} should be {wanted}, and is {type(value).__name__}")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
