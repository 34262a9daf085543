"""Telegram's private chats: what people see of a bot's messages and press, and what Telegram refuses a bot.

Written after https://core.telegram.org/bots/api and its limits, apart from the service's own client: it reads markup with a
parser of its own, counts as Telegram counts, and its refusals say what Telegram's say.
"""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict, deque
from email.parser import BytesParser
from email.policy import HTTP
from html.parser import HTMLParser

import attrs
import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from simulators.telegram import Telegram, _error, _fine
from simulators.troubles import Json

_TAGS = {"b", "strong", "i", "em", "u", "ins", "s", "strike", "del", "code", "pre", "a", "blockquote", "tg-spoiler"}
_URL = re.compile(r"(https?|tg|ton)://[^\s]+")
_METHODS = {
    "sendMessage",
    "editMessageText",
    "sendPhoto",
    "deleteMessage",
    "answerCallbackQuery",
    "getMe",
    "setMyCommands",
}
QUERY_SECONDS = 15.0
"""For so long a press can be answered."""


class Refused(Exception):
    """Telegram's answer to a call that it does not carry out."""

    def __init__(self, status: int, description: str, retry_after: int = 0) -> None:
        super().__init__(description)
        self.status = status
        self.description = description
        self.retry_after = retry_after


@attrs.define(eq=False)
class Shown:
    """A message of the bot's, as the person sees it."""

    number: int
    text: str
    source: str
    buttons: list[list[Json]]
    is_photo: bool = False
    history: list[str] = attrs.field(factory=list)
    """What it said before, oldest first."""

    def labels(self) -> list[str]:
        """What stands on its buttons."""
        return [str(button["text"]) for row in self.buttons for button in row]


