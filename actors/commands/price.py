"""`atlas price`: what plans cost."""

from __future__ import annotations

import click

from actors.commands.database import in_transaction
from actors.commands.parameters import DAYS, KOPECKS, NAME
from db.billing.pricing import price_list, set_price
from db.money import Money
from db.tx import Tx
from runtime.cli import acting_operator, config_option, emit, json_option, table


@click.group()
def price() -> None:
    """Show and set what plans cost."""


@price.command("list")
@config_option
@json_option
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """Show every plan that is sold, and its price."""
    found = in_transaction(ctx, "price.list", price_list)
    data = [
        {"tariff": plan.tariff, "days": plan.days, "amount": plan.price.amount, "currency": plan.price.currency}
        for plan in found
    ]
    rows = [(plan.tariff, plan.days, plan.price) for plan in found]
    emit(data, as_json, lambda: table(("tariff", "days", "price"), rows) or "nothing is sold")


@price.command("set")
@click.argument("tariff", type=NAME)
@click.argument("days", type=DAYS)
@click.argument("amount", type=KOPECKS)
@config_option
@json_option
@click.pass_context
def set_(ctx: click.Context, tariff: str, days: int, amount: int, as_json: bool) -> None:
    """Set the price of TARIFF for DAYS to AMOUNT: kopecks, or roubles as 149.00.

    A period that was not sold is sold from now on. Open orders keep their price; a renewal takes the new one.
    """
    wanted = Money(amount)

    async def run(tx: Tx) -> Money | None:
        return await set_price(tx, tariff, days, wanted, actor=acting_operator(ctx).actor)

    before = in_transaction(ctx, "price.set", run)
    data = {
        "tariff": tariff,
        "days": days,
        "amount": amount,
        "currency": wanted.currency,
        "before": None if before is None else before.amount,
        "changed": before != wanted,
    }

    def render() -> str:
        plan = f"{tariff} for {days} days"
        if before == wanted:
            return f"{plan} costs {wanted} already; nothing was changed"
        return f"{plan} costs {wanted}, {'and was not sold before' if before is None else f'before {before}'}"

    emit(data, as_json, render)
