"""`atlas withdrawals …`: money that customers want paid out."""

from __future__ import annotations

from typing import cast

import attrs
import click

from actors.commands.database import in_session, in_transaction
from actors.commands.parameters import KOPECKS, NAME, NUMBER, PAGE_SIZE, REASON, TELEGRAM_ID
from actors.sealing import open_seal
from db.billing.withdrawal_sources import MoneySources, money_sources
from db.billing.withdrawals import (
    Withdrawal,
    WithdrawalState,
    approve_withdrawal,
    confirm_withdrawal,
    find_withdrawal,
    lacks_confirmation,
    list_withdrawals,
    open_destination,
    reject_withdrawal,
    request_withdrawal,
    seal_destinations,
)
from db.driver.connection import SessionLimits
from db.driver.session import Session
from db.embedded import EmbeddedSettings
from db.money import Money
from db.settings import WithdrawalSettings
from db.tx import Tx
from db.work.audit import act_as, record_audit
from db.work.sealing import Seal
from runtime.cli import acting_operator, config_option, emit, json_option, load_config, table
from runtime.config import Config
from runtime.operators import Role
from runtime.wording import moment

_PAGE = 100


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
    data = [_data(one, one.destination) for one in found]
    headers = ("withdrawal", "customer", "amount", "to", "state", "since")
    rows = [(one.id, one.telegram_id, one.amount, one.destination, one.state, moment(one.created_at)) for one in found]
    emit(data, as_json, lambda: table(headers, rows) or f"no withdrawal is {state}")


@attrs.frozen
class _Shown:
    found: Withdrawal
    destination: str
    is_whole: bool
    sources: MoneySources
    lacks_second: bool


@withdrawals.command()
@click.argument("number", type=NUMBER)
@config_option
@json_option
@click.pass_context
def show(ctx: click.Context, number: int, as_json: bool) -> None:
    """Show withdrawal NUMBER and where its money came from; the role money sees the destination in full.

    That it was opened, and by whom, is kept in the audit trail.
    """
    who, config = acting_operator(ctx), load_config(ctx)
    above = _second_above(config)
    sees_all = who.role is not None and who.role.includes(Role.MONEY)

    async def run(tx: Tx) -> _Shown:
        found = await find_withdrawal(tx, number)
        where = found.destination
        if sees_all:
            where = await open_destination(tx, number, _seal(config), actor=who.actor)
        lacks = found.state == "reserved" and lacks_confirmation(found, who.actor, above)
        return _Shown(found, where, sees_all, await money_sources(tx, found.customer_id), lacks)

    shown = in_transaction(ctx, "withdrawals.show", run)
    emit(
        _data(shown.found, shown.destination)
        | {"needs_confirmation": shown.lacks_second}
        | _sources_data(shown.sources),
        as_json,
        lambda: _whole_text(shown),
    )


def _whole_text(shown: _Shown) -> str:
    lines = [_sentence(shown.found)]
    lines.append(f"to: {shown.destination}{'' if shown.is_whole else ' (the role money sees all of it)'}")
    if shown.lacks_second:
        lines.append(f"another operator confirms it before it is paid: atlas withdrawals confirm {shown.found.id}")
    return "\n".join([*lines, _sources_text(shown.sources)])


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
    config = load_config(ctx)  # takes a while: not while a transaction is open

    async def run(tx: Tx) -> Withdrawal:
        return await request_withdrawal(
            tx,
            telegram_id,
            Money(amount),
            destination=destination,
            idempotency_key=key,
            actor=acting_operator(ctx).actor,
            seal=_seal(config),
        )

    _show(in_transaction(ctx, "withdrawals.request", run), as_json)


@withdrawals.command()
@click.argument("number", type=NUMBER)
@config_option
@json_option
@click.pass_context
def confirm(ctx: click.Context, number: int, as_json: bool) -> None:
    """Agree that another operator pays out withdrawal NUMBER, after a look at where its money came from.

    Needed above `withdrawals.second_operator_above`. Repeating it changes nothing.
    """

    async def run(tx: Tx) -> tuple[Withdrawal, MoneySources]:
        found = await confirm_withdrawal(tx, number, actor=acting_operator(ctx).actor)
        return found, await money_sources(tx, found.customer_id)

    _show_with_sources(*in_transaction(ctx, "withdrawals.confirm", run), as_json)


