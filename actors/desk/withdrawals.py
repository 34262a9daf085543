"""The desk's page of withdrawals: what is to be paid out, where the money came from, and who agrees."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeVar

import attrs

from actors.pool.client import Pool
from db.billing.withdrawal_sources import MoneySources, money_sources
from db.billing.withdrawals import (
    Withdrawal,
    approve_withdrawal,
    confirm_withdrawal,
    find_withdrawal,
    lacks_confirmation,
    list_withdrawals,
    reject_withdrawal,
)
from db.errors import BusinessError
from db.money import Money
from db.tx import Tx
from db.work.audit import act_as, record_audit
from runtime.desk import Action, Addition, Button, Field, Page, Question, View
from runtime.operators import Role, least_role

T = TypeVar("T")
_TEMPLATES: Final = "actors.desk"
_WITHIN: Final = 5.0
_SHOWN: Final = 50
_LONGEST: Final = 200


@attrs.frozen
class ToPay:
    """A withdrawal as the page shows it."""

    found: Withdrawal
    sources: MoneySources
    lacks_second: bool
    """Another operator has to confirm it before this one may pay it."""


@attrs.frozen
class Withdrawals:
    """The page, and what is done from it."""

    pool: Pool
    second_above: Money | None
    """From which sum on another operator has to confirm; None: never."""

    def addition(self) -> Addition:
        """The page and the actions."""
        return Addition(
            pages=(Page("/withdrawals", "Withdrawals", f"{_TEMPLATES}:withdrawals.html", Role.SUPPORT, self._list),),
            actions=(
                Action(
                    "approve",
                    "Record as paid out",
                    _least("approve"),
                    self._ask_approve,
                    self._approve,
                    keeps_reason=True,
                ),
                Action("confirm", "Confirm", _least("confirm"), self._ask_confirm, self._confirm, keeps_reason=True),
                Action(
                    "reject",
                    "Reject",
                    _least("reject"),
                    self._ask_reject,
                    self._reject,
                    is_dangerous=True,
                    keeps_reason=True,
                ),
            ),
            templates=_TEMPLATES,
            words=_WORDS,
        )

    async def _list(self, view: View) -> Mapping[str, object]:
        async def read(tx: Tx) -> Sequence[ToPay]:
            return [
                ToPay(
                    one,
                    await money_sources(tx, one.customer_id),
                    lacks_confirmation(one, view.who.actor, self.second_above),
                )
                for one in await list_withdrawals(tx, "reserved", _SHOWN)
            ]

        found = await self.pool.run("desk.withdrawals", read, within=_WITHIN, hold=_WITHIN)
        return {"waiting": found, "buttons": _buttons}

    async def _act(self, view: View, what: str, why: str, function: Callable[[Tx], Awaitable[T]]) -> T:
        async def act(tx: Tx) -> T:
            await act_as(tx, view.who)
            done = await function(tx)
            await record_audit(tx, view.who.actor, "desk.why", subject=what, details={"why": why})
            return done

        return await self.pool.run("desk.act", act, within=_WITHIN, hold=_WITHIN)

    async def _about(self, number: int) -> str:
        found = await self.pool.run(
            "desk.withdrawal", lambda tx: find_withdrawal(tx, number), within=_WITHIN, hold=_WITHIN
        )
        return f" {found.id}: {found.amount} → {found.destination}, {found.telegram_id}"

    async def _ask_approve(self, view: View, given: Mapping[str, str]) -> Question:
        text = "Recorded as paid out: make the payment first; `atlas withdrawals show` opens where it goes."
        fields = (Field("reference", "What the payment out is called where it was made"),)
        return Question(view.t(text) + await self._about(_number(given)), fields)

    async def _approve(self, view: View, given: Mapping[str, str], why: str) -> str:
        number, reference = _number(given), given.get("reference", "").strip()[:_LONGEST]
        await self._act(
            view,
            f"approve {number}",
            why,
            lambda tx: approve_withdrawal(
                tx, number, actor=view.who.actor, reference=reference, second_above=self.second_above
            ),
        )
        return f"{number}: {view.t('recorded as paid out')}"

    async def _ask_confirm(self, view: View, given: Mapping[str, str]) -> Question:
        text = "You agree that another operator pays it out, after a look at where its money came from."
        return Question(view.t(text) + await self._about(_number(given)))

    async def _confirm(self, view: View, given: Mapping[str, str], why: str) -> str:
        number = _number(given)
        await self._act(view, f"confirm {number}", why, lambda tx: confirm_withdrawal(tx, number, actor=view.who.actor))
        return f"{number}: {view.t('confirmed')}"

    async def _ask_reject(self, view: View, given: Mapping[str, str]) -> Question:
        text = "The money goes back to the balance, and the customer reads the reason that you write."
        return Question(view.t(text) + await self._about(_number(given)))

    async def _reject(self, view: View, given: Mapping[str, str], why: str) -> str:
        number = _number(given)
        await self._act(
            view, f"reject {number}", why, lambda tx: reject_withdrawal(tx, number, actor=view.who.actor, reason=why)
        )
        return f"{number}: {view.t('rejected')}"


def _buttons(one: ToPay) -> Sequence[Button]:
    given = {"number": str(one.found.id)}
    names = ("confirm", "reject") if one.lacks_second else ("approve", "reject")
    return [Button(name, _LABELS[name], _least(name), given) for name in names]


def _least(verb: str) -> Role:
    return least_role(f"withdrawals {verb}") or Role.OWNER


def _number(given: Mapping[str, str]) -> int:
    text = given.get("number", "")
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise BusinessError(f"there is no withdrawal {text[:40]!r}; nothing was changed")
    return int(text)


_LABELS: Final = {"approve": "Record as paid out", "confirm": "Confirm", "reject": "Reject"}
_WORDS: Final = {
    "Withdrawals": "Выводы",
    "no withdrawal waits": "выводов нет",
    "Record as paid out": "Записать как выплаченный",
    "Confirm": "Подтвердить",
    "Reject": "Отклонить",
    "recorded as paid out": "записан как выплаченный",
    "confirmed": "подтверждён",
    "rejected": "отклонён",
    "Recorded as paid out: make the payment first; `atlas withdrawals show` opens where it goes.": (
        "Записывается как выплаченный: сначала выплатите; куда, покажет `atlas withdrawals show`."
    ),
    "What the payment out is called where it was made": "Как выплата называется там, где её сделали",
    "You agree that another operator pays it out, after a look at where its money came from.": (
        "Вы согласны, чтобы другой оператор выплатил, посмотрев, откуда деньги."
    ),
    "The money goes back to the balance, and the customer reads the reason that you write.": (
        "Деньги вернутся на баланс, клиент прочтёт вашу причину."
    ),
    "another operator has to confirm it first": "сначала должен подтвердить другой оператор",
    "Where the money came from": "Откуда деньги",
    "booked": "проводка",
    "in all": "всего",
    "rewarded for": "награда за",
    "payments": "платежей",
    "earned": "заработано",
    "taken back": "взято назад",
    "first": "первый",
    "confirmed by": "подтвердили",
}
