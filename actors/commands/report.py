"""`atlas report`: what the business came to."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import cast

import click

from actors.commands.database import in_transaction
from db.reports.report import DIMENSIONS, MOST_DAYS, Dimension, Line, Report, read_report
from db.reports.text import as_csv, as_data
from db.tx import Tx
from runtime.cli import config_option, emit, json_option, table

_WITHIN = 60.0
_DAY = click.DateTime(["%Y-%m-%d"])


@click.command()
@click.option("--from", "first", type=_DAY, metavar="DAY", help="First day, of UTC, such as 2026-01-31.")
@click.option("--to", "last", type=_DAY, metavar="DAY", help="Last day, which counts too. Default: today.")
@click.option(
    "--days", type=click.IntRange(1, MOST_DAYS), default=30, show_default=True, help="How many, without --from."
)
@click.option(
    "--by", "dimension", type=click.Choice(DIMENSIONS), default="day", show_default=True, help="What a row is."
)
@click.option("--csv", "is_csv", is_flag=True, help="Print the rows as comma-separated values.")
@config_option
@json_option
@click.pass_context
def report(
    ctx: click.Context,
    first: datetime | None,
    last: datetime | None,
    days: int,
    dimension: str,
    is_csv: bool,
    as_json: bool,
) -> None:
    """Show revenue, new, renewed and lapsed customers, trials, purses and what rewards cost, from the ledger alone."""
    if is_csv and as_json:
        raise click.UsageError("--csv and --json are two forms of the same; choose one")
    by = cast("Dimension", dimension)

    async def run(tx: Tx) -> Report:
        until = last.date() if last else await _today(tx)
        return await read_report(tx, first.date() if first else until - timedelta(days=days - 1), until)

    found = in_transaction(ctx, "report", run, within=_WITHIN, one_snapshot=True)
    if is_csv:
        click.echo(as_csv(found, by), nl=False)
    else:
        emit(as_data(found), as_json, lambda: _text(found, by))


async def _today(tx: Tx) -> date:
    now: datetime = await tx.fetchval("SELECT atlas_now()")
    return now.astimezone(UTC).date()


def _text(found: Report, by: Dimension) -> str:
    held = found.held
    titles = (
        by,
        "revenue",
        "gone back",
        "sales",
        "ARPU",
        "new",
        "renewed",
        "returned",
        "lapsed",
        "trials",
        "from trial",
    )
    rows = [_row(line) for line in found.by[by]]
    facts = [
        ("purses", f"{held.purses}: {held.paid} paid in, {held.credit} credited, {held.earned} earned"),
        ("rewards", f"{held.rewarded} given, {held.taken_back} taken back; {held.referral_debt} owed to referrers"),
        ("debts", f"{held.owed_by_customers} owed by customers"),
        ("trials", f"{found.all.trials} began, {found.trials_became} of them bought"),
        ("promo codes", f"{found.all.discount} off the prices of the list"),
        ("from outside", f"{held.from_outside}, less what went back and out"),
    ]
    facts += [("compensation", str(held.compensated))] * bool(held.compensated)
    facts += [("unsettled", f"{held.unsettled}; see `atlas cases list`")] * bool(held.unsettled)
    below = "\n".join(f"{label:<14}{value}" for label, value in facts)
    return f"{found.first} to {found.last}, UTC\n\n{table(titles, [*rows, _row(found.all, 'all')])}\n\n{below}"


def _row(line: Line, name: str = "") -> tuple[object, ...]:
    return (
        name or line.key,
        line.revenue,
        line.gone_back or "",
        line.sales,
        line.arpu,
        line.new,
        line.renewed,
        line.returned,
        line.lapsed,
        line.trials,
        line.from_trial,
    )