@attrs.define(eq=False)
class TelegramChats(Telegram):
    """One bot, and the private chats that people have with it."""

    chats: defaultdict[int, dict[int, Shown]] = attrs.field(factory=lambda: defaultdict(dict))
    """By person and message, in the order in which they stand there."""
    known: set[int] = attrs.field(factory=set)
    """People who have written to the bot."""
    blocked: set[int] = attrs.field(factory=set)
    names: dict[int, str] = attrs.field(factory=dict)
    """First names of people; others are called Somebody."""
    queries: dict[str, float] = attrs.field(factory=dict)
    """Presses that were not answered yet, and since when."""
    answered: dict[str, tuple[float, str]] = attrs.field(factory=dict)
    """How long each press waited for its answer, and what that said."""
    refusals: list[tuple[str, str]] = attrs.field(factory=list)
    """What was refused, by method: whoever writes a bot wants this to be empty."""
    arranged: deque[int | str] = attrs.field(factory=deque)
    """What the next calls about messages meet instead of being carried out: a status, `429:<seconds>`, or `silence`."""
    revoked: bool = False
    """The token was revoked at BotFather."""
    commands: dict[str, list[Json]] = attrs.field(factory=dict)

    # -- people -------------------------------------------------------------------------------------------------------

    def says(self, user_id: int, text: str, language: str = "ru") -> Json:
        """A person writes to the bot; returns the update."""
        self._meet(user_id)
        return self.write(user_id, text, language)

    def sends_photo(self, user_id: int) -> Json:
        """A person sends a photo without a word."""
        self._meet(user_id)
        size: Json = {"file_id": "AgAC", "file_unique_id": "AQAD", "width": 90, "height": 60, "file_size": 1253}
        return self._update("message", {**self._message(user_id, "ru"), "photo": [size]})

    def presses(self, user_id: int, message: int, data: str, *, of: int | None = None, old: bool = False) -> Json:
        """A person's client sends this data for a message, whether or not it has such a button. `of` is whose chat it stands
        in, else their own; `old`: Telegram does not know any more what the message said."""
        owner = user_id if of is None else of
        query_id = str(77 * 10**15 + next(self._numbers))
        self.queries[query_id] = trio.current_time()
        chat = {"id": owner, "first_name": self.names.get(owner, "Somebody"), "type": "private"}
        seen = self.chats[owner].get(message)
        shown: Json = {"message_id": message, "date": 0 if old else int(time.time()), "chat": chat}
        if not old and seen is not None:
            shown |= {"from": self._user(731, "ru", is_bot=True), "text": seen.text}
        query: Json = {
            "id": query_id,
            "from": {**self._user(user_id, "ru"), "first_name": self.names.get(user_id, "Somebody")},
            "message": shown,
            "chat_instance": "8123456789",
            "data": data,
        }
        return self._update("callback_query", query)

    def last(self, user_id: int) -> Shown:
        """The message that stands lowest in a person's chat."""
        return list(self.chats[user_id].values())[-1]

    def data_of(self, shown: Shown, label: str) -> str:
        """What the button with this on it carries. Raises LookupError, naming those that there are."""
        for row in shown.buttons:
            for button in row:
                if label in str(button["text"]):
                    return str(button.get("callback_data") or button.get("url") or button.get("copy_text"))
        raise LookupError(f"no button {label!r} below {shown.text!r}: {shown.labels()}")

    async def until_answered(self, update: Json) -> tuple[float, str]:
        """How long a press waited for its answer, and what that said. Raises trio.TooSlowError once it can have none."""
        query = update["callback_query"]
        assert isinstance(query, dict)
        with trio.fail_after(QUERY_SECONDS):
            while query["id"] not in self.answered:
                await self.changed.wait()
        return self.answered[query["id"]]

    def _meet(self, user_id: int) -> None:
        self.known.add(user_id)
        self.blocked.discard(user_id)

    # -- the Bot API --------------------------------------------------------------------------------------------------

    async def _call(self, request: Request) -> Response:
        method = request.path_params["method"]
        if self.revoked:
            return _error(401, "Unauthorized")
        if method not in _METHODS or request.path_params["token"] != self.token:
            return await super()._call(request)
        body = await _read(request)
        self.calls.append((method, body))
        await trio.sleep(self.slow.get(method, 0.0))
        try:
            if method not in ("getMe", "setMyCommands") and self.arranged:
                await self._meet_trouble(self.arranged.popleft())
            result = self._carry_out(method, body)
        except Refused as error:
            self.refusals.append((method, error.description))
            answer: Json = {"ok": False, "error_code": error.status, "description": error.description}
            if error.retry_after:
                answer["parameters"] = {"retry_after": error.retry_after}
            return JSONResponse(answer, error.status)
        finally:
            self._notify()
        return _fine(result)

    async def _meet_trouble(self, trouble: int | str) -> None:
        if isinstance(trouble, int):
            raise Refused(trouble, "Internal Server Error")
        kind, _, seconds = trouble.partition(":")
        if kind == "silence":
            await trio.sleep_forever()
        raise Refused(429, f"Too Many Requests: retry after {seconds}", int(seconds))

    def _carry_out(self, method: str, body: Json) -> object:
        match method:
            case "getMe":
                return {"id": 731, "is_bot": True, "first_name": "Shop", "username": "atlas_shop_bot"}
            case "setMyCommands":
                commands = body["commands"]
                assert isinstance(commands, list)
                for command in commands:
                    if (
                        not re.fullmatch(r"[a-z0-9_]{1,32}", command["command"])
                        or not 1 <= len(command["description"]) <= 256
                    ):
                        raise Refused(400, "Bad Request: BOT_COMMAND_INVALID")
                self.commands[str(body.get("language_code", ""))] = commands
                return True
            case "answerCallbackQuery":
                return self._answer_query(body)
            case "deleteMessage":
                if self._chat_of(body).pop(_int(body, "message_id"), None) is None:
                    raise Refused(400, "Bad Request: message to delete not found")
                return True
            case "editMessageText":
                return self._edit(body)
        return self._post(body, is_photo=method == "sendPhoto")

    def _chat_of(self, body: Json) -> dict[int, Shown]:
        chat = _int(body, "chat_id")
        if chat in self.blocked:
            raise Refused(403, "Forbidden: bot was blocked by the user")
        if chat not in self.known:
            raise Refused(403, "Forbidden: bot can't initiate conversation with a user")
        return self.chats[chat]

    def _post(self, body: Json, *, is_photo: bool) -> Json:
        chat = self._chat_of(body)
        text = _read_text(body, "caption", 1024) if is_photo else _read_text(body, "text", 4096)
        if is_photo and not body.get("photo"):
            raise Refused(400, "Bad Request: there is no photo in the request")
        number = next(self._numbers)
        source = str(body.get("caption" if is_photo else "text"))
        chat[number] = Shown(number, text, source, _keyboard(body), is_photo)
        self.sent.append({"chat_id": body["chat_id"], "text": text})
        return self._message_of(_int(body, "chat_id"), chat[number])

    def _edit(self, body: Json) -> Json:
        shown = self._chat_of(body).get(_int(body, "message_id"))
        if shown is None:
            raise Refused(400, "Bad Request: message to edit not found")
        if shown.is_photo:
            raise Refused(400, "Bad Request: there is no text in the message to edit")
        text, buttons = _read_text(body, "text", 4096), _keyboard(body)
        if (shown.source, shown.buttons) == (body["text"], buttons):
            same = "specified new message content and reply markup are exactly the same as a current content and reply markup"
            raise Refused(400, f"Bad Request: message is not modified: {same} of the message")
        shown.history.append(shown.text)
        shown.text, shown.source, shown.buttons = text, str(body["text"]), buttons
        return self._message_of(_int(body, "chat_id"), shown)

    def _answer_query(self, body: Json) -> bool:
        query_id, text = str(body["callback_query_id"]), str(body.get("text", ""))
        since = self.queries.get(query_id)
        if since is None or trio.current_time() > since + QUERY_SECONDS:
            raise Refused(400, "Bad Request: query is too old and response timeout expired or query ID is invalid")
        if _length(text) > 200:
            raise Refused(400, "Bad Request: MESSAGE_TOO_LONG")
        del self.queries[query_id]
        self.answered[query_id] = (trio.current_time() - since, text)
        return True

    def _message_of(self, chat: int, shown: Shown) -> Json:
        where = {"id": chat, "first_name": "Somebody", "type": "private"}
        message: Json = {"message_id": shown.number, "date": int(time.time()), "chat": where}
        return {**message, "caption" if shown.is_photo else "text": shown.text}


