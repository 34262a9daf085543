"""`atlas customer …`: who the customers are."""

from __future__ import annotations

import click

from actors.commands.database import in_transaction
from db.customers import Customer, add_customer
from db.tx import Tx
from runtime.cli.options import config_option, json_option
from runtime.cli.output import emit


@click.group()
def customer() -> None:
    """Add customers."""


@customer.command()
@click.argument("telegram_id", type=int)
@click.option("--language", default="ru", show_default=True, help="Language of notices.")
@click.option("--referrer", type=int, help="Telegram id of who invited them; final once set.")
@config_option
@json_option
@click.pass_context
def add(ctx: click.Context, telegram_id: int, language: str, referrer: int | None, as_json: bool) -> None:
    """Add the customer TELEGRAM_ID. Repeating it changes nothing."""

    async def run(tx: Tx) -> Customer:
        return await add_customer(tx, telegram_id, language=language, referrer_telegram_id=referrer)

    found = in_transaction(ctx, "customer.add", run)
    data = {"telegram_id": found.telegram_id, "language": found.language, "created_at": found.created_at.isoformat()}
    emit(data, as_json, lambda: f"customer {found.telegram_id}, since {found.created_at:%Y-%m-%d %H:%M} UTC")
