"""The desk's pages of customers: how one is found, the whole story of one, and what can be done for them.

What is done is done by the functions that `atlas` calls, in one transaction that names the operator.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Final, Literal, TypeVar
from urllib.parse import quote
from uuid import uuid4

import attrs

from actors.pool.client import Pool
from db.access.subscriptions import mark_revoked
from db.billing.cases import close_case, find_case, list_cases
from db.billing.grants import grant_access
from db.billing.refunds import refund_charge
from db.customers import find_customer
from db.errors import BusinessError, UnknownCustomer
from db.keys.reissue import request_reissue
from db.money import Money
from db.settings import LimitSettings
from db.stories import ROWS, CustomerStory, latest_customers, read_story, search_customers
from db.tx import Tx
from db.work.audit import act_as, record_audit
from db.work.limits import Allowance
from runtime.desk import Action, Addition, Button, Field, NotFound, Page, Question, View
from runtime.operators import Role, least_role

T = TypeVar("T")
_TEMPLATES: Final = "actors.desk"
_WITHIN: Final = 5.0
MOST_DAYS: Final = 3650
"""Days of access that one action gives at most."""
LARGEST: Final = 2**63 - 1
"""The largest number of a row."""
_LONGEST: Final = 100
_BY_HAND: Final = frozenset({"manual"})
"""Providers that no program can ask."""


@attrs.frozen
class Customers:
    """The pages and what they need: a pool, and the limits that a customer is held to."""

    pool: Pool
    limits: LimitSettings

    def addition(self) -> Addition:
        """The pages and the actions."""
        return Addition(
            pages=(
                Page("/customers", "Customers", f"{_TEMPLATES}:customers.html", Role.SUPPORT, self._find),
                Page(
                    "/customers/{telegram_id:int}",
                    "Customer",
                    f"{_TEMPLATES}:customer.html",
                    Role.SUPPORT,
                    self._story,
                    is_in_menu=False,
                ),
                Page("/cases", "Cases", f"{_TEMPLATES}:cases.html", Role.SUPPORT, self._cases),
            ),
            actions=(
                Action("grant", "Give access", least_of("grant"), self._ask_grant, self._grant, keeps_reason=True),
                Action(
                    "reissue",
                    "Give another key",
                    least_of("reissue"),
                    self._ask_reissue,
                    self._reissue,
                    keeps_reason=True,
                ),
                Action(
                    "revoke",
                    "End access",
                    least_of("revoke"),
                    self._ask_revoke,
                    self._revoke,
                    is_dangerous=True,
                    keeps_reason=True,
                ),
                Action(
                    "refund",
                    "Record a refund",
                    least_of("refund"),
                    self._ask_refund,
                    self._refund,
                    is_dangerous=True,
                    keeps_reason=True,
                ),
                Action(
                    "close-case",
                    "Close the case",
                    least_of("cases close"),
                    self._ask_close,
                    self._close,
                    keeps_reason=True,
                ),
            ),
            templates=_TEMPLATES,
            words=_WORDS,
        )

    # --- looking

    async def read(self, label: str, function: Callable[[Tx], Awaitable[T]]) -> T:
        """What a transaction reads, within the time that a page may take."""
        return await self.pool.run(label, function, within=_WITHIN, hold=_WITHIN)

    async def _find(self, view: View) -> Mapping[str, object]:
        text = view.query.get("q", "").strip()[:_LONGEST]
        if text:
            found = await self.read("desk.search", lambda tx: search_customers(tx, text))
        else:
            found = await self.read("desk.latest", latest_customers)
        return {"asked": text, "found": found}

    async def _story(self, view: View) -> Mapping[str, object]:
        number = min(int(view.request.path_params["telegram_id"]), LARGEST)
        try:
            story = await self.read("desk.story", lambda tx: read_story(tx, number))
        except UnknownCustomer as error:
            raise NotFound(str(error)) from error
        who = {"customer": str(number)}
        buttons = [
            Button("reissue", "Give another key", least_of("reissue"), who),
            Button("grant", "Give access", least_of("grant"), who),
            *([Button("prolong", "Prolong", least_of("grant"), who)] if _runs(story) else []),
            Button("revoke", "End access", least_of("revoke"), who),
        ]
        return {
            "story": story,
            "title": str(number),
            "buttons": buttons,
            "rows": ROWS,
            "shown": _shown,
            "refund": _refund_of,
            "by_hand": _BY_HAND,
            "money": Role.MONEY,
        }

    async def _cases(self, view: View) -> Mapping[str, object]:
        state: Literal["open", "closed"] = "closed" if view.query.get("state") == "closed" else "open"
        cases = await self.read("desk.cases", lambda tx: list_cases(tx, state, 0, ROWS))
        return {
            "cases": cases,
            "state": state,
            "button": lambda number: Button(
                "close-case", "Close the case", least_of("cases close"), {"number": str(number)}
            ),
            "credit": lambda number: Button(
                "credit-case", "Credit a customer", least_of("cases credit"), {"number": str(number)}
            ),
        }

    # --- acting

    async def act(
        self, view: View, what: str, why: str, function: Callable[[Tx], Awaitable[T]], customer: int | None = None
    ) -> T:
        """Do it as this operator; the reason is kept in the same transaction."""

        async def act(tx: Tx) -> T:
            await act_as(tx, view.who)
            done = await function(tx)
            if getattr(done, "replayed", False):  # the same form again: its reason is there already
                return done
            number = None if customer is None else (await find_customer(tx, customer)).id
            await record_audit(tx, view.who.actor, "desk.why", customer_id=number, subject=what, details={"why": why})
            return done

        return await self.pool.run("desk.act", act, within=_WITHIN, hold=_WITHIN)

    async def _ask_grant(self, view: View, given: Mapping[str, str]) -> Question:
        customer_of(given)
        return Question(
            view.t("The customer gets access without payment, from now or from the end of what there is."),
            (Field("tariff", "Tariff", value="basic"), Field("days", "Days", "number"), form_key()),
        )

    async def _grant(self, view: View, given: Mapping[str, str], why: str) -> str:
        customer, days = customer_of(given), whole(given, "days", MOST_DAYS)
        tariff = given.get("tariff", "").strip()[:_LONGEST]
        done = await self.act(
            view,
            "grant",
            why,
            lambda tx: grant_access(
                tx, customer, tariff, timedelta(days=days), idempotency_key=key_of(given), actor=view.who.actor
            ),
            customer,
        )
        return f"{customer}: {done.tariff} {view.t('until')} {done.new_end:%Y-%m-%d %H:%M} UTC"

    async def _ask_reissue(self, view: View, given: Mapping[str, str]) -> Question:
        customer_of(given)
        text = "The customer gets another key and link. The old link works until the new one is on every node; then it is cut."
        return Question(view.t(text), (form_key(),))

    async def _reissue(self, view: View, given: Mapping[str, str], why: str) -> str:
        customer = customer_of(given)
        allowance = Allowance(self.limits, view.who.actor)
        await self.act(
            view,
            "reissue",
            why,
            lambda tx: request_reissue(
                tx, customer, actor=view.who.actor, idempotency_key=key_of(given), allowance=allowance
            ),
            customer,
        )
        return f"{customer}: {view.t('another key is on its way')}"

    async def _ask_revoke(self, view: View, given: Mapping[str, str]) -> Question:
        customer_of(given)
        return Question(view.t("Access ends now: the key is taken off its nodes, and open connections are cut."))

    async def _revoke(self, view: View, given: Mapping[str, str], why: str) -> str:
        customer = customer_of(given)
        done = await self.act(
            view, "revoke", why, lambda tx: mark_revoked(tx, customer, actor=view.who.actor), customer
        )
        return f"{customer}: {view.t('access ends' if done else 'access had ended before; nothing was changed')}"

    async def _ask_refund(self, view: View, given: Mapping[str, str]) -> Question:
        text = (
            "Recorded as gone back to its payer: make the payment at the provider. A charge that is refunded whole takes along "
            "what it bought. Without an amount, all that is left of it."
        )
        return Question(
            view.t(text) + f" {given.get('provider', '')} {given.get('charge', '')}",
            (Field("amount", "Amount in roubles, or all", value="all"), form_key()),
        )

    async def _refund(self, view: View, given: Mapping[str, str], why: str) -> str:
        amount = given.get("amount", "").strip()
        part = None if amount in ("", "all") else Money.parse(amount)
        provider, charge = given.get("provider", ""), given.get("charge", "")
        done = await self.act(
            view,
            f"refund {provider} {charge}"[:_LONGEST],
            why,
            lambda tx: refund_charge(
                tx, provider, charge, amount=part, actor=view.who.actor, idempotency_key=key_of(given)
            ),
        )
        return f"{view.t('refund')} {done.id}: {done.amount}"

    async def _ask_close(self, view: View, given: Mapping[str, str]) -> Question:
        number = whole(given, "number", LARGEST)
        case = await self.read("desk.case", lambda tx: find_case(tx, number))
        what = f" {case.kind}: {case.details.get('why') or case.subject}"
        return Question(
            view.t("The case is closed with what you write; one that holds money is credited or refunded instead.")
            + what
        )

    async def _close(self, view: View, given: Mapping[str, str], why: str) -> str:
        number = whole(given, "number", LARGEST)
        await self.act(
            view, f"case {number}", why, lambda tx: close_case(tx, number, resolution=why, actor=view.who.actor)
        )
        return f"{view.t('case')} {number}: {view.t('closed')}"


def least_of(command: str) -> Role:
    """The least role for a command of `atlas`."""
    return least_role(command) or Role.OWNER


def form_key() -> Field:
    """What makes the same form, sent twice, the same operation."""
    return Field("key", "", "hidden", f"desk:{uuid4().hex}")


def key_of(given: Mapping[str, str]) -> str:
    """The key of a form. Raises BusinessError for a form without one."""
    key = given.get("key", "")
    if not 8 <= len(key) <= _LONGEST:
        raise BusinessError("the form was not complete; open it again")
    return key


def customer_of(given: Mapping[str, str]) -> int:
    """The Telegram id in a form. Raises BusinessError for what is none."""
    return whole(given, "customer", LARGEST)


def whole(given: Mapping[str, str], name: str, most: int) -> int:
    """A whole number in a form, from 1 to `most`. Raises BusinessError for what is none."""
    text = given.get(name, "").strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and 1 <= int(text) <= most):
        raise BusinessError(f"{name} is a whole number from 1 to {most}, not {text[:40]!r}; nothing was changed")
    return int(text)


def _shown(value: object) -> str:
    """A value of a story as people read it: moments to the minute."""
    if value is None:
        return ""
    text = str(value)
    is_moment = len(text) >= 19 and text[4:5] == "-" and text[10:11] == "T"
    return f"{text[:10]} {text[11:16]}" if is_moment else text


def _refund_of(action: str, part: str, row: Sequence[object]) -> str:
    """Where the refund of a charge is asked about; empty for rows that are none."""
    return f"/ask/{action}?provider={quote(str(row[1]))}&charge={quote(str(row[2]))}" if part == "Charges" else ""


def _runs(story: CustomerStory) -> bool:
    return story.subscription is not None and story.subscription.is_running


_WORDS: Final = {
    "Customers": "Клиенты",
    "Customer": "Клиент",
    "Cases": "Случаи",
    "Find": "Найти",
    "Telegram id, charge, order or the beginning of a key": "Telegram id, платёж, заказ или начало ключа",
    "The latest": "Последние",
    "Found": "Найдено",
    "no one was found": "никто не найден",
    "Give access": "Дать доступ",
    "Give another key": "Выдать другой ключ",
    "End access": "Закончить доступ",
    "Record a refund": "Записать возврат",
    "Close the case": "Закрыть случай",
    "Tariff": "Тариф",
    "Days": "Дней",
    "Amount in roubles, or all": "Сумма в рублях, или all",
    "until": "до",
    "another key is on its way": "другой ключ выдаётся",
    "access ends": "доступ заканчивается",
    "access had ended before; nothing was changed": "доступ уже был закончен; ничего не изменено",
    "refund": "возврат",
    "case": "случай",
    "closed": "закрыт",
    "open": "открыт",
    "no case is open": "открытых случаев нет",
    "The customer gets access without payment, from now or from the end of what there is.": (
        "Клиент получит доступ без оплаты: с этого момента или с конца имеющегося."
    ),
    "The customer gets another key and link. The old link works until the new one is on every node; then it is cut.": (
        "Клиент получит другой ключ и ссылку. Старая работает, пока новый не появится на всех узлах."
    ),
    "Access ends now: the key is taken off its nodes, and open connections are cut.": (
        "Доступ закончится сейчас: ключ снимут с узлов, соединения оборвут."
    ),
    "Recorded as gone back to its payer: make the payment at the provider. A charge that is refunded whole takes along "
    "what it bought. Without an amount, all that is left of it.": (
        "Записывается как возвращённое плательщику; сам возврат сделайте у провайдера. Возврат целиком забирает купленное."
    ),
    "The case is closed with what you write; one that holds money is credited or refunded instead.": (
        "Случай закроется с тем, что вы напишете; если в нём деньги, их зачисляют или возвращают."
    ),
    "Summary": "Сводка",
    "balance": "баланс",
    "paid in, credited, earned": "внесено, зачислено, заработано",
    "debt": "долг",
    "can be withdrawn": "можно вывести",
    "subscription": "подписка",
    "never had one": "никогда не было",
    "runs": "действует",
    "does not run": "не действует",
    "renews by itself": "продлевается сама",
    "discount": "скидка",
    "paying friends": "платящих друзей",
    "traffic": "трафик",
    "language": "язык",
    "reachable": "доступен",
    "yes": "да",
    "no": "нет",
    "customer since": "клиент с",
    "Access": "Доступ",
    "Keys": "Ключи",
    "Charges": "Платежи",
    "Orders": "Заказы",
    "Journals": "Проводки",
    "Notices": "Уведомления",
    "Audit": "Аудит",
    "the latest": "последние",
    "nothing here": "ничего нет",
    "rows": "строки",
    "by": "по",
}