@withdrawals.command()
@click.argument("number", type=NUMBER)
@click.option("--reference", type=NAME, required=True, help="What the payment out is called where it was made.")
@config_option
@json_option
@click.pass_context
def approve(ctx: click.Context, number: int, reference: str, as_json: bool) -> None:
    """Record that withdrawal NUMBER has been paid out. Repeating it changes nothing.

    Above `withdrawals.second_operator_above` another operator has to confirm it before (`atlas withdrawals confirm`).
    """
    above = _second_above(load_config(ctx))

    async def run(tx: Tx) -> tuple[Withdrawal, MoneySources]:
        found = await approve_withdrawal(
            tx, number, actor=acting_operator(ctx).actor, reference=reference, second_above=above
        )
        return found, await money_sources(tx, found.customer_id)

    _show_with_sources(*in_transaction(ctx, "withdrawals.approve", run), as_json)


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


@withdrawals.command()
@config_option
@json_option
@click.pass_context
def seal(ctx: click.Context, as_json: bool) -> None:
    """Seal the destinations that lie in clear from before, and rewrite their table, so that the clear text leaves its files.

    Housekeeping seals them by itself; only this rewrites the table at once, which locks it for a moment. Write-ahead logs and
    backups from before still hold them. It may be stopped and begun again.
    """
    opened = _seal(load_config(ctx))

    async def use(session: Session) -> int:
        async def page(tx: Tx) -> int:
            await act_as(tx, acting_operator(ctx))
            count = await seal_destinations(tx, lambda: opened, _PAGE)
            if count:
                details = {"sealed": count, "key": opened.fingerprint}
                await record_audit(tx, acting_operator(ctx).actor, "seal_destinations", details=details)
            return count

        total = 0
        while count := await session.run("withdrawals.seal", page, within=30.0):
            total += count
        await session.statements.execute("VACUUM (FULL) withdrawals")
        return total

    total = in_session(ctx, use, SessionLimits(statement=300.0))
    words = (
        f"{total} destinations were sealed with key {opened.fingerprint}" if total else "no destination lies in clear"
    )
    emit({"sealed": total, "key": opened.fingerprint}, as_json, lambda: words)


def _seal(config: Config) -> Seal:
    return open_seal(config.section(WithdrawalSettings), config.section(EmbeddedSettings))


def _second_above(config: Config) -> Money | None:
    """From which sum on a second operator is needed; None where no operators are declared, who could be the second one."""
    return Money(config.section(WithdrawalSettings).second_operator_above) if config.operators else None


def _show_with_sources(found: Withdrawal, sources: MoneySources, as_json: bool) -> None:
    data = _data(found, found.destination) | _sources_data(sources)
    emit(data, as_json, lambda: f"{_sentence(found)}\n{_sources_text(sources)}")


def _sources_data(sources: MoneySources) -> dict[str, object]:
    return {
        "sources": {kind: amount.amount for kind, amount in sources.by_kind.items()},
        "rewards_by_buyer": [
            {
                "telegram_id": one.telegram_id,
                "rewards": one.rewards,
                "earned": one.earned.amount,
                "taken_back": one.taken_back.amount,
                "first_at": one.first_at.isoformat(),
                "last_at": one.last_at.isoformat(),
            }
            for one in sources.buyers
        ],
    }


def _sources_text(sources: MoneySources) -> str:
    booked = table(
        ("booked on the balance", "in all"),
        [(kind.replace("_", " "), sources.by_kind[kind]) for kind in sources.by_kind],
    )
    rows = [
        (
            one.telegram_id,
            one.rewards,
            one.earned,
            one.taken_back or "",
            moment(one.first_at),
            moment(one.last_at),
        )
        for one in sources.buyers
    ]
    earned = table(("rewarded for", "payments", "earned", "taken back", "first", "last"), rows)
    return f"\n{booked}\n\n{earned or 'nothing of it was earned by rewards'}"


def _show(found: Withdrawal, as_json: bool) -> None:
    emit(_data(found, found.destination), as_json, lambda: _sentence(found))


def _sentence(found: Withdrawal) -> str:
    confirmed = f", confirmed by {', '.join(found.confirmed_by)}" if found.confirmed_by else ""
    words = {"reserved": f"waits to be paid out{confirmed}", "paid": f"was paid out ({found.reference})"}
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
        "confirmed_by": list(found.confirmed_by),
    }
