"""`atlas orders …`: what customers intend to buy."""

from __future__ import annotations

from typing import cast

import click

from actors.commands.database import in_transaction
from actors.commands.parameters import DAYS, NAME, NUMBER, PAGE_SIZE, TELEGRAM_ID, allowance, beyond_option
from db.billing.orders import ListedOrder, Order, OrderState, cancel_order, list_orders, open_order
from db.tx import Tx
from runtime.cli import acting_operator, config_option, emit, json_option, table
from runtime.wording import moment

KEY_PREFIX = "operator"
"""Keys of orders that operators open are apart from those of front ends."""


@click.group()
def orders() -> None:
    """List, open and cancel orders."""


@orders.command("list")
@click.option(
    "--state",
    type=click.Choice(["pending", "paid", "cancelled", "expired", "all"]),
    default="pending",
    show_default=True,
    help="Only these.",
)
@click.option("--customer", "telegram_id", type=TELEGRAM_ID, help="Only of the customer with this Telegram id.")
@click.option("--before", type=NUMBER, help="Only orders with a lower number: where the last page ended.")
@click.option("--limit", type=PAGE_SIZE, default=50, show_default=True, help="At most so many.")
@config_option
@json_option
@click.pass_context
def list_(
    ctx: click.Context, state: str, telegram_id: int | None, before: int | None, limit: int, as_json: bool
) -> None:
    """Orders with their price, promo code and end, the newest first."""
    wanted = None if state == "all" else cast("OrderState", state)

    async def run(tx: Tx) -> list[ListedOrder]:
        return list(await list_orders(tx, wanted, telegram_id, before, limit))

    found = in_transaction(ctx, "orders.list", run)
    rows = [
        (
            one.order.id,
            one.telegram_id,
            _plan(one.order),
            one.order.price,
            "" if one.order.quote.amount == one.order.price else one.order.quote.amount,
            one.promo_code or ("" if one.unused_promo is None else f"{one.unused_promo} (not used)"),
            one.order.state if one.paid_from is None else f"{one.order.state} from {one.paid_from}",
            moment(one.order.expires_at),
        )
        for one in found
    ]
    headers = ("order", "customer", "for", "price", "charged", "promo", "state", "payable until")
    emit(
        [
            {
                **_data(one.order),
                "telegram_id": one.telegram_id,
                "promo": one.promo_code,
                "unused_promo": one.unused_promo,
                "discount_percent": one.discount_percent,
                "paid_from": one.paid_from,
                "created_at": one.created_at.isoformat(),
            }
            for one in found
        ],
        as_json,
        lambda: table(headers, rows) or f"no order is {state}",
    )


@orders.command("open")
@click.option("--customer", "telegram_id", type=TELEGRAM_ID, required=True, help="Telegram id of who will pay.")
@click.option("--tariff", type=NAME, required=True, help="What is to be bought, such as basic.")
@click.option("--days", type=DAYS, required=True, help="For how long, such as 30.")
@click.option("--promo", type=NAME, help="A promo code, which the order holds until it is paid or over.")
@click.option("--key", type=NAME, required=True, help="What makes a repetition the same order.")
@beyond_option
@config_option
@json_option
@click.pass_context
def open_(
    ctx: click.Context,
    telegram_id: int,
    tariff: str,
    days: int,
    promo: str | None,
    key: str,
    beyond: bool,
    as_json: bool,
) -> None:
    """Open an order at today's price, payable for 30 minutes. The same --key again shows the first order."""
    allowed = allowance(ctx, beyond)

    async def run(tx: Tx) -> Order:
        name = f"{KEY_PREFIX}:{key}"
        return await open_order(
            tx,
            telegram_id,
            tariff,
            days,
            idempotency_key=name,
            promo_code=promo,
            allowance=allowed,
        )

    found = in_transaction(ctx, "orders.open", run)
    until = moment(found.expires_at)
    emit(
        _data(found) | {"telegram_id": telegram_id},
        as_json,
        lambda: (
            f"order {found.id} ({found.state}): {_plan(found)} for {found.price}, payable until {until}{_kept(found)}"
        ),
    )


@orders.command()
@click.argument("number", type=NUMBER)
@config_option
@json_option
@click.pass_context
def cancel(ctx: click.Context, number: int, as_json: bool) -> None:
    """Cancel the unpaid order NUMBER, so that its promo code is free again; a payment that still comes is credited."""

    async def run(tx: Tx) -> bool:
        return await cancel_order(tx, number, actor=acting_operator(ctx).actor)

    changed = in_transaction(ctx, "orders.cancel", run)
    was = "is cancelled" if changed else "was cancelled or had expired before; nothing was changed"
    emit({"order": number, "changed": changed}, as_json, lambda: f"order {number} {was}")


def _kept(found: Order) -> str:
    return (
        "" if found.unused_promo_id is None else "; the promo code is not used, another discount is as good or better"
    )


def _plan(found: Order) -> str:
    return "a top-up" if found.kind == "topup" else f"{found.tariff} {found.days} d"


def _data(found: Order) -> dict[str, object]:
    return {
        "order": found.id,
        "kind": found.kind,
        "tariff": found.tariff,
        "days": found.days,
        "list_price": found.list_price.amount,
        "price": found.price.amount,
        "currency": found.price.currency,
        "charged": found.quote.amount.amount,
        "asset": found.quote.amount.currency,
        "promo_used": None if found.entered_promo_id is None else found.promo_code_id is not None,
        "state": found.state,
        "expires_at": found.expires_at.isoformat(),
    }
