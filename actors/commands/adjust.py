"""`atlas adjust`: correct a customer's balance."""

from __future__ import annotations

import click

from actors.commands.database import OPERATOR, in_transaction
from actors.commands.parameters import NAME, REASON, SIGNED_KOPECKS, TELEGRAM_ID
from db.adjustments import adjust_balance
from db.customers import find_customer
from db.ledger import balance
from db.money import Money
from db.tx import Tx
from runtime.cli.options import config_option, json_option
from runtime.cli.output import emit


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("telegram_id", type=TELEGRAM_ID)
@click.argument("amount", type=SIGNED_KOPECKS)
@click.option("--reason", type=REASON, required=True, help="Why; the customer reads it.")
@click.option(
    "--key", type=NAME, required=True, help="What makes a repetition the same adjustment, such as a ticket's number."
)
@config_option
@json_option
@click.pass_context
def adjust(ctx: click.Context, telegram_id: int, amount: int, reason: str, key: str, as_json: bool) -> None:
    """Add AMOUNT kopecks to the balance of customer TELEGRAM_ID, or take them off if it is negative.

    It is booked apart from what customers pay. The same --key again changes nothing; a balance never falls below zero.
    """

    async def run(tx: Tx) -> tuple[int, Money]:
        journal = await adjust_balance(
            tx, telegram_id, Money(amount), reason=reason, actor=OPERATOR, idempotency_key=key
        )
        return journal, await balance(tx, (await find_customer(tx, telegram_id)).id)

    journal, now = in_transaction(ctx, "adjust", run)
    data = {"journal": journal, "telegram_id": telegram_id, "amount": amount, "balance": now.amount}
    emit(data, as_json, lambda: f"journal {journal}: customer {telegram_id} {Money(amount)}; the balance is {now}")
