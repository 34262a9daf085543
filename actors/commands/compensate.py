"""`atlas compensate`: credit what was paid for and not delivered."""

from __future__ import annotations

import click

from actors.commands.database import OPERATOR, in_transaction
from actors.commands.parameters import REASON, TELEGRAM_ID
from db.compensation import Compensation
from db.compensation import compensate as compensate_subscription
from db.errors import BusinessError
from db.subscriptions import get_subscription
from db.tx import Tx
from runtime.cli.options import config_option, json_option
from runtime.cli.output import emit


@click.command()
@click.argument("telegram_id", type=TELEGRAM_ID)
@click.option("--reason", type=REASON, required=True, help="Why; the customer reads it.")
@config_option
@json_option
@click.pass_context
def compensate(ctx: click.Context, telegram_id: int, reason: str, as_json: bool) -> None:
    """Credit customer TELEGRAM_ID for the paid time that was not delivered, and end the access.

    Done by itself when a key cannot be activated. Repeating it finds nothing left and changes nothing.
    """

    async def run(tx: Tx) -> Compensation:
        found = await get_subscription(tx, telegram_id)
        if found is None:
            raise BusinessError(f"customer {telegram_id} never had a subscription")
        return await compensate_subscription(tx, found.id, reason=reason, actor=OPERATOR)

    done = in_transaction(ctx, "compensate", run)
    data = {"telegram_id": telegram_id, "amount": done.amount.amount, "journal": done.journal_id}
    emit(data, as_json, lambda: _sentence(done, telegram_id))


def _sentence(done: Compensation, telegram_id: int) -> str:
    if not done.amount:
        return f"customer {telegram_id} has no paid time left that was not delivered; nothing was changed"
    return f"customer {telegram_id} was credited {done.amount}; the access has ended"