def _int(body: Json, name: str) -> int:
    value = body.get(name)
    if type(value) is int:
        return value
    if isinstance(value, str) and value.lstrip("-").isdecimal():
        return int(value)
    raise Refused(400, f"Bad Request: {name} is not a number")


async def _read(request: Request) -> Json:
    kind = request.headers.get("content-type", "")
    if not kind.startswith("multipart/form-data"):
        found = await request.json()
        assert isinstance(found, dict)
        return found
    parsed = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + await request.body())
    body: Json = {}
    for part in parsed.iter_parts():
        name, content = str(part.get_param("name", header="content-disposition")), part.get_payload(decode=True)
        assert isinstance(content, bytes)
        if part.get_filename() is not None:
            body[name] = "attached" if content.startswith(b"\x89PNG\r\n") else ""
        else:
            text = content.decode()
            body[name] = json.loads(text) if name in ("reply_markup", "chat_id") else text
    return body


def _length(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


class _Markup(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.text: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in _TAGS:
            raise Refused(400, f'Bad Request: can\'t parse entities: Unsupported start tag "{tag}" at byte offset 0')
        if attributes and [name for name, _ in attributes] != ["href"]:
            raise Refused(400, f'Bad Request: can\'t parse entities: Unexpected attribute in "{tag}"')
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            raise Refused(400, f"Bad Request: can't parse entities: Unmatched end tag at byte offset 0, found {tag}")

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def _read_text(body: Json, name: str, most: int) -> str:
    source = body.get(name)
    if not isinstance(source, str):
        raise Refused(400, "Bad Request: message text is empty")
    text = source
    if body.get("parse_mode") == "HTML":
        reader = _Markup()
        reader.feed(source)
        reader.close()
        if reader.open:
            raise Refused(
                400, f"Bad Request: can't parse entities: Can't find end tag corresponding to \"{reader.open[-1]}\""
            )
        text = "".join(reader.text)
    if not text.strip() and name == "text":
        raise Refused(400, "Bad Request: message text is empty")
    if _length(text) > most:
        raise Refused(
            400, "Bad Request: message caption is too long" if name == "caption" else "Bad Request: message is too long"
        )
    return text


def _keyboard(body: Json) -> list[list[Json]]:
    markup = body.get("reply_markup")
    if markup is None:
        return []
    assert isinstance(markup, dict)
    rows = markup["inline_keyboard"]
    if sum(len(row) for row in rows) > 100 or any(len(row) > 8 for row in rows):
        raise Refused(400, "Bad Request: REPLY_MARKUP_TOO_LONG")
    for row in rows:
        for button in row:
            _check_button(button)
    return [list(row) for row in rows]


def _check_button(button: Json) -> None:
    kinds = [name for name in ("callback_data", "url", "copy_text") if name in button]
    if len(kinds) != 1 or not isinstance(button.get("text"), str) or not str(button["text"]).strip():
        raise Refused(
            400, "Bad Request: can't parse inline keyboard button: Text buttons are unallowed in the inline keyboard"
        )
    if "callback_data" in button and not 1 <= len(str(button["callback_data"]).encode()) <= 64:
        raise Refused(400, "Bad Request: BUTTON_DATA_INVALID")
    if "url" in button and not _URL.fullmatch(str(button["url"])):
        raise Refused(400, "Bad Request: BUTTON_URL_INVALID")
    copy = button.get("copy_text")
    if "copy_text" in button and not (isinstance(copy, dict) and 1 <= len(str(copy["text"])) <= 256):
        raise Refused(400, "Bad Request: BUTTON_COPY_TEXT_INVALID")
