"""Reports: exact against an independent calculation, and never more or less than the ledger."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal

import pytest

from db.billing.orders import open_order
from db.billing.payment_facts import FinalizePurchase
from db.billing.promos import add_promo
from db.billing.purchases import finalize_purchase
from db.errors import BusinessError
from db.reports.report import DIMENSIONS, Line, read_report
from db.reports.text import COLUMNS, as_csv, as_data
from db.tx import Tx
from tests.db.auditor.conftest import history as history
from tests.db.auditor.conftest import history_dsn as history_dsn
from tests.db.auditor.conftest import lived as lived
from tests.db.database import Database
from tests.db.reports.month import COUNTED, Month

pytestmark = pytest.mark.system


def figures(line: Line) -> dict[str, int]:
    """The figures of a line that are not zero."""
    values = {name: getattr(line, name) for name in COUNTED}
    plain = {name: getattr(value, "amount", value) for name, value in values.items()}
    return {name: value for name, value in plain.items() if value}


async def test_a_generated_month_is_reported_as_python_alone_computes_it(database: Database) -> None:
    month = Month(database, seed=1, days=75, counted_from=40)
    await month.live()
    found = await database.run(read_report, month.date(40), month.date(74))
    reported = {("all", ""): found.all} | {(by, line.key): line for by, lines in found.by.items() for line in lines}
    wanted = {
        pair: {name: value for name, value in sums.items() if value} for pair, sums in month.tally.figures.items()
    }
    assert {pair: made for pair, line in reported.items() if (made := figures(line))} == wanted
    for name in COUNTED:
        assert name in wanted["all", ""], "each figure occurs in this month"
    for pair, line in reported.items():
        payers = len(month.tally.payers[pair])
        assert line.payers == payers
        assert line.arpu.amount == (line.revenue.amount // payers if payers else 0)
    assert [line.key for line in found.by["day"]] == [month.date(day).isoformat() for day in range(40, 75)]
    assert found.trials_became == month.became > 0
    accounts = month.model.accounts.values()
    held = found.held
    assert held.paid.amount == sum(one.paid for one in accounts)
    assert held.credit.amount == sum(one.credit for one in accounts)
    assert held.earned.amount == held.referral_debt.amount == sum(one.earned for one in accounts) > 0
    assert held.owed_by_customers.amount == -sum(one.debt for one in accounts)
    whole = await database.run(read_report, month.date(0), month.date(74))
    assert whole.held.rewarded.amount == month.model.rewards
    assert whole.held.from_outside.amount == month.model.revenue


async def test_days_add_up_to_the_revenue_of_the_ledger_whatever_has_happened(history: Database) -> None:
    begun, ended = await history.run(_days)
    found = await history.run(read_report, begun, ended)
    booked = await history.fetchval(
        "SELECT sum(amount)::bigint FROM postings p JOIN accounts a ON a.id = p.account_id WHERE a.kind = 'revenue'"
    )
    assert found.all.revenue.amount == booked != 0
    for by in DIMENSIONS:
        for name in COUNTED:
            values = [getattr(line, name) for line in found.by[by]]
            total = getattr(found.all, name)
            assert sum(getattr(value, "amount", value) for value in values) == getattr(total, "amount", total), (
                by,
                name,
            )
    # Two halves make the whole: no moment is counted twice, or not at all.
    middle = begun + (ended - begun) / 2
    halves = [
        await history.run(read_report, begun, middle),
        await history.run(read_report, middle + timedelta(days=1), ended),
    ]
    assert [*halves[0].by["day"], *halves[1].by["day"]] == list(found.by["day"])


async def _days(tx: Tx) -> Sequence[date]:
    row = await tx.fetchrow(
        "SELECT (min(created_at) AT TIME ZONE 'UTC')::date AS begun, (atlas_now() AT TIME ZONE 'UTC')::date AS ended "
        "FROM journals"
    )
    assert row is not None
    return row["begun"], row["ended"]


async def test_a_spreadsheet_gets_the_same_figures_and_no_formula(database: Database) -> None:
    await database.add_customer()
    await database.buy()
    today = await database.fetchval("SELECT (atlas_now() AT TIME ZONE 'UTC')::date")
    found = await database.run(read_report, today - timedelta(days=1), today)
    rows = list(csv.DictReader(io.StringIO(as_csv(found, "plan"))))
    assert [row["plan"] for row in rows] == ["basic 30"] and list(rows[0]) == ["plan", *COLUMNS]
    assert Decimal(rows[0]["revenue"]) == Decimal("149.00") and rows[0]["new"] == "1"
    assert as_data(found)["held"] and len(list(csv.reader(io.StringIO(as_csv(found, "day"))))) == 3
    await database.run(add_promo, "=cmd", 50, actor="operator")
    order = await database.run(open_order, 1001, "basic", 30, idempotency_key="formula", promo_code="=cmd")
    await database.run(finalize_purchase, FinalizePurchase("test", "formula", order.quote.amount, order.id))
    found = await database.run(read_report, today, today)
    assert "'=cmd,74.50" in as_csv(found, "promo")


@pytest.mark.parametrize("days", [0, 3661])
async def test_days_that_make_no_report_are_refused(database: Database, days: int) -> None:
    with pytest.raises(BusinessError, match="1 to 3660 days"):
        await database.run(read_report, date(2026, 1, 1), date(2026, 1, 1) + timedelta(days=days - 1))
