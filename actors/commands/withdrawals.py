"""`atlas withdrawals …`: money that customers want paid out."""

from __future__ import annotations

from typing import cast

import click

from actors.commands.database import in_transaction
from actors.commands.parameters import KOPECKS, NAME, NUMBER, PAGE_SIZE, REASON, TELEGRAM_ID
from db.billing.withdrawals import (
    Withdrawal,
    WithdrawalState,
    approve_withdrawal,
    find_withdrawal,
    list_withdrawals,
    masked,
    reject_withdrawal,
    request_withdrawal,
)
from db.money import Money
from db.tx import Tx
from runtime.cli import acting_operator, config_option, emit, json_option, table


@click.group()
def withdrawals() -> None:
    """List, approve and reject withdrawals."""


@withdrawals.command("list")
@click.option(
    "--state",
    type=click.Choice(["reserved", "paid", "rejected", "all"]),
    default="reserved",
    show_default=True,
    help="Only these.",
)
@click.option("--limit", type=PAGE_SIZE, default=100, show_default=True, help="At most so many.")
@config_option
@json_option
@click.pass_context
def list_(ctx: click.Context, state: str, limit: int, as_json: bool) -> None:
    """Withdrawals, the oldest first; destinations are shown by their last four characters."""
    wanted = None if state == "all" else cast("WithdrawalState", state)

    async def run(tx: Tx) -> list[Withdrawal]:
        return list(await list_withdrawals(tx, wanted, limit))

    found = in_transaction(ctx, "withdrawals.list", run)
    data = [_data(one, masked(one.destination)) for one in found]
    headers = ("withdrawal", "customer", "amount", "to", "state", "since")
    rows = [
        (one.id, one.telegram_id, one.amount, masked(one.destination), one.state, f"{one.created_at:%Y-%m-%d %H:%M}")
        for one in found
    ]
    emit(data, as_json, lambda: table(headers, rows) or f"no withdrawal is {state}")


@withdrawals.command()
@click.argument("number", type=NUMBER)
@config_option
@json_option
@click.pass_context
def show(ctx: click.Context, number: int, as_json: bool) -> None:
    """Show withdrawal NUMBER with its destination in full, for whoever pays it out."""
    found = in_transaction(ctx, "withdrawals.show", find_withdrawal, number)
    emit(_data(found, found.destination), as_json, lambda: f"{_sentence(found)}\nto: {found.destination}")


@withdrawals.command()
@click.argument("telegram_id", type=TELEGRAM_ID)
@click.argument("amount", type=KOPECKS)
@click.option("--to", "destination", type=NAME, required=True, help="Where the money goes: a card, a wallet.")
@click.option("--key", type=NAME, required=True, help="What makes a repetition the same withdrawal.")
@config_option
@json_option
@click.pass_context
def request(ctx: click.Context, telegram_id: int, amount: int, destination: str, key: str, as_json: bool) -> None:
    """Reserve AMOUNT kopecks of the balance of customer TELEGRAM_ID to be paid out, 500 RUB or more."""

    async def run(tx: Tx) -> Withdrawal:
        return await request_withdrawal(
            tx,
            telegram_id,
            Money(amount),
            destination=destination,
            idempotency_key=key,
            actor=acting_operator(ctx).actor,
        )

    _show(in_transaction(ctx, "withdrawals.request", run), as_json)


@withdrawals.command()
@click.argument("number", type=NUMBER)
@click.option("--reference", type=NAME, required=True, help="What the payment out is called where it was made.")
@config_option
@json_option
@click.pass_context
def approve(ctx: click.Context, number: int, reference: str, as_json: bool) -> None:
    """Record that withdrawal NUMBER has been paid out. Repeating it changes nothing."""

    async def run(tx: Tx) -> Withdrawal:
        return await approve_withdrawal(tx, number, actor=acting_operator(ctx).actor, reference=reference)

    _show(in_transaction(ctx, "withdrawals.approve", run), as_json)


@withdrawals.command()
@click.argument("number", type=NUMBER)
@click.option("--reason", type=REASON, required=True, help="Why; the customer reads it.")
@config_option
@json_option
@click.pass_context
def reject(ctx: click.Context, number: int, reason: str, as_json: bool) -> None:
    """Give the money of withdrawal NUMBER back to the balance. Repeating it changes nothing."""

    async def run(tx: Tx) -> Withdrawal:
        return await reject_withdrawal(tx, number, actor=acting_operator(ctx).actor, reason=reason)

    _show(in_transaction(ctx, "withdrawals.reject", run), as_json)


def _show(found: Withdrawal, as_json: bool) -> None:
    emit(_data(found, masked(found.destination)), as_json, lambda: _sentence(found))


def _sentence(found: Withdrawal) -> str:
    words = {"reserved": "waits to be paid out", "paid": f"was paid out ({found.reference})"}
    state = words.get(found.state, f"was rejected ({found.reason}); the money is back on the balance")
    return f"withdrawal {found.id}: {found.amount} of customer {found.telegram_id} {state}"


def _data(found: Withdrawal, destination: str) -> dict[str, object]:
    return {
        "withdrawal": found.id,
        "telegram_id": found.telegram_id,
        "amount": found.amount.amount,
        "currency": found.amount.currency,
        "destination": destination,
        "state": found.state,
        "created_at": found.created_at.isoformat(),
        "settled_at": None if found.settled_at is None else found.settled_at.isoformat(),
        "settled_by": found.settled_by,
        "reference": found.reference,
        "reason": found.reason,
    }
