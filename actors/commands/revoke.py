"""`atlas revoke`: end a customer's access now."""

from __future__ import annotations

import click

from actors.commands.database import OPERATOR, in_transaction
from actors.commands.parameters import TELEGRAM_ID
from db.subscriptions import mark_revoked
from db.tx import Tx
from runtime.cli.options import config_option, json_option
from runtime.cli.output import emit


@click.command()
@click.argument("telegram_id", type=TELEGRAM_ID)
@config_option
@json_option
@click.pass_context
def revoke(ctx: click.Context, telegram_id: int, as_json: bool) -> None:
    """End the access of customer TELEGRAM_ID now.

    Marked in the database first; the running supervisor takes the key off its nodes and cuts open connections, usually
    within a second. Repeating it changes nothing.
    """

    async def run(tx: Tx) -> bool:
        return await mark_revoked(tx, telegram_id, actor=OPERATOR)

    changed = in_transaction(ctx, "revoke", run)
    was = "is revoked; its connections are being cut" if changed else "was revoked before; nothing was changed"
    emit({"telegram_id": telegram_id, "changed": changed}, as_json, lambda: f"access of customer {telegram_id} {was}")
