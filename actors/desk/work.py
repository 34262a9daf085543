"""The desk's page of work: what waits for each worker, what fails and why, and one row tried again or given up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar

import attrs

from actors.pool.client import Pool
from db.errors import BusinessError
from db.queues import COUNTED, give_up_row, read_queues, retry_row
from db.tx import Tx
from db.work.audit import act_as, record_audit
from runtime.desk import Action, Addition, Button, Page, Question, View
from runtime.operators import Role

T = TypeVar("T")
_TEMPLATES: Final = "actors.desk"
_WITHIN: Final = 5.0


@attrs.frozen
class Work:
    """The page and the actions."""

    pool: Pool

    def addition(self) -> Addition:
        """The page and the actions."""
        return Addition(
            pages=(Page("/work", "Work", f"{_TEMPLATES}:work.html", Role.SUPPORT, self._show),),
            actions=(
                Action("retry", "Try again", Role.SUPPORT, self._ask_retry, self._retry, keeps_reason=True),
                Action(
                    "give-up",
                    "Give up",
                    Role.SUPPORT,
                    self._ask_give_up,
                    self._give_up,
                    is_dangerous=True,
                    keeps_reason=True,
                ),
            ),
            templates=_TEMPLATES,
            words=_WORDS,
        )

    async def _show(self, view: View) -> Mapping[str, object]:
        found = await self.pool.run("desk.work", read_queues, within=_WITHIN, hold=_WITHIN)
        known = {address.name for address in view.desk.system.registry}

        def button(action: str, label: str, queue: str, number: int) -> Button:
            return Button(action, label, Role.SUPPORT, {"queue": queue, "number": str(number)})

        return {
            "queues": sorted(found, key=lambda one: (-one.failing, -one.late, one.name)),
            "counted": COUNTED,
            "known": known,
            "button": button,
        }

    async def _act(self, view: View, what: str, why: str, function: Callable[[Tx], Awaitable[T]]) -> T:
        async def act(tx: Tx) -> T:
            await act_as(tx, view.who)
            done = await function(tx)
            await record_audit(tx, view.who.actor, "desk.why", subject=what, details={"why": why})
            return done

        return await self.pool.run("desk.act", act, within=_WITHIN, hold=_WITHIN)

    async def _ask_retry(self, view: View, given: Mapping[str, str]) -> Question:
        queue, number = _row(given)
        text = "It is due at once: its worker is woken, or takes it in its next round. Failures stay counted."
        return Question(f"{queue} {number}: {view.t(text)}")

    async def _retry(self, view: View, given: Mapping[str, str], why: str) -> str:
        queue, number = _row(given)
        await self._act(
            view, f"retry {queue} {number}", why, lambda tx: retry_row(tx, queue, number, actor=view.who.actor)
        )
        return f"{queue} {number}: {view.t('is tried again now')}"

    async def _ask_give_up(self, view: View, given: Mapping[str, str]) -> Question:
        queue, number = _row(given)
        return Question(f"{queue} {number}: {view.t('The message is not sent any more; the customer is not told.')}")

    async def _give_up(self, view: View, given: Mapping[str, str], why: str) -> str:
        queue, number = _row(given)
        await self._act(
            view, f"give up {queue} {number}", why, lambda tx: give_up_row(tx, queue, number, actor=view.who.actor)
        )
        return f"{queue} {number}: {view.t('given up')}"


def _row(given: Mapping[str, str]) -> tuple[str, int]:
    queue, text = given.get("queue", "")[:40], given.get("number", "")
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise BusinessError(f"there is no row {text[:40]!r}; nothing was changed")
    return queue, int(text)


_WORDS: Final = {
    "Work": "Работа",
    "Try again": "Повторить",
    "Give up": "Оставить",
    "waiting": "ждут",
    "due": "пора",
    "late": "опаздывают",
    "failing": "не удаются",
    "what": "что",
    "failures": "неудач",
    "why": "почему",
    "next attempt": "следующая попытка",
    "a worker is at it": "в работе",
    "nothing is due and nothing fails": "ничто не ждёт и не сорвалось",
    "more than": "больше",
    "It is due at once: its worker is woken, or takes it in its next round. Failures stay counted.": (
        "Срок наступает сразу: исполнителя будят, или он возьмёт её в следующий раз. Неудачи остаются сосчитаны."
    ),
    "is tried again now": "выполняется снова",
    "The message is not sent any more; the customer is not told.": "Сообщение больше не отправляется; клиент его не получит.",
    "given up": "оставлено",
}
