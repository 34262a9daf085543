"""How a provider delivers an event: as a POST with its headers, again and again until the shop answers 2xx."""

from __future__ import annotations

import attrs
import httpx


@attrs.frozen
class Event:
    """An event as it is sent to the shop."""

    body: bytes
    headers: dict[str, str]


async def deliver(url: str, event: Event, *, timeout: float = 15.0) -> httpx.Response:
    """Send an event once, with `timeout` in seconds; returns the shop's answer. Raises httpx.HTTPError when no answer
    comes.
    """
    # As bytes: a header may hold what is no ASCII.
    headers = {"content-type": "application/json", **event.headers}
    sent = [(name.encode(), value.encode()) for name, value in headers.items()]
    async with httpx.AsyncClient(trust_env=False, timeout=timeout) as client:
        return await client.post(url, content=event.body, headers=sent)


async def deliver_until_taken(url: str, event: Event, *, attempts: int = 20) -> int:
    """Send an event until the answer is 2xx, at most `attempts` times without a pause; returns how often it was sent.
    Raises RuntimeError if it never is.
    """
    last = ""
    for attempt in range(1, attempts + 1):
        try:
            answer = await deliver(url, event)
        except httpx.HTTPError as error:
            last = repr(error)
            continue
        if answer.is_success:
            return attempt
        last = f"HTTP {answer.status_code}"
    raise RuntimeError(f"not taken in {attempts} attempts: {last}")
