"""What goes over the wire between a provider and us.

JSON is read strictly, the failures of an HTTP call are sorted by what they mean, and secrets are compared in constant
time.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import NoReturn

import attrs
import httpx
import trio

from actors.payments.provider import NotUnderstood, ProviderRefused, ProviderUnavailable
from db.billing.payment_facts import LONGEST_NAME, is_name
from db.money import UNVALUED, Money, NotMoney
from runtime.config import Secret

Fields = Mapping[str, object]

_UNKEPT = re.compile("[\0\ud800-\udfff]")
"""What JSON can say and PostgreSQL cannot keep: NUL, and half of a character."""
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


def object_field(fields: Fields, name: str) -> Fields:
    """A member that must be an object."""
    value = fields.get(name)
    return value if isinstance(value, dict) else _missing(name, "an object", value)


def optional_object(fields: Fields, name: str) -> Fields | None:
    """A member that is an object, if it is there."""
    return None if fields.get(name) is None else object_field(fields, name)


def text_field(fields: Fields, name: str) -> str:
    """A member that must be text, not empty, and such that PostgreSQL can keep it."""
    value = fields.get(name)
    return value if isinstance(value, str) and value and not _UNKEPT.search(value) else _missing(name, "text", value)


def event_name(fields: Fields, name: str) -> str:
    """A member that names an event: text or a whole number, whatever is in it. `store_event` finds one that it cannot keep."""
    value = fields.get(name)
    if type(value) is int:
        return str(value)
    return value if isinstance(value, str) and value else _missing(name, "text", value)


def optional_text(fields: Fields, name: str) -> str:
    """A member that is text that can be kept, or nothing."""
    value = fields.get(name)
    return value if isinstance(value, str) and not _UNKEPT.search(value) else ""


def int_field(fields: Fields, name: str) -> int:
    """A member that must be a whole number."""
    value = fields.get(name)
    return value if type(value) is int else _missing(name, "a whole number", value)


def identifier(fields: Fields, name: str) -> str:
    """A member that names something: text, or a whole number."""
    value = fields.get(name)
    return str(value) if type(value) is int else text_field(fields, name)


def minor_units(amount: int, currency: str) -> Money:
    """An amount in the smallest unit. Raises NotUnderstood for a currency that we do not know."""
    return _money(lambda: Money(amount, currency.upper()))


@attrs.frozen
class Came:
    """Money as a provider tells of it."""

    amount: Money
    """One unit of `UNVALUED` for what we cannot hold: an asset that we do not know, or a part of a smallest unit."""
    stated: str = ""
    """The provider's words, then."""


def came_in_minor_units(amount: int, currency: str) -> Came:
    """What was captured, told in the smallest unit. Raises NotUnderstood if that is nothing."""
    _refuse_nothing(amount, currency)
    return _held(lambda: Money(amount, currency.upper()), f"{amount} of the smallest unit of {currency.upper()}")


def came_as_text(amount: str, currency: str) -> Came:
    """What was captured, told as decimal text. Raises NotUnderstood if that is nothing, or no number."""
    try:
        number = Decimal(amount)
    except InvalidOperation as error:
        raise NotUnderstood(f"the amount of a payment is {len(amount)} characters of text, and no number") from error
    _refuse_nothing(number, currency)
    return _held(lambda: Money.parse(number, currency.upper()), f"{amount} {currency.upper()}")


def _refuse_nothing(number: int | Decimal, currency: str) -> None:
    if not Decimal(number).is_finite() or number <= 0:
        raise NotUnderstood(f"{str(number)[:40]} {currency[:20]} cannot have been paid")


def _held(build: Callable[[], Money], stated: str) -> Came:
    """It came, so it is kept, whether or not we know what it is."""
    if len(stated) > LONGEST_NAME or not is_name(stated):
        raise NotUnderstood("the amount of a payment, or its currency, is longer than any")
    try:
        money = build()
    except NotMoney:
        return Came(Money(1, UNVALUED), stated)
    return Came(money) if money.currency != UNVALUED else Came(Money(1, UNVALUED), stated)


