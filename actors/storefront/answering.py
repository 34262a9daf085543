"""How a screen reaches the customer, whatever Telegram or the network does in between; and how a press is answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs
import trio

from actors.storefront.events import SCREENS_SHOWN, ScreenRefused, StorefrontAway, StorefrontBack
from actors.storefront.screen import Screen, as_edit, as_message, keyboard
from actors.telegram.api import ApiAnswer, Outcome, TelegramApi
from actors.telegram.methods import LONGEST_ANSWER, AnswerCallbackQuery, DeleteMessage, Method, SendPhoto
from runtime import Context

_PAUSES: Final = (0.3, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds before each further attempt, while Telegram does not answer."""
_LONGEST_WAIT: Final = 60.0
"""Seconds of a 429 that a screen waits for; one that has to wait longer is let go."""
_AWAY: Final = (Outcome.NOT_SENT, Outcome.UNKNOWN, Outcome.NO_ACCESS)
_QUERY_LIVES: Final = 15.0
"""Seconds for which a press can be answered, about."""


@attrs.define(eq=False)
class Answering:
    """Says screens and answers to Telegram, for one incarnation of the storefront."""

    context: Context
    api: TelegramApi
    _away_since: float | None = attrs.field(init=False, default=None)

    async def answer(self, query_id: str, toast: str = "") -> None:
        """Answer a press. One that Telegram does not take is let go: the screen says what matters."""
        method = AnswerCallbackQuery(query_id, toast[:LONGEST_ANSWER] or None)
        with trio.move_on_after(_QUERY_LIVES):
            for pause in (0.0, *_PAUSES[:3]):
                await trio.sleep(pause)
                answer = await self._call(method)
                if answer.outcome is Outcome.TOO_FAST:
                    await trio.sleep(answer.retry_after)
                elif answer.outcome not in (Outcome.NOT_SENT, Outcome.UNKNOWN):
                    return

    async def show(
        self, name: str, screen: Screen, chat: int, message: int | None, *, superseded: Callable[[], bool]
    ) -> int | None:
        """Put a screen into the message, or send it as a new one; returns the number of the message that says it now.

        None: the customer cannot be reached, has asked for another screen meanwhile (`superseded`), or Telegram was away for too
        long. Then rows say what is true, and the next press shows it.
        """
        if screen.closes:
            if message is not None:
                await self._call(DeleteMessage(chat, message))
            return None
        plain, pauses = False, list(_PAUSES)
        while True:
            answer = await self._call(self._method(screen, chat, message, plain=plain))
            match answer.outcome:
                case Outcome.DONE | Outcome.NOT_MODIFIED:
                    SCREENS_SHOWN.labels(name, "shown").inc()
                    return message if message is not None and not screen.picture else answer.message_id
                case Outcome.GONE if message is not None:
                    message = None
                case Outcome.BAD_MARKUP if not plain:
                    self.context.emit(ScreenRefused(self.context.name, name, answer.why))
                    plain = True
                case Outcome.TOO_FAST if answer.retry_after <= _LONGEST_WAIT and not superseded():
                    await trio.sleep(answer.retry_after)
                case Outcome.NOT_SENT | Outcome.UNKNOWN if pauses and not superseded():
                    await trio.sleep(pauses.pop(0))
                case _:
                    if answer.outcome in (Outcome.REFUSED, Outcome.BAD_MARKUP):
                        self.context.emit(ScreenRefused(self.context.name, name, answer.why))
                    SCREENS_SHOWN.labels(name, answer.outcome.value).inc()
                    return None

    def _method(self, screen: Screen, chat: int, message: int | None, *, plain: bool) -> Method:
        if screen.picture:
            caption = screen.text.plain if plain else screen.text.source
            return SendPhoto(chat, screen.picture, caption, None if plain else "HTML", keyboard(screen))
        if message is None:
            return as_message(screen, chat, plain=plain)
        return as_edit(screen, chat, message, plain=plain)

    async def _call(self, method: Method) -> ApiAnswer:
        answer = await self.api.call(method)
        self.note(answer)
        return answer

    def note(self, answer: ApiAnswer) -> None:
        """Say when Telegram goes away, and when it is back."""
        now = trio.current_time()
        if answer.outcome in _AWAY:
            if self._away_since is None:
                self._away_since = now
                self.context.emit(StorefrontAway(self.context.name, answer.why))
            why = f"{answer.why}; customers get no answers (setting payments.telegram.token_file)"
            self.context.trouble("telegram", why, blocks=False)
        elif self._away_since is not None:
            self.context.emit(StorefrontBack(self.context.name, now - self._away_since))
            self._away_since = None
            self.context.trouble("telegram", "")
