"""`atlas grant` and `atlas trial`: access that nobody pays for."""

from __future__ import annotations

from datetime import timedelta

import click

from actors.commands.database import OPERATOR, in_transaction
from actors.commands.parameters import DAYS, NAME, TELEGRAM_ID
from db.access import grant_access, grant_trial
from db.entitlements import Entitlement
from db.tx import Tx
from runtime.cli.options import config_option, json_option
from runtime.cli.output import emit


@click.command()
@click.argument("telegram_id", type=TELEGRAM_ID)
@click.option("--tariff", type=NAME, required=True, help="Which one, such as basic.")
@click.option("--days", type=DAYS, required=True, help="For how long.")
@click.option(
    "--key", type=NAME, required=True, help="What makes a repetition the same grant, such as a ticket's number."
)
@config_option
@json_option
@click.pass_context
def grant(ctx: click.Context, telegram_id: int, tariff: str, days: int, key: str, as_json: bool) -> None:
    """Give customer TELEGRAM_ID access without payment. The same --key again changes nothing."""

    async def run(tx: Tx) -> Entitlement:
        return await grant_access(tx, telegram_id, tariff, timedelta(days=days), idempotency_key=key, actor=OPERATOR)

    _show(in_transaction(ctx, "grant", run), telegram_id, as_json)


@click.command()
@click.argument("telegram_id", type=TELEGRAM_ID)
@config_option
@json_option
@click.pass_context
def trial(ctx: click.Context, telegram_id: int, as_json: bool) -> None:
    """Give customer TELEGRAM_ID the trial: 72 hours, once per customer ever."""

    async def run(tx: Tx) -> Entitlement:
        return await grant_trial(tx, telegram_id, actor=OPERATOR)

    _show(in_transaction(ctx, "trial", run), telegram_id, as_json)


def _show(given: Entitlement, telegram_id: int, as_json: bool) -> None:
    data = {
        "telegram_id": telegram_id,
        "tariff": given.tariff,
        "expires_at": given.new_end.isoformat(),
        "replayed": given.replayed,
    }
    until = f"{given.new_end:%Y-%m-%d %H:%M} UTC"
    again = " (given before; nothing was changed)" if given.replayed else ""
    emit(data, as_json, lambda: f"customer {telegram_id} has {given.tariff} until {until}{again}")