def order_tag(order_id: int) -> str:
    """How an order is named in a provider's payload or metadata."""
    return f"order:{order_id}"


def order_of(tag: str) -> int | None:
    """The order that a payload or metadata names, or None."""
    found = _ORDER.fullmatch(tag)
    return int(found[1]) if found else None


def _money(build: Callable[[], Money]) -> Money:
    try:
        money = build()
    except NotMoney as error:
        raise NotUnderstood(str(error)) from error
    if money.amount <= 0:
        raise NotUnderstood(f"{money} cannot have been paid")
    return money


def _missing(name: str, wanted: str, value: object) -> NoReturn:
    raise NotUnderstood(f"{name!r} should be {wanted}, and is {type(value).__name__}")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


REPEATS = 2
"""How often a request with an idempotency key is sent again at once."""
_PAUSE = 0.2


async def call_provider(
    client: httpx.AsyncClient,
    provider: str,
    method: str,
    path: str,
    *,
    what: str,
    body: object = None,
    content: bytes | None = None,
    form: Mapping[str, str] | None = None,
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    repeat: bool = False,
    within: float = 10.0,
) -> tuple[int, Fields]:
    """Send one request and return the status, below 500 and not 429, with the answer's JSON object.

    `body` is sent as JSON, `content` as the JSON that it is already. `what` names the request in errors, because the path may
    hold a secret. Raises ProviderUnavailable when the answer stays away, says 429 or 500 and above, or is no JSON: what
    happened there is unknown. With `repeat`, which needs an idempotency key or a method that changes nothing, it is sent up
    to `REPEATS` times more first. `within` seconds bound it all.
    """
    if body is not None:
        content = json.dumps(body, default=_write).encode()
    why = ""
    with trio.move_on_after(within):
        for attempt in range(1 + REPEATS * repeat):
            if attempt:
                await trio.sleep(_PAUSE * 2**attempt)
            try:
                answer = await client.request(
                    method,
                    path,
                    content=content,
                    data=None if form is None else dict(form),
                    params=None if params is None else dict(params),
                    headers={**({} if content is None else {"content-type": "application/json"}), **(headers or {})},
                )
            except httpx.HTTPError as error:
                why = type(error).__name__
                continue
            if (
                answer.status_code == httpx.codes.TOO_MANY_REQUESTS
                or answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR
            ):
                why = f"HTTP {answer.status_code}"
                continue
            try:
                return answer.status_code, read_object(answer.content)
            except NotUnderstood as error:
                why = f"HTTP {answer.status_code}, {error}"
    raise ProviderUnavailable(
        f"{provider} did not answer when asked to {what}: {why or f'nothing within {within:g} s'}"
    )


def provider_refused(provider: str, what: str, status: int, why: str, setting: str) -> ProviderRefused:
    """The error for an answer of 4xx."""
    return ProviderRefused(
        f"{provider} refused {what} with HTTP {status} ({why[:200] or 'no reason given'}); look at {setting}"
    )


def _write(value: object) -> str:
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no JSON")


def configured(*secrets: Secret) -> tuple[Secret, ...]:
    """The secrets that are set: the current one and, during a rotation, the previous one."""
    return tuple(secret for secret in secrets if secret)


def matches_any(given: str, secrets: Iterable[Secret]) -> bool:
    """Whether `given` is one of the secrets. How long it takes tells nothing about them."""
    found = False
    for secret in secrets:
        found |= hmac.compare_digest(given.encode(), secret.reveal().encode())
    return found


def is_valid_signature(key: bytes, message: bytes, given: str) -> bool:
    """Whether `given` is the hexadecimal HMAC-SHA256 of `message`, compared in constant time."""
    expected = hmac.new(key, message, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), given.encode())
