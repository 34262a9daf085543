"""`atlas topup`: record a top-up that an operator saw."""

from __future__ import annotations

import click

from actors.commands.buy import outcome_data, outcome_sentence
from actors.commands.database import OPERATOR, in_transaction
from actors.commands.parameters import KOPECKS, NAME, PROVIDER, TELEGRAM_ID
from db.money import Money
from db.purchases import PurchaseOutcome, record_manual_topup
from db.tx import Tx
from runtime.cli.options import config_option, json_option
from runtime.cli.output import emit


@click.command()
@click.option("--customer", "telegram_id", type=TELEGRAM_ID, required=True, help="Telegram id of who paid.")
@click.option("--provider", type=PROVIDER, required=True, help="Who captured the money, such as manual.")
@click.option(
    "--charge",
    "charge_id",
    type=NAME,
    required=True,
    help="The provider's id of the charge; the same id is the same money.",
)
@click.option("--amount", type=KOPECKS, required=True, help="What was captured, in kopecks.")
@config_option
@json_option
@click.pass_context
def topup(ctx: click.Context, telegram_id: int, provider: str, charge_id: str, amount: int, as_json: bool) -> None:
    """Record a captured payment that tops up a balance, from 100 to 100 000 RUB.

    Repeating a charge returns its first outcome.
    """

    async def run(tx: Tx) -> PurchaseOutcome:
        return await record_manual_topup(tx, telegram_id, provider, charge_id, Money(amount), actor=OPERATOR)

    outcome = in_transaction(ctx, "topup", run)
    emit(outcome_data(outcome), as_json, lambda: outcome_sentence(outcome, telegram_id))
