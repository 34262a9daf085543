"""`atlas buy-from-balance`: buy a plan with money that has come in before."""

from __future__ import annotations

import click

from actors.commands.database import OPERATOR, in_transaction
from actors.commands.parameters import DAYS, NAME, TELEGRAM_ID
from db.balance_purchases import BalancePurchase, finalize_balance_purchase
from db.tx import Tx
from runtime.cli.options import config_option, json_option
from runtime.cli.output import emit


@click.command("buy-from-balance")
@click.option("--customer", "telegram_id", type=TELEGRAM_ID, required=True, help="Telegram id of whose balance it is.")
@click.option("--tariff", type=NAME, required=True, help="What is bought, such as basic.")
@click.option("--days", type=DAYS, required=True, help="For how long, such as 30.")
@click.option("--promo", type=NAME, help="A promo code.")
@click.option("--key", type=NAME, required=True, help="What makes a repetition the same purchase.")
@config_option
@json_option
@click.pass_context
def buy_from_balance(
    ctx: click.Context, telegram_id: int, tariff: str, days: int, promo: str | None, key: str, as_json: bool
) -> None:
    """Buy a plan from a customer's balance, if it covers the price. The same --key again changes nothing."""

    async def run(tx: Tx) -> BalancePurchase:
        return await finalize_balance_purchase(
            tx, telegram_id, tariff, days, idempotency_key=key, promo_code=promo, actor=OPERATOR
        )

    done = in_transaction(ctx, "buy-from-balance", run)
    data = {
        "order": done.order_id,
        "price": done.price.amount,
        "currency": done.price.currency,
        "expires_at": done.expires_at.isoformat(),
        "key": done.key_id,
        "replayed": done.replayed,
    }
    emit(data, as_json, lambda: _sentence(done, telegram_id))


def _sentence(done: BalancePurchase, telegram_id: int) -> str:
    again = " (bought before; nothing was changed)" if done.replayed else ""
    until = f"{done.expires_at:%Y-%m-%d %H:%M} UTC"
    return f"order {done.order_id}: customer {telegram_id} paid {done.price} and has access until {until}{again}"
