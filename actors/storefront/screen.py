"""A screen: a text and rows of buttons, as a customer sees them; and how it is said to Telegram."""

from __future__ import annotations

import attrs

from actors.storefront.buttons import Press
from actors.telegram.html import Html, markup
from actors.telegram.methods import (
    LONGEST_COPY,
    LONGEST_TEXT,
    CopyText,
    EditMessageText,
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    SendMessage,
)
from db.work.front_ends import WaitsFor


@attrs.frozen
class Button:
    """A button: it leads to a screen, opens an address, or copies a text; exactly one of the three."""

    label: str
    press: Press | None = None
    url: str = attrs.field(default="", repr=False)
    copy: str = attrs.field(default="", repr=False)


@attrs.frozen
class Waits:
    """What a screen waits for, so that it is changed when that happens."""

    order_id: int
    waits_for: WaitsFor


@attrs.frozen
class Screen:
    """What a customer sees in one message."""

    text: Html
    rows: tuple[tuple[Button, ...], ...] = ()
    waits: Waits | None = None
    toast: str = ""
    """Shown for a moment over the chat, if the press is not answered yet; never the only place where something is said."""
    picture: bytes = attrs.field(default=b"", repr=False)
    """A picture is a message of its own, and leaves the screen that was pressed as it is."""
    closes: bool = False
    """The message that was pressed is deleted, and nothing takes its place."""


def keyboard(screen: Screen) -> InlineKeyboardMarkup:
    """The screen's buttons for Telegram; one that would copy more than Telegram takes is left out."""
    rows = (tuple(_button(button) for button in row if len(button.copy) <= LONGEST_COPY) for row in screen.rows)
    return InlineKeyboardMarkup(tuple(row for row in rows if row))


def as_message(screen: Screen, chat: int, *, plain: bool = False) -> SendMessage:
    """The screen as a new message; `plain` without its markup."""
    return SendMessage(chat, _text(screen, plain=plain), None if plain else "HTML", keyboard(screen))


def as_edit(screen: Screen, chat: int, message: int, *, plain: bool = False) -> EditMessageText:
    """The screen in the place of what a message says now."""
    return EditMessageText(chat, message, _text(screen, plain=plain), None if plain else "HTML", keyboard(screen))


def _text(screen: Screen, *, plain: bool) -> str:
    if plain or screen.text.length > LONGEST_TEXT:
        # Too long is a defect, and a cut text is better than a customer who is told nothing.
        cut = screen.text.plain.encode("utf-16-le")[: 2 * LONGEST_TEXT].decode("utf-16-le", "ignore")
        return cut if plain else str(markup(cut))
    return screen.text.source


def _button(button: Button) -> InlineKeyboardButton:
    if button.press is not None:
        return InlineKeyboardButton(button.label, callback_data=button.press.data)
    if button.url:
        return InlineKeyboardButton(button.label, url=button.url)
    return InlineKeyboardButton(button.label, copy_text=CopyText(button.copy))
