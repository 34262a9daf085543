"""The one method of the Telegram Bot API that notices need, and what its answers mean.

After https://core.telegram.org/bots/api#making-requests and #responseparameters. The token is part of every address, so no
address is ever shown.
"""

from __future__ import annotations

import enum
import json
from typing import Final

import attrs
import httpx
import trio

from actors.notices.settings import TelegramNoticeSettings
from runtime.http import Timeouts, new_client

_MAX_ANSWER: Final = 64 * 1024
_DEFAULT_RETRY_AFTER: Final = 5.0
# Of refusals with 400: the chat is not there, as opposed to a message that is wrong.
_NO_CHAT: Final = (
    "chat not found",
    "peer_id_invalid",
    "user not found",
    "user_id_invalid",
    "bot was blocked",
    "deactivated",
)


class SendResult(enum.Enum):
    """What became of a message."""

    SENT = "sent"
    UNREACHABLE = "unreachable"
    """The chat refuses us or is not there. Terminal for the message."""
    REFUSED = "refused"
    """Telegram will never take this message. Terminal; a defect of ours."""
    TOO_FAST = "too fast"
    """Nothing was sent; again after `retry_after`."""
    MOVED = "moved"
    """The group has another id now; nothing was sent."""
    NOT_SENT = "not sent"
    """No connection: nothing left."""
    UNKNOWN = "unknown"
    """It left, and no usable answer came: it may have been delivered."""
    NO_ACCESS = "no access"
    """Telegram does not know the token. Nothing was sent."""


@attrs.frozen
class BotAnswer:
    """What Telegram said. `why` is short and repeats neither token nor text."""

    outcome: SendResult
    why: str = ""
    retry_after: float = 0.0
    moved_to: int = 0


class BotApi:
    """A client of the Bot API. `aclose()` it."""

    def __init__(self, telegram: TelegramNoticeSettings) -> None:
        self._path = f"/bot{telegram.token.reveal()}/sendMessage"
        self._within = telegram.within
        self._client = new_client(
            telegram.url.rstrip("/"),
            timeouts=Timeouts(connect=min(5.0, telegram.within), read=telegram.within, write=telegram.within),
        )

    async def aclose(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def send(self, chat: int, text: str) -> BotAnswer:
        """Send a message as plain text, without previews of links. Never raises for what Telegram or the network does."""
        body = {"chat_id": chat, "text": text, "link_preview_options": {"is_disabled": True}}
        try:
            with trio.fail_after(self._within):
                response = await self._client.post(self._path, json=body)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            return BotAnswer(SendResult.NOT_SENT, f"no connection to Telegram: {type(error).__name__}")
        except trio.TooSlowError:
            return BotAnswer(SendResult.UNKNOWN, f"no answer from Telegram within {self._within:g} s")
        except httpx.HTTPError as error:
            return BotAnswer(SendResult.UNKNOWN, f"the connection to Telegram broke: {type(error).__name__}")
        return read_answer(response.status_code, response.content)


def read_answer(status: int, content: bytes) -> BotAnswer:
    """What an answer of `sendMessage` means. What cannot be understood, or is not Telegram's, means UNKNOWN."""
    fields = _object(content)
    if fields.get("ok") is True and status == httpx.codes.OK:
        return BotAnswer(SendResult.SENT)
    said = fields.get("description")
    description = said[:200] if isinstance(said, str) else ""
    why = f"Telegram answered {status}: {description}" if description else f"Telegram answered {status}"
    given = fields.get("parameters")
    parameters = given if isinstance(given, dict) else {}
    match status:
        case httpx.codes.TOO_MANY_REQUESTS:
            seconds = parameters.get("retry_after")
            waits = float(seconds) if type(seconds) is int and seconds >= 0 else _DEFAULT_RETRY_AFTER
            return BotAnswer(SendResult.TOO_FAST, why, retry_after=waits)
        case httpx.codes.UNAUTHORIZED | httpx.codes.NOT_FOUND:
            return BotAnswer(SendResult.NO_ACCESS, f"{why}; it does not know the bot: correct telegram.token_file")
        case httpx.codes.FORBIDDEN if fields.get("ok") is False:
            return BotAnswer(SendResult.UNREACHABLE, why)
        case httpx.codes.BAD_REQUEST if fields.get("ok") is False:
            moved_to = parameters.get("migrate_to_chat_id")
            if type(moved_to) is int:
                return BotAnswer(SendResult.MOVED, why, moved_to=moved_to)
            if any(phrase in description.lower() for phrase in _NO_CHAT):
                return BotAnswer(SendResult.UNREACHABLE, why)
            return BotAnswer(SendResult.REFUSED, why)
    return BotAnswer(SendResult.UNKNOWN, why)


def _object(content: bytes) -> dict[str, object]:
    try:
        found = json.loads(content[:_MAX_ANSWER])
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
