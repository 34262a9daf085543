"""The desk's page of money: what the business came to, by the SQL of `atlas report`, and the same as a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final, cast

import attrs

from actors.pool.client import Pool
from db.errors import BusinessError
from db.money import Money
from db.reports.report import DIMENSIONS, Dimension, Line, Report, read_report
from db.reports.text import as_csv
from db.tx import Tx
from runtime.desk import Addition, Download, Page, Row, View
from runtime.operators import Role, least_role

_TEMPLATES: Final = "actors.desk"
_WITHIN: Final = 5.0
_HOLD: Final = 20.0
"""Seconds that the connection may be held: a year of a large shop is one long statement."""
_SPANS: Final = (7, 30, 90, 365)
_DEFAULT: Final = 30
_SHOWN: Final = 31
"""Lines of a table; the file has all."""
_TITLES: Final[Mapping[Dimension, str]] = {
    "day": "By day",
    "plan": "By plan",
    "provider": "By provider",
    "source": "By where customers came from",
    "promo": "By promo code",
}


@attrs.frozen
class MoneyPages:
    """The page and the file."""

    pool: Pool

    def addition(self) -> Addition:
        """The pages."""
        least = least_role("report") or Role.OWNER
        return Addition(
            pages=(
                Page("/money", "Money", f"{_TEMPLATES}:money.html", least, self._show),
                Page("/money/{dimension}.csv", "Money", "", least, is_in_menu=False, download=self._download),
            ),
            templates=_TEMPLATES,
            words=_WORDS,
        )

    async def _read(self, view: View) -> Report:
        asked = view.query

        async def read(tx: Tx) -> Report:
            # One moment for all statements: what is booked in between is not half seen.
            await tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            now: datetime = await tx.fetchval("SELECT atlas_now()")
            last = _day(asked, "to") or now.astimezone(UTC).date()
            first = _day(asked, "from") or last - timedelta(days=_days(asked) - 1)
            return await read_report(tx, first, last)

        return await self.pool.run("desk.money", read, within=_WITHIN, hold=_HOLD)

    async def _show(self, view: View) -> Mapping[str, object]:
        found = await self._read(view)
        days = found.by["day"]
        tables = [
            (dimension, _TITLES[dimension], _shown(dimension, found.by[dimension]), len(found.by[dimension]))
            for dimension in DIMENSIONS
        ]
        return {
            "found": found,
            "courses": _courses(days),
            "tables": tables,
            "rows": _held(found),
            "spans": _SPANS,
            "given": f"from={found.first}&to={found.last}",
            "days": (found.last - found.first).days + 1,
        }

    async def _download(self, view: View) -> Download:
        dimension = view.request.path_params["dimension"]
        if dimension not in DIMENSIONS:
            raise BusinessError(f"a report is by {', '.join(DIMENSIONS)}, not by {dimension[:40]!r}")
        found = await self._read(view)
        name = f"atlas-{dimension}-{found.first}-{found.last}.csv"
        return Download(name, "text/csv; charset=utf-8", as_csv(found, cast("Dimension", dimension)))


def _days(asked: Mapping[str, str]) -> int:
    text = asked.get("days", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 4 else _DEFAULT


def _day(asked: Mapping[str, str], name: str) -> date | None:
    text = asked.get(name, "").strip()
    if not text:
        return None
    try:
        return date.fromisoformat(text[:40])
    except ValueError as error:
        raise BusinessError(f"{name} is a day such as 2026-01-31, not {text[:40]!r}") from error


def _shown(dimension: Dimension, lines: Sequence[Line]) -> Sequence[Line]:
    """The latest days first, without those on which nothing was; of the rest the largest."""
    if dimension != "day":
        return lines[:_SHOWN]
    return [line for line in reversed(lines) if any((line.sales, line.gone_back, line.lapsed, line.trials))][:_SHOWN]


@attrs.frozen
class Course:
    """A figure with how it went from day to day."""

    title: str
    total: str
    values: Sequence[float]
    peak: str


def _courses(days: Sequence[Line]) -> Sequence[Course]:
    revenue = [line.revenue for line in days]
    made = [
        Course(
            "Revenue",
            str(sum(revenue, Money(0, revenue[0].currency))),
            [one.amount / 100 for one in revenue],
            str(max(revenue)),
        )
    ]
    for title, name in (("New customers", "new"), ("Renewed", "renewed"), ("Lapsed", "lapsed")):
        values = [getattr(line, name) for line in days]
        made.append(Course(title, str(sum(values)), values, str(max(values))))
    return made


def _held(found: Report) -> Sequence[Row]:
    held = found.held
    return [
        Row("revenue per customer who bought", str(found.all.arpu)),
        Row("customers who bought", str(found.all.payers)),
        Row("gone back", str(found.all.gone_back)),
        Row("came from outside, less what went out", str(held.from_outside)),
        Row("trials that began", str(found.all.trials)),
        Row("trials that became customers", str(found.trials_became)),
        Row("off the list by promo codes", str(found.all.discount)),
        Row("balances held for customers", str(held.purses)),
        Row("of them paid in, credited, earned", f"{held.paid}, {held.credit}, {held.earned}"),
        Row("owed to referrers", str(held.referral_debt)),
        Row("rewards given, taken back", f"{held.rewarded}, {held.taken_back}"),
        Row("withdrawals that wait", str(held.reserved), href="/withdrawals"),
        Row("owed by customers", str(held.owed_by_customers)),
        Row("not settled", str(held.unsettled), is_wrong=bool(held.unsettled), href="/cases"),
    ]


_WORDS: Final = {
    "Money": "Деньги",
    "Revenue": "Выручка",
    "New customers": "Новые клиенты",
    "Renewed": "Продлили",
    "Lapsed": "Ушли",
    "By day": "По дням",
    "By plan": "По тарифам",
    "By provider": "По провайдерам",
    "By where customers came from": "Откуда клиенты",
    "By promo code": "По промокодам",
    "From": "С",
    "To": "По",
    "Show": "Показать",
    "last days": "последние дни",
    "as CSV": "в CSV",
    "the highest": "наибольшее",
    "revenue": "выручка",
    "gone back": "вернулось",
    "sales": "продаж",
    "ARPU": "ARPU",
    "new": "новые",
    "renewed": "продлили",
    "returned": "вернулись",
    "lapsed": "ушли",
    "trials": "пробных",
    "from a trial": "из пробных",
    "Held and owed": "На счетах и долги",
    "revenue per customer who bought": "выручка на купившего",
    "customers who bought": "купивших клиентов",
    "came from outside, less what went out": "пришло извне за вычетом ушедшего",
    "trials that began": "начато пробных",
    "trials that became customers": "пробных, ставших клиентами",
    "off the list by promo codes": "скидки по промокодам",
    "balances held for customers": "балансы клиентов",
    "of them paid in, credited, earned": "из них внесено, зачислено, заработано",
    "owed to referrers": "должны пригласившим",
    "rewards given, taken back": "награды: начислено, взято назад",
    "withdrawals that wait": "ждут выплаты",
    "owed by customers": "должны клиенты",
    "not settled": "не разобрано",
    "days, UTC": "дней, UTC",
    "of": "из",
    "by themselves": "сами",
    "invited": "по приглашению",
    "no code": "без кода",
}
