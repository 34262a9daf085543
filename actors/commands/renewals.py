"""`atlas renewals …`, `atlas auto-renew`: what will be bought again from customers' balances, and for whom."""

from __future__ import annotations

from datetime import datetime
from typing import cast

import click

from actors.commands.database import in_transaction
from actors.commands.parameters import PAGE_SIZE, TELEGRAM_ID
from db.billing.renewal_schedule import RenewalState, ScheduledRenewal, list_renewals
from db.billing.renewals import RenewalAttempt, RenewalResult, renew_now, set_auto_renew
from db.tx import Tx
from runtime.cli import acting_operator, config_option, emit, json_option, table
from runtime.wording import moment


@click.group()
def renewals() -> None:
    """List automatic renewals, or try one now. `atlas auto-renew` switches them on and off."""


@renewals.command("list")
@click.option(
    "--state",
    type=click.Choice(["due", "lacks_funds", "off", "missed", "failed", "all"]),
    default="all",
    show_default=True,
    help="Only these.",
)
@click.option("--customer", "telegram_id", type=TELEGRAM_ID, help="Only of the customer with this Telegram id.")
@click.option("--limit", type=PAGE_SIZE, default=50, show_default=True, help="At most so many.")
@config_option
@json_option
@click.pass_context
def list_(ctx: click.Context, state: str, telegram_id: int | None, limit: int, as_json: bool) -> None:
    """Renewals with when they are tried next and what became of them, the soonest first."""
    wanted = None if state == "all" else cast("RenewalState", state)

    async def run(tx: Tx) -> list[ScheduledRenewal]:
        return list(await list_renewals(tx, wanted, telegram_id, limit))

    found = in_transaction(ctx, "renewals.list", run)
    rows = [
        (
            one.telegram_id,
            f"{one.tariff} {one.days} d",
            moment(one.period_start),
            one.state,
            "" if one.due_at is None else moment(one.due_at),
            one.tries or "",
            one.failures or "",
            one.last_error or "",
        )
        for one in found
    ]
    headers = ("customer", "plan", "from", "state", "tried at", "lacked money", "failed", "why")
    emit([_data(one) for one in found], as_json, lambda: table(headers, rows) or "there are no such renewals")


@renewals.command()
@click.argument("telegram_id", type=TELEGRAM_ID)
@click.option(
    "--from",
    "starts",
    type=click.DateTime(["%Y-%m-%d"]),
    required=True,
    help="The day on which the period starts, in UTC, as `atlas renewals list` shows it.",
)
@config_option
@json_option
@click.pass_context
def now(ctx: click.Context, telegram_id: int, starts: datetime, as_json: bool) -> None:
    """Buy the next period of customer TELEGRAM_ID from the balance now, instead of shortly before the end.

    Also tries one again that failed. A period is bought once: repeating it changes nothing.
    """

    async def run(tx: Tx) -> RenewalAttempt:
        return await renew_now(tx, telegram_id, starts.date(), actor=acting_operator(ctx).actor)

    attempt = in_transaction(ctx, "renewals.now", run)
    outcome = attempt.outcome
    data = {
        "telegram_id": telegram_id,
        "result": outcome.result.value,
        "replayed": attempt.replayed,
        "price": None if outcome.price is None else outcome.price.amount,
        "expires_at": None if outcome.expires_at is None else outcome.expires_at.isoformat(),
        "next_try": None if outcome.next_try is None else outcome.next_try.isoformat(),
    }
    emit(data, as_json, lambda: _sentence(attempt, telegram_id))


def _sentence(attempt: RenewalAttempt, telegram_id: int) -> str:
    outcome = attempt.outcome
    if outcome.result is RenewalResult.RENEWED:
        again = " (renewed before; nothing was changed)" if attempt.replayed else ""
        until = moment(outcome.expires_at)
        return f"customer {telegram_id} paid {outcome.price} and has access until {until}{again}"
    if outcome.result is RenewalResult.LACKS_FUNDS:
        again = f"it is tried again at {moment(outcome.next_try)}"
        return f"the balance of customer {telegram_id} does not cover {outcome.price}; nothing was debited, {again}"
    return f"customer {telegram_id} was not renewed ({outcome.result.value}); nothing was debited"


def _data(one: ScheduledRenewal) -> dict[str, object]:
    return {
        "telegram_id": one.telegram_id,
        "tariff": one.tariff,
        "days": one.days,
        "period_start": one.period_start.isoformat(),
        "state": one.state,
        "due_at": None if one.due_at is None else one.due_at.isoformat(),
        "tries": one.tries,
        "failures": one.failures,
        "last_error": one.last_error,
    }


@click.command(name="auto-renew")
@click.argument("telegram_id", type=TELEGRAM_ID)
@click.argument("switch", type=click.Choice(["on", "off"]))
@config_option
@json_option
@click.pass_context
def auto_renew(ctx: click.Context, telegram_id: int, switch: str, as_json: bool) -> None:
    """Switch the automatic renewal of customer TELEGRAM_ID on or off.

    The plan bought last is bought again from the balance, at the price of that day, first tried 6 hours before the end.
    Repeating it changes nothing.
    """
    enabled = switch == "on"

    async def run(tx: Tx) -> bool:
        return await set_auto_renew(tx, telegram_id, enabled, actor=acting_operator(ctx).actor)

    changed = in_transaction(ctx, "auto-renew", run)
    was = f"is {switch} now" if changed else f"was {switch} before; nothing was changed"
    data = {"telegram_id": telegram_id, "auto_renew": enabled, "changed": changed}
    emit(data, as_json, lambda: f"automatic renewal of customer {telegram_id} {was}")
