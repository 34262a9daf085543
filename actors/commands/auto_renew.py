"""`atlas auto-renew`: whether a customer's plan is bought again from the balance."""

from __future__ import annotations

import click

from actors.commands.database import OPERATOR, in_transaction
from actors.commands.parameters import TELEGRAM_ID
from db.renewals import set_auto_renew
from db.tx import Tx
from runtime.cli.options import config_option, json_option
from runtime.cli.output import emit


@click.command(name="auto-renew")
@click.argument("telegram_id", type=TELEGRAM_ID)
@click.argument("switch", type=click.Choice(["on", "off"]))
@config_option
@json_option
@click.pass_context
def auto_renew(ctx: click.Context, telegram_id: int, switch: str, as_json: bool) -> None:
    """Switch the automatic renewal of customer TELEGRAM_ID on or off.

    The plan bought last is bought again from the balance, at the price of that day, first tried 6 hours before the end.
    Repeating it changes nothing.
    """
    enabled = switch == "on"

    async def run(tx: Tx) -> bool:
        return await set_auto_renew(tx, telegram_id, enabled, actor=OPERATOR)

    changed = in_transaction(ctx, "auto-renew", run)
    was = f"is {switch} now" if changed else f"was {switch} before; nothing was changed"
    data = {"telegram_id": telegram_id, "auto_renew": enabled, "changed": changed}
    emit(data, as_json, lambda: f"automatic renewal of customer {telegram_id} {was}")
