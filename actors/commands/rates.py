"""`atlas rates`: what assets are worth, and setting it by hand."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

import click

from actors.commands.database import in_transaction
from actors.commands.parameters import NAME
from db.billing.pricing import Rate, list_rates, set_rate
from db.errors import BusinessError
from db.tx import Tx
from runtime.cli import acting_operator, config_option, emit, json_option, table


@click.group()
def rates() -> None:
    """Show and set what assets are worth in roubles, for providers whose rate is "table"."""


@rates.command("list")
@config_option
@json_option
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """Show the newest rate of each asset, who said so, and how old it is."""
    found = in_transaction(ctx, "rates.list", list_rates)
    rows = [(rate.asset, f"{rate.value.normalize():f}", rate.source, f"{rate.age:.0f} s") for rate in found]
    emit(
        [_fields(rate) for rate in found],
        as_json,
        lambda: table(("asset", "roubles for one", "by", "age"), rows) or "no asset has a rate",
    )


@rates.command("set")
@click.argument("asset", type=NAME)
@click.argument("rate", type=NAME)
@config_option
@json_option
@click.pass_context
def set_(ctx: click.Context, asset: str, rate: str, as_json: bool) -> None:
    """Set the roubles for one whole unit of ASSET to RATE, such as 92.50; it ages as any other rate does."""
    try:
        value = Decimal(rate)
    except InvalidOperation:
        raise BusinessError(
            f"a rate is a decimal number such as 92.50, not {rate[:40]!r}; nothing was changed"
        ) from None

    async def run(tx: Tx) -> Rate:
        return await set_rate(tx, asset.upper(), value, actor=acting_operator(ctx).actor)

    done = in_transaction(ctx, "rates.set", run)
    emit(_fields(done), as_json, lambda: f"one {done.asset} is {done.value.normalize():f} RUB")


def _fields(rate: Rate) -> dict[str, object]:
    return {
        "asset": rate.asset,
        "rate": f"{rate.value.normalize():f}",
        "source": rate.source,
        "taken_at": rate.taken_at.isoformat(),
        "age_seconds": round(rate.age, 3),
    }
