"""From an update to its screen: who it is, what may be seen, and what is said when something cannot be done."""

from __future__ import annotations

from datetime import timedelta

import attrs

import actors.storefront.menu
import actors.storefront.money  # noqa: F401 - each module of screens adds its own
from actors.storefront.aliases import TOO_OLD
from actors.storefront.buttons import Press
from actors.storefront.events import ScreenFailed
from actors.storefront.language import Texts, choose
from actors.storefront.queues import Job
from actors.storefront.screen import Button, Screen
from actors.storefront.screens import SCREENS, WITHIN, Surroundings, Visit
from actors.telegram.html import Html
from db.errors import AmbiguousCommit, BusinessError, LeaseError
from db.tx import Tx
from db.work.front_ends import Visitor, end_prompt, meet
from db.work.limits import LimitReached
from runtime import Context, Killed

_MENU = Press("mn")


@attrs.frozen
class Served:
    """What an update led to."""

    name: str
    """The screen's, as metrics and events call it."""
    screen: Screen
    visitor: Visitor | None = None


@attrs.frozen
class Dispatch:
    """Makes screens, for one incarnation of the storefront. No failure leaves it but one that ends the actor."""

    context: Context
    around: Surroundings

    async def make(self, job: Job) -> Served:
        """The screen that answers an update; whatever goes wrong, one that says what is true."""
        asked = job.asked
        texts = choose(self.around.languages, asked.language)
        press = asked.press or _MENU
        try:
            visitor = await self._meet(job, texts)
            if visitor is None:
                return Served("stranger", Screen(texts.say("closed_to_strangers")))
            texts = choose(self.around.languages, visitor.customer.language)
            visit = self._visit(job, visitor, texts)
            press = visit.press
            return Served(press.screen, await self._screen(visit), visitor)
        except Killed:
            raise
        except AmbiguousCommit:
            return Served(press.screen, _again(texts, "unclear", press))
        except LeaseError:
            return Served(press.screen, _again(texts, "unavailable", press))
        except Exception as error:  # noqa: BLE001 - one screen's trouble is its own, and the customer is told
            self.context.emit(ScreenFailed(self.context.name, press.screen, type(error).__name__))
            return Served(press.screen, _again(texts, "unclear", press))

    async def _meet(self, job: Job, texts: Texts) -> Visitor | None:
        asked = job.asked
        may_join = not self.around.settings.invite_only or asked.referrer is not None

        async def come_by(tx: Tx) -> Visitor | None:
            visitor = await meet(
                tx,
                asked.telegram_id,
                language=texts.code,
                referrer_telegram_id=asked.referrer,
                may_join=may_join and job.waiting is None,
            )
            if visitor is not None and visitor.prompt is not None and job.waiting is None:
                await end_prompt(tx, visitor.customer.id)
            return visitor

        return await self.around.pool().run("storefront.meet", come_by, within=WITHIN, hold=WITHIN)

    def _visit(self, job: Job, visitor: Visitor, texts: Texts) -> Visit:
        """What is asked for: by the button, by the question that the text answers, or else the menu."""
        asked, written, notice = job.asked, None, ""
        if asked.press is not None:
            press = asked.press
        elif visitor.prompt is not None:
            press, written = Press(visitor.prompt.screen, visitor.prompt.args), asked.text
        else:
            press, notice = _MENU, "not_understood"
        if press.screen not in SCREENS:
            press = TOO_OLD
        settings = self.around.settings
        has_accepted = not settings.rules_url or visitor.accepted_rules == settings.rules_version
        if not has_accepted and not SCREENS[press.screen].before_rules and job.waiting is None:
            press, notice = Press("ru"), ""
        return Visit(self.around, visitor, texts, press, asked, written, notice)

    async def _screen(self, visit: Visit) -> Screen:
        entry = SCREENS[visit.press.screen]
        try:
            return await entry.make(visit)
        except LimitReached as error:
            left = visit.texts.language.left(timedelta(seconds=error.retry_seconds))
            return _to_menu(visit.texts, visit.texts.say("limit", left=left))
        except BusinessError:
            return _to_menu(visit.texts, visit.texts.say(entry.refused))


def _to_menu(texts: Texts, text: Html) -> Screen:
    return Screen(text, ((Button(texts.button("menu"), _MENU),),))


def _again(texts: Texts, key: str, press: Press) -> Screen:
    """The same button again: it carries the same nonce, so that pressing it finds out what has become of the first press."""
    return Screen(texts.say(key), ((Button(texts.button("again"), press),), (Button(texts.button("menu"), _MENU),)))
