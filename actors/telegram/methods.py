"""The methods of the Bot API that we call, each a class with what Telegram wants to be told.

After https://core.telegram.org/bots/api, Bot API 10.3. A field that is None is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import attrs

LONGEST_TEXT = 4096
"""Characters of a message, counted as UTF-16 has them, after its markup was read."""
LONGEST_CAPTION = 1024
LONGEST_ANSWER = 200
"""Characters of the answer to a press."""
LONGEST_DATA = 64
"""Bytes of a button's data."""
LONGEST_COPY = 256
"""Characters that a button copies."""

NO_PREVIEW: Mapping[str, object] = {"is_disabled": True}


@attrs.frozen
class CopyText:
    """What a button copies to the clipboard."""

    text: str = attrs.field(repr=False)


@attrs.frozen
class InlineKeyboardButton:
    """A button below a message: of `callback_data`, `url` and `copy_text` exactly one is set."""

    text: str
    callback_data: str | None = None
    url: str | None = attrs.field(default=None, repr=False)
    copy_text: CopyText | None = None


@attrs.frozen
class InlineKeyboardMarkup:
    """Rows of buttons below a message."""

    inline_keyboard: tuple[tuple[InlineKeyboardButton, ...], ...]


@attrs.frozen
class Method:
    """A call of the Bot API."""

    name: ClassVar[str]
    file_field: ClassVar[str] = ""
    """The field whose bytes are sent as a file."""

    def body(self) -> dict[str, Any]:
        """The fields as JSON's values, without those that are None and without the file."""
        said = {
            field.name: _as_json(getattr(self, field.name))
            for field in attrs.fields(type(self))
            if field.name != self.file_field
        }
        return {name: value for name, value in said.items() if value is not None}


@attrs.frozen
class SendMessage(Method):
    """Send a text to a chat."""

    name: ClassVar[str] = "sendMessage"
    chat_id: int
    text: str = attrs.field(repr=False)
    parse_mode: str | None = "HTML"
    reply_markup: InlineKeyboardMarkup | None = attrs.field(default=None, repr=False)
    link_preview_options: Mapping[str, object] = NO_PREVIEW


@attrs.frozen
class EditMessageText(Method):
    """Put another text and other buttons into a message of ours."""

    name: ClassVar[str] = "editMessageText"
    chat_id: int
    message_id: int
    text: str = attrs.field(repr=False)
    parse_mode: str | None = "HTML"
    reply_markup: InlineKeyboardMarkup | None = attrs.field(default=None, repr=False)
    link_preview_options: Mapping[str, object] = NO_PREVIEW


@attrs.frozen
class SendPhoto(Method):
    """Send a picture, whose bytes travel with the call."""

    name: ClassVar[str] = "sendPhoto"
    file_field: ClassVar[str] = "photo"
    chat_id: int
    photo: bytes = attrs.field(repr=False)
    caption: str | None = attrs.field(default=None, repr=False)
    parse_mode: str | None = "HTML"
    reply_markup: InlineKeyboardMarkup | None = attrs.field(default=None, repr=False)


@attrs.frozen
class DeleteMessage(Method):
    """Delete a message of ours, within 48 hours."""

    name: ClassVar[str] = "deleteMessage"
    chat_id: int
    message_id: int


@attrs.frozen
class AnswerCallbackQuery(Method):
    """End the waiting that the person who pressed a button sees."""

    name: ClassVar[str] = "answerCallbackQuery"
    callback_query_id: str
    text: str | None = None
    show_alert: bool | None = None


@attrs.frozen
class GetMe(Method):
    """Ask who the bot is."""

    name: ClassVar[str] = "getMe"


@attrs.frozen
class BotCommand:
    """A line in the list of commands."""

    command: str
    description: str


@attrs.frozen
class SetMyCommands(Method):
    """Say which commands there are, to people with this language; to all others without one."""

    name: ClassVar[str] = "setMyCommands"
    commands: tuple[BotCommand, ...]
    language_code: str | None = None


def _as_json(value: object) -> object:
    if attrs.has(type(value)):
        said = {field.name: _as_json(getattr(value, field.name)) for field in attrs.fields(type(value))}  # type: ignore[arg-type]
        return {name: one for name, one in said.items() if one is not None}
    if isinstance(value, tuple):
        return [_as_json(one) for one in value]
    return dict(value) if isinstance(value, Mapping) else value
