"""`atlas promo …`: promo codes."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from actors.commands.database import in_transaction
from actors.commands.parameters import NAME, PERCENT, USES
from db.billing.promos import Promo, add_promo, list_promos, stop_promo
from db.tx import Tx
from runtime.cli import acting_operator, config_option, emit, json_option, table
from runtime.wording import moment


@click.group()
def promo() -> None:
    """Add, list and stop promo codes."""


@promo.command()
@click.argument("code", type=NAME)
@click.argument("percent", type=PERCENT)
@click.option("--max-uses", type=USES, help="How many orders may use it in all. Default: any number.")
@click.option("--until", type=click.DateTime(), help="When it ends, in UTC, such as 2030-01-31 or 2030-01-31T12:00:00.")
@config_option
@json_option
@click.pass_context
def add(
    ctx: click.Context, code: str, percent: int, max_uses: int | None, until: datetime | None, as_json: bool
) -> None:
    """Add CODE, which takes PERCENT off, once per customer. Repeating it changes nothing."""
    valid_until = None if until is None else until.replace(tzinfo=UTC)

    async def run(tx: Tx) -> Promo:
        return await add_promo(
            tx, code, percent, max_uses=max_uses, valid_until=valid_until, actor=acting_operator(ctx).actor
        )

    found = in_transaction(ctx, "promo.add", run)
    emit(_data(found), as_json, lambda: f"promo code {found.code} takes {found.percent} % off")


@promo.command("list")
@config_option
@json_option
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """All codes with how often they were used and how many open orders hold them."""

    async def run(tx: Tx) -> list[Promo]:
        return list(await list_promos(tx))

    found = in_transaction(ctx, "promo.list", run)
    rows = [
        (
            one.code,
            f"{one.percent} %",
            one.uses,
            one.reserved,
            one.max_uses or "any number",
            "ever" if one.valid_until is None else moment(one.valid_until),
        )
        for one in found
    ]
    headers = ("code", "off", "used", "held", "of", "until")
    emit([_data(one) for one in found], as_json, lambda: table(headers, rows) or "there are no promo codes")


@promo.command()
@click.argument("code", type=NAME)
@config_option
@json_option
@click.pass_context
def stop(ctx: click.Context, code: str, as_json: bool) -> None:
    """End CODE now. Orders that hold it keep their price; repeating it changes nothing."""

    async def run(tx: Tx) -> bool:
        return await stop_promo(tx, code, actor=acting_operator(ctx).actor)

    changed = in_transaction(ctx, "promo.stop", run)
    was = "has ended" if changed else "had ended before; nothing was changed"
    emit({"code": code.lower(), "changed": changed}, as_json, lambda: f"promo code {code.lower()} {was}")


def _data(found: Promo) -> dict[str, object]:
    return {
        "code": found.code,
        "percent": found.percent,
        "uses": found.uses,
        "reserved": found.reserved,
        "max_uses": found.max_uses,
        "valid_until": None if found.valid_until is None else found.valid_until.isoformat(),
    }
