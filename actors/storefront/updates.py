"""What an update of the bot asks of the shop: a press or a message, of a person in a private chat."""

from __future__ import annotations

import re

import attrs

from actors.payments.wire import Fields, optional_object, optional_text
from actors.storefront.aliases import read_data, read_start
from actors.storefront.buttons import Press

_COMMAND = re.compile(r"/([a-z_]{1,32})(?:@\w+)?(?:\s+(.*))?", re.DOTALL)
_COMMANDS = {
    "start": "mn",
    "menu": "mn",
    "buy": "pl",
    "profile": "pf",
    "referral": "rf",
    "help": "su",
    "instruction": "in",
    "language": "la",
    "info": "st",
}
COMMANDS = ("start", "buy", "profile", "help", "language")
"""Those that Telegram lists."""


@attrs.frozen
class Asked:
    """What somebody asks for."""

    telegram_id: int
    language: str
    """Of their program; empty if it does not say."""
    press: Press | None
    """The screen that is asked for; None for a message that names none."""
    text: str | None = attrs.field(default=None, repr=False)
    """What was written, if it was written; a photo and the like have none."""
    query_id: str = ""
    """Of a press, which has to be answered."""
    message_id: int | None = None
    """The message that was pressed, if it can still be changed."""
    referrer: int | None = None
    """Who invited them, by the link that they came by."""

    @property
    def is_press(self) -> bool:
        """Whether a button was pressed."""
        return bool(self.query_id)


def read_update(update: Fields) -> Asked | None:
    """What an update asks of the shop; None for one that asks nothing, as from a group, a bot or a channel."""
    query = update.get("callback_query")
    if isinstance(query, dict):
        return _read_press(query)
    message = update.get("message")
    return _read_message(message) if isinstance(message, dict) else None


def _read_press(query: Fields) -> Asked | None:
    person = _person(query)
    query_id = optional_text(query, "id")
    if person is None or not query_id:
        return None
    telegram_id, language = person
    message = query.get("message")
    number = None
    if isinstance(message, dict):
        if not _is_private(message, telegram_id):
            return None
        number = message.get("message_id")
        if type(number) is not int or message.get("date") == 0:  # too old to be changed
            number = None
    data = optional_text(query, "data")
    return Asked(telegram_id, language, read_data(data), query_id=query_id, message_id=number)


def _read_message(message: Fields) -> Asked | None:
    person = _person(message)
    if person is None or not _is_private(message, person[0]):
        return None
    telegram_id, language = person
    text = optional_text(message, "text") or None
    command = _COMMAND.fullmatch(text) if text is not None and text.startswith("/") else None
    if command is None:
        return Asked(telegram_id, language, None, text)
    start = read_start(command[2] or "") if command[1] == "start" else None
    if start is not None:
        return Asked(telegram_id, language, start.press or Press("mn"), text, referrer=start.referrer)
    return Asked(telegram_id, language, Press(_COMMANDS.get(command[1], "mn")), text)


def _person(thing: Fields) -> tuple[int, str] | None:
    sender = optional_object(thing, "from") if isinstance(thing.get("from"), dict) else None
    if sender is None or sender.get("is_bot") is not False:
        return None
    number = sender.get("id")
    if type(number) is not int or not 0 < number < 2**63:
        return None
    return number, optional_text(sender, "language_code")


def _is_private(message: Fields, telegram_id: int) -> bool:
    """Whether it is the chat of that person with the bot: what stands in a group is shown to others."""
    chat = message.get("chat")
    return isinstance(chat, dict) and chat.get("type") == "private" and chat.get("id") == telegram_id
