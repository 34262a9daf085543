"""The Bot API: the methods that payments need. The bot's token is part of every path, so no path is ever shown."""

from __future__ import annotations

import attrs
import httpx

from actors.payments.provider import ProviderRefused, ProviderUnavailable
from actors.payments.wire import Fields, call_provider, optional_text, provider_refused
from runtime.config import Secret
from runtime.http import Timeouts, new_client

NAME = "telegram"
_CONNECTIONS = 100
"""As many checkouts as one request for updates may bring are answered at the same time."""


@attrs.frozen
class TelegramApi:
    """The calls of the Bot API that payments need. Its errors say whether to ask again; `actors.telegram` has a
    client of its own, because there it matters whether a message was sent."""

    token: Secret
    client: httpx.AsyncClient

    @classmethod
    def of(cls, url: str, token: Secret, *, read_seconds: float = 10.0) -> TelegramApi:
        """A client that waits `read_seconds` for an answer."""
        return cls(token, new_client(url, timeouts=Timeouts(read=read_seconds), max_connections=_CONNECTIONS))

    async def send(self, method: str, body: object, *, within: float = 10.0) -> int:
        """Call a method whose answer does not matter, and return the status. Raises ProviderUnavailable."""
        status, _ = await self._call(method, body, within, repeat=True)
        return status

    async def link(self, method: str, body: object) -> str:
        """Call a method that answers with text. Raises ProviderUnavailable and ProviderRefused."""
        status, answer = await self._call(method, body, 10.0)
        result = answer.get("result")
        if answer.get("ok") is True and isinstance(result, str) and result:
            return result
        raise self.refused(method, status, optional_text(answer, "description"))

    async def updates(self, body: object, *, within: float) -> list[object]:
        """Call `getUpdates`. Raises ProviderUnavailable and ProviderRefused."""
        status, answer = await self._call("getUpdates", body, within)
        result = answer.get("result")
        if answer.get("ok") is True and isinstance(result, list):
            return result
        if status == httpx.codes.CONFLICT:
            raise ProviderUnavailable(
                f"somebody else takes this bot's updates: {optional_text(answer, 'description')[:200]}"
            )
        raise self.refused("getUpdates", status, optional_text(answer, "description"))

    async def star_transactions(self, offset: int, limit: int) -> list[object]:
        """Call `getStarTransactions`. Raises ProviderUnavailable and ProviderRefused."""
        status, answer = await self._call("getStarTransactions", {"offset": offset, "limit": limit}, 10.0, repeat=True)
        result = answer.get("result")
        found = result.get("transactions") if isinstance(result, dict) else None
        if answer.get("ok") is True and isinstance(found, list):
            return found
        raise self.refused("getStarTransactions", status, optional_text(answer, "description"))

    async def demand(self, method: str, body: object) -> None:
        """Call a method that must succeed. Raises ProviderUnavailable and ProviderRefused."""
        status, answer = await self._call(method, body, 10.0, repeat=True)
        if answer.get("ok") is not True:
            raise self.refused(method, status, optional_text(answer, "description"))

    async def refusal_of(self, method: str, body: object) -> str:
        """Call a method that a repetition does not do twice; returns why Telegram says no, empty if it says yes.

        Raises ProviderUnavailable, and ProviderRefused when it does not know the bot.
        """
        status, answer = await self._call(method, body, 10.0, repeat=True)
        if answer.get("ok") is True:
            return ""
        why = optional_text(answer, "description")
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN, httpx.codes.NOT_FOUND):
            raise self.refused(method, status, why)
        return why[:200] or f"HTTP {status}"

    def refused(self, method: str, status: int, why: str = "") -> ProviderRefused:
        """The error for an answer that says no."""
        return provider_refused(NAME, method, status, why, "payments.telegram")

    async def aclose(self) -> None:
        """Close the connections to Telegram; calls that are on their way fail."""
        await self.client.aclose()

    async def _call(self, method: str, body: object, within: float, *, repeat: bool = False) -> tuple[int, Fields]:
        path = f"/bot{self.token.reveal()}/{method}"
        return await call_provider(
            self.client, NAME, "POST", path, what=method, body=body, repeat=repeat, within=within
        )
