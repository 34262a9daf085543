"""A report for other programs: comma-separated values, and what JSON is made of."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

import attrs

from db.money import DIGITS, Money
from db.reports.report import Dimension, Held, Line, Report

COLUMNS: Final = (
    "revenue",
    "sold",
    "gone_back",
    "sales",
    "payers",
    "arpu",
    "new",
    "renewed",
    "returned",
    "lapsed",
    "trials",
    "from_trial",
    "discount",
)
"""The figures of a line, in their order. Names are kept: spreadsheets and programs rely on them."""
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def as_csv(report: Report, dimension: Dimension) -> str:
    """The lines of one dimension with a header, amounts in roubles such as `149.00`, rows ended by CR LF (RFC 4180).

    A key that a spreadsheet would take for a formula is preceded by an apostrophe.
    """
    out = io.StringIO()
    rows = csv.writer(out)
    rows.writerow((dimension, *COLUMNS))
    for line in report.by[dimension]:
        key = f"'{line.key}" if line.key.startswith(_FORMULA) else line.key
        rows.writerow((key, *(_plain(getattr(line, name)) for name in COLUMNS)))
    return out.getvalue()


def as_data(report: Report) -> Mapping[str, object]:
    """Everything as plain values; amounts in kopecks."""
    return {
        "first": report.first.isoformat(),
        "last": report.last.isoformat(),
        "currency": report.all.revenue.currency,
        "all": _figures(report.all),
        "by": {
            dimension: [{dimension: line.key, **_figures(line)} for line in lines]
            for dimension, lines in report.by.items()
        },
        "held": {
            **{field.name: getattr(report.held, field.name).amount for field in attrs.fields(Held)},
            "purses": report.held.purses.amount,
            "referral_debt": report.held.referral_debt.amount,
        },
        "trials_became": report.trials_became,
    }


def _figures(line: Line) -> Mapping[str, int]:
    values = {name: getattr(line, name) for name in COLUMNS}
    return {name: value.amount if isinstance(value, Money) else value for name, value in values.items()}


def _plain(value: object) -> str:
    if not isinstance(value, Money):
        return str(value)
    return str(Decimal(value.amount).scaleb(-DIGITS[value.currency]))
