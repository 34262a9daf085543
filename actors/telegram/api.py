"""One client of the Bot API, and what its answers mean.

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

from actors.telegram.methods import Method
from runtime.config import Secret
from runtime.http import Timeouts, new_client

_MAX_ANSWER: Final = 1024 * 1024
_DEFAULT_RETRY_AFTER: Final = 5.0
_CONNECTIONS: Final = 100
_NO_CHAT: Final = (
    "chat not found",
    "peer_id_invalid",
    "user not found",
    "user_id_invalid",
    "bot was blocked",
    "deactivated",
)
_GONE: Final = (
    "message to edit not found",
    "message can't be edited",
    "message_id_invalid",
    "message to delete not found",
    "message can't be deleted",
)


class Outcome(enum.Enum):
    """What became of a call, as far as Telegram's answer tells."""

    DONE = "done"
    NOT_MODIFIED = "not modified"
    """The message says that already: as good as done."""
    GONE = "gone"
    """The message is not there any more, or too old to be changed; another one can be sent."""
    STALE_QUERY = "stale query"
    """Who pressed the button does not wait any more."""
    BAD_MARKUP = "bad markup"
    """Telegram cannot read the markup of the text; as plain text it takes it."""
    UNREACHABLE = "unreachable"
    """The chat refuses us or is not there."""
    REFUSED = "refused"
    """Telegram will never take this; a defect of ours."""
    TOO_FAST = "too fast"
    """Nothing was done; again after `retry_after`."""
    MOVED = "moved"
    """The group has another id now; nothing was done."""
    NOT_SENT = "not sent"
    """No connection: nothing left."""
    UNKNOWN = "unknown"
    """It left, and no usable answer came: it may have been done."""
    NO_ACCESS = "no access"
    """Telegram does not know the token. Nothing was done."""


@attrs.frozen
class ApiAnswer:
    """What Telegram said. `why` is short and repeats neither token nor text."""

    outcome: Outcome
    why: str = ""
    result: object = attrs.field(default=None, repr=False)
    retry_after: float = 0.0
    moved_to: int = 0

    @property
    def message_id(self) -> int | None:
        """The number of the message that was sent or edited, if the answer names one."""
        number = self.result.get("message_id") if isinstance(self.result, dict) else None
        return number if type(number) is int else None


class TelegramApi:
    """Calls methods of the Bot API in the name of one bot. `aclose()` it."""

    def __init__(self, url: str, token: Secret, *, within: float = 10.0) -> None:
        """`within`: seconds that Telegram may take for an answer."""
        self._prefix = f"/bot{token.reveal()}/"
        self._within = within
        self._client = new_client(
            url.rstrip("/"),
            timeouts=Timeouts(connect=min(5.0, within), read=within, write=within),
            max_connections=_CONNECTIONS,
        )

    async def aclose(self) -> None:
        """Close the connections to Telegram; calls that are on their way fail."""
        await self._client.aclose()

    async def call(self, method: Method, *, within: float | None = None) -> ApiAnswer:
        """Call a method once. Never raises for what Telegram or the network does."""
        limit = self._within if within is None else within
        try:
            with trio.fail_after(limit):
                response = await self._post(method)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            return ApiAnswer(Outcome.NOT_SENT, f"no connection to Telegram: {type(error).__name__}")
        except trio.TooSlowError:
            return ApiAnswer(Outcome.UNKNOWN, f"no answer from Telegram within {limit:g} s")
        except httpx.HTTPError as error:
            return ApiAnswer(Outcome.UNKNOWN, f"the connection to Telegram broke: {type(error).__name__}")
        return read_answer(response.status_code, response.content)

    async def _post(self, method: Method) -> httpx.Response:
        path, body = self._prefix + method.name, method.body()
        if not method.file_field:
            return await self._client.post(path, json=body)
        fields = {name: value if isinstance(value, str) else json.dumps(value) for name, value in body.items()}
        file = getattr(method, method.file_field)
        return await self._client.post(path, data=fields, files={method.file_field: ("picture.png", file, "image/png")})


def read_answer(status: int, content: bytes) -> ApiAnswer:
    """What an answer means. What cannot be understood, or is not Telegram's, means UNKNOWN."""
    fields = _object(content)
    if fields.get("ok") is True and status == httpx.codes.OK:
        return ApiAnswer(Outcome.DONE, result=fields.get("result"))
    said = fields.get("description")
    description = said[:200] if isinstance(said, str) else ""
    why = f"Telegram answered {status}: {description}" if description else f"Telegram answered {status}"
    given = fields.get("parameters")
    parameters = given if isinstance(given, dict) else {}
    match status:
        case httpx.codes.TOO_MANY_REQUESTS:
            seconds = parameters.get("retry_after")
            waits = float(seconds) if type(seconds) is int and seconds >= 0 else _DEFAULT_RETRY_AFTER
            return ApiAnswer(Outcome.TOO_FAST, why, retry_after=waits)
        case httpx.codes.UNAUTHORIZED | httpx.codes.NOT_FOUND:
            return ApiAnswer(Outcome.NO_ACCESS, f"{why}; it does not know the bot: correct telegram.token_file")
        case httpx.codes.FORBIDDEN if fields.get("ok") is False:
            return ApiAnswer(Outcome.UNREACHABLE, why)
        case httpx.codes.BAD_REQUEST if fields.get("ok") is False:
            moved_to = parameters.get("migrate_to_chat_id")
            if type(moved_to) is int:
                return ApiAnswer(Outcome.MOVED, why, moved_to=moved_to)
            return ApiAnswer(_refusal(description.lower()), why)
    return ApiAnswer(Outcome.UNKNOWN, why)


def _refusal(description: str) -> Outcome:
    """What a refusal with 400 is about, told by Telegram's own words: it has no other mark."""
    if "message is not modified" in description:
        return Outcome.NOT_MODIFIED
    if "query is too old" in description or "query id is invalid" in description:
        return Outcome.STALE_QUERY
    if "can't parse entities" in description:
        return Outcome.BAD_MARKUP
    if any(words in description for words in _GONE):
        return Outcome.GONE
    return Outcome.UNREACHABLE if any(words in description for words in _NO_CHAT) else Outcome.REFUSED


def _object(content: bytes) -> dict[str, object]:
    try:
        found = json.loads(content[:_MAX_ANSWER])
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
