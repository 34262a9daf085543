"""`atlas orders …`: what customers intend to buy."""

from __future__ import annotations

import click

from actors.commands.database import OPERATOR, in_transaction
from actors.commands.parameters import NUMBER
from db.orders import cancel_order
from db.tx import Tx
from runtime.cli.options import config_option, json_option
from runtime.cli.output import emit


@click.group()
def orders() -> None:
    """Cancel orders."""


@orders.command()
@click.argument("number", type=NUMBER)
@config_option
@json_option
@click.pass_context
def cancel(ctx: click.Context, number: int, as_json: bool) -> None:
    """Cancel the unpaid order NUMBER, so that its promo code is free again; a payment that still comes is credited."""

    async def run(tx: Tx) -> bool:
        return await cancel_order(tx, number, actor=OPERATOR)

    changed = in_transaction(ctx, "orders.cancel", run)
    was = "is cancelled" if changed else "was cancelled or had expired before; nothing was changed"
    emit({"order": number, "changed": changed}, as_json, lambda: f"order {number} {was}")
