"""`atlas customer …`: who the customers are, and what is known of one."""

from __future__ import annotations

import click

from actors.commands.database import in_transaction
from actors.commands.looking.story import render_story, story_data
from actors.commands.parameters import LANGUAGE, PAGE_SIZE, PERCENT, TELEGRAM_ID
from db.billing.ledger import Purses, purses
from db.billing.pricing import set_personal_discount, set_vip
from db.billing.referrals import ReferralStanding, Withdrawable, referral_standing, withdrawable
from db.customers import Customer, add_customer, find_customer
from db.stories import ListedCustomer, list_customers, read_story
from db.tx import Tx
from runtime.cli import acting_operator, config_option, emit, json_option, table
from runtime.wording import moment


@click.group()
def customer() -> None:
    """Add customers, list them, tell one's whole story, set discounts."""


@customer.command()
@click.argument("telegram_id", type=TELEGRAM_ID)
@click.option("--language", type=LANGUAGE, default="ru", show_default=True, help="Language of notices.")
@click.option("--referrer", type=TELEGRAM_ID, help="Telegram id of who invited them; final once set.")
@config_option
@json_option
@click.pass_context
def add(ctx: click.Context, telegram_id: int, language: str, referrer: int | None, as_json: bool) -> None:
    """Add the customer TELEGRAM_ID. Repeating it changes nothing."""

    async def run(tx: Tx) -> Customer:
        return await add_customer(tx, telegram_id, language=language, referrer_telegram_id=referrer)

    found = in_transaction(ctx, "customer.add", run)
    data = {"telegram_id": found.telegram_id, "language": found.language, "created_at": found.created_at.isoformat()}
    emit(data, as_json, lambda: f"customer {found.telegram_id}, since {moment(found.created_at)}")


@customer.command()
@click.argument("telegram_id", type=TELEGRAM_ID)
@config_option
@json_option
@click.pass_context
def show(ctx: click.Context, telegram_id: int, as_json: bool) -> None:
    """Show balance, discounts and referrals of customer TELEGRAM_ID."""

    async def run(tx: Tx) -> tuple[Customer, Purses, Withdrawable, ReferralStanding]:
        found = await find_customer(tx, telegram_id)
        held, free = await purses(tx, found.id), await withdrawable(tx, found.id)
        return found, held, free, await referral_standing(tx, found.id)

    found, held, free, standing = in_transaction(ctx, "customer.show", run)
    data = {
        "telegram_id": found.telegram_id,
        "balance": held.balance.amount,
        "paid": held.paid.amount,
        "credit": held.credit.amount,
        "earned": held.earned.amount,
        "debt": held.debt.amount,
        "withdrawable": free.amount.amount,
        "currency": held.balance.currency,
        "vip": found.is_vip,
        "personal_discount": found.personal_discount_percent,
        "paying_friends": standing.friends,
        "referral_percent": standing.percent,
        "referral_earned": standing.earned.amount,
        "reachable": found.is_reachable,
        "created_at": found.created_at.isoformat(),
    }
    rows = [
        ("customer", str(found.telegram_id)),
        ("since", moment(found.created_at)),
        ("balance", f"{held.balance}: {held.paid} paid in, {held.credit} credited, {held.earned} earned"),
        ("withdraw", f"{free.amount} now, {free.unmatured} held back"),
        *([("debt", f"{held.debt}, which later rewards pay")] if held.debt else []),
        (
            "discount",
            f"{'VIP, ' if found.is_vip else ''}{found.personal_discount_percent} % personal; the best one applies",
        ),
        ("friends", f"{standing.friends} paying, {standing.percent} % of what they spend, {standing.earned} so far"),
    ]
    emit(data, as_json, lambda: "\n".join(f"{label:<10}{value}" for label, value in rows))


@customer.command("list")
@click.option("--active", is_flag=True, help="Only those whose subscription runs.")
@click.option(
    "--before", type=TELEGRAM_ID, help="Only those who came before the one of this Telegram id: the next page."
)
@click.option("--limit", type=PAGE_SIZE, default=50, show_default=True, help="At most so many.")
@config_option
@json_option
@click.pass_context
def list_(ctx: click.Context, active: bool, before: int | None, limit: int, as_json: bool) -> None:
    """List customers with tariff, end, balance and open cases, the newest first."""

    async def run(tx: Tx) -> list[ListedCustomer]:
        return list(await list_customers(tx, before, limit, active=active))

    found = in_transaction(ctx, "customer.list", run)
    data = [
        {
            "telegram_id": one.telegram_id,
            "created_at": one.created_at.isoformat(),
            "tariff": one.tariff,
            "expires_at": None if one.expires_at is None else one.expires_at.isoformat(),
            "balance": one.balance.amount,
            "currency": one.balance.currency,
            "open_cases": one.open_cases,
        }
        for one in found
    ]
    rows = [
        (
            one.telegram_id,
            moment(one.created_at),
            one.tariff or "-",
            "-" if one.expires_at is None else moment(one.expires_at),
            one.balance,
            one.open_cases or "",
        )
        for one in found
    ]
    headers = ("customer", "since", "tariff", "until", "balance", "open cases")
    emit(data, as_json, lambda: table(headers, rows) or "no customers")


@customer.command()
@click.argument("telegram_id", type=TELEGRAM_ID)
@config_option
@json_option
@click.pass_context
def story(ctx: click.Context, telegram_id: int, as_json: bool) -> None:
    """Tell everything known of customer TELEGRAM_ID: access, keys, charges, orders, journals, cases, notices, audit."""
    found = in_transaction(ctx, "customer.story", read_story, telegram_id, one_snapshot=True)
    emit(story_data(found), as_json, lambda: render_story(found))


@customer.command()
@click.argument("telegram_id", type=TELEGRAM_ID)
@click.argument("on", type=click.Choice(["on", "off"]))
@config_option
@json_option
@click.pass_context
def vip(ctx: click.Context, telegram_id: int, on: str, as_json: bool) -> None:
    """Make customer TELEGRAM_ID a VIP, or not. Open orders keep their price."""

    async def run(tx: Tx) -> bool:
        return await set_vip(tx, telegram_id, on == "on", actor=acting_operator(ctx).actor)

    changed = in_transaction(ctx, "customer.vip", run)
    was = "is" if changed else "was before"
    words = f"customer {telegram_id} {was} {'a VIP' if on == 'on' else 'no VIP'}"
    emit({"telegram_id": telegram_id, "vip": on == "on", "changed": changed}, as_json, lambda: words)


@customer.command()
@click.argument("telegram_id", type=TELEGRAM_ID)
@click.argument("percent", type=PERCENT)
@config_option
@json_option
@click.pass_context
def discount(ctx: click.Context, telegram_id: int, percent: int, as_json: bool) -> None:
    """Set the personal discount of customer TELEGRAM_ID; 0 ends it. Open orders keep their price."""

    async def run(tx: Tx) -> bool:
        return await set_personal_discount(tx, telegram_id, percent, actor=acting_operator(ctx).actor)

    changed = in_transaction(ctx, "customer.discount", run)
    words = f"customer {telegram_id} {'has' if changed else 'had before'} a personal discount of {percent} %"
    emit({"telegram_id": telegram_id, "percent": percent, "changed": changed}, as_json, lambda: words)
