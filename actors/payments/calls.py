"""One HTTP call to a provider, with its failures sorted by what they mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal

import httpx
import trio

from actors.payments.fields import Fields, read_object
from actors.payments.provider import NotUnderstood, ProviderRefused, ProviderUnavailable

REPEATS = 2
"""How often a request with an idempotency key is sent again at once."""
_PAUSE = 0.2


async def call(
    client: httpx.AsyncClient,
    provider: str,
    method: str,
    path: str,
    *,
    what: str,
    body: object = None,
    form: Mapping[str, str] | None = None,
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    repeat: bool = False,
    within: float = 10.0,
) -> tuple[int, Fields]:
    """Send one request and return the status, below 500 and not 429, with the answer's JSON object.

    `what` names the request in errors, because the path may hold a secret. Raises ProviderUnavailable when the answer
    stays away, says 429 or 500 and above, or is no JSON: what happened there is unknown. With `repeat`, which needs an
    idempotency key or a method that changes nothing, it is sent up to `REPEATS` times more first. `within` seconds bound
    it all.
    """
    why = ""
    with trio.move_on_after(within):
        for attempt in range(1 + REPEATS * repeat):
            if attempt:
                await trio.sleep(_PAUSE * 2**attempt)
            try:
                answer = await client.request(
                    method,
                    path,
                    content=None if body is None else json.dumps(body, default=_write).encode(),
                    data=None if form is None else dict(form),
                    params=None if params is None else dict(params),
                    headers={**({} if body is None else {"content-type": "application/json"}), **(headers or {})},
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


def refuse(provider: str, what: str, status: int, why: str, setting: str) -> ProviderRefused:
    """The error for an answer of 4xx."""
    return ProviderRefused(
        f"{provider} refused {what} with HTTP {status} ({why[:200] or 'no reason given'}); look at {setting}"
    )


def _write(value: object) -> str:
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no JSON")
