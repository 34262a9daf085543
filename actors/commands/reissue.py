"""`atlas reissue`: another key and link for a customer, for example because the old one leaked."""

from __future__ import annotations

from uuid import uuid4

import click

from actors.commands.database import OPERATOR, in_transaction
from actors.commands.parameters import NAME, TELEGRAM_ID
from db.reissue import request_reissue
from db.tx import Tx
from runtime.cli.options import config_option, json_option
from runtime.cli.output import emit


@click.command()
@click.argument("telegram_id", type=TELEGRAM_ID)
@click.option(
    "--idempotency-key",
    type=NAME,
    help="Repeating the command with the same key is one reissue. Default: every call is its own.",
)
@config_option
@json_option
@click.pass_context
def reissue(ctx: click.Context, telegram_id: int, idempotency_key: str | None, as_json: bool) -> None:
    """Give customer TELEGRAM_ID another key and link; the end of the subscription does not move.

    The old link works until the new one is confirmed on every node; then it is cut. `atlas subscription` shows the link that
    works. Refused (65) if no subscription runs.
    """
    name = idempotency_key or f"operator:{uuid4().hex}"

    async def run(tx: Tx) -> str:
        return await request_reissue(tx, telegram_id, actor=OPERATOR, idempotency_key=name)

    key_id = in_transaction(ctx, "reissue", run)
    data = {"telegram_id": telegram_id, "key": key_id, "idempotency_key": name}
    emit(
        data,
        as_json,
        lambda: (
            f"customer {telegram_id} gets key {key_id}; the old link works until the new one is on every node\n"
            f"`atlas subscription {telegram_id}` shows the link"
        ),
    )
