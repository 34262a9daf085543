"""`atlas cases …`: what waits for a human."""

from __future__ import annotations

from typing import cast

import click

from actors.commands.database import in_transaction
from actors.commands.parameters import KOPECKS, NUMBER, PAGE_SIZE, PAGE_START, REASON, TELEGRAM_ID
from db.billing.cases import Case, CaseState, close_case, credit_case, find_case, list_cases
from db.money import Money
from db.tx import Tx
from runtime.cli import acting_operator, config_option, emit, json_option, table
from runtime.wording import moment


@click.group()
def cases() -> None:
    """List and settle cases: what the rules cannot settle by themselves."""


@cases.command("list")
@click.option(
    "--state", type=click.Choice(["open", "closed", "all"]), default="open", show_default=True, help="Only these."
)
@click.option("--after", type=PAGE_START, default=0, help="Only cases with a higher number: where the last page ended.")
@click.option("--limit", type=PAGE_SIZE, default=50, show_default=True, help="At most so many.")
@config_option
@json_option
@click.pass_context
def list_(ctx: click.Context, state: str, after: int, limit: int, as_json: bool) -> None:
    """Cases with what they hold, the oldest first."""
    wanted = None if state == "all" else cast("CaseState", state)

    async def run(tx: Tx) -> list[Case]:
        return list(await list_cases(tx, wanted, after, limit))

    found = in_transaction(ctx, "cases.list", run)
    rows = [
        (
            one.id,
            one.kind,
            one.details.get("why", "") or one.subject,
            one.stated or one.captured or "",
            one.suspended or "",
            one.telegram_id or "",
            one.state,
            moment(one.opened_at),
        )
        for one in found
    ]
    headers = ("case", "kind", "about", "captured", "held", "customer", "state", "since")
    emit([_data(one) for one in found], as_json, lambda: table(headers, rows) or f"no case is {state}")


@cases.command()
@click.argument("number", type=NUMBER)
@config_option
@json_option
@click.pass_context
def show(ctx: click.Context, number: int, as_json: bool) -> None:
    """Show case NUMBER with all that is known, and what can be done about it."""
    found = in_transaction(ctx, "cases.show", find_case, number)
    emit(_data(found), as_json, lambda: _text(found))


@cases.command()
@click.argument("number", type=NUMBER)
@click.option("--resolution", type=REASON, required=True, help="How it was settled, for whoever asks later.")
@config_option
@json_option
@click.pass_context
def close(ctx: click.Context, number: int, resolution: str, as_json: bool) -> None:
    """Close case NUMBER. One that holds money is credited or refunded instead. Repeating it changes nothing."""

    async def run(tx: Tx) -> Case:
        return await close_case(tx, number, resolution=resolution, actor=acting_operator(ctx).actor)

    found = in_transaction(ctx, "cases.close", run)
    emit(_data(found), as_json, lambda: f"case {number} is closed: {found.resolution}")


@cases.command()
@click.argument("number", type=NUMBER)
@click.argument("telegram_id", type=TELEGRAM_ID)
@click.option(
    "--amount",
    type=KOPECKS,
    help="Kopecks, or roubles as 149.00; only for a charge whose value in roubles is not known.",
)
@config_option
@json_option
@click.pass_context
def credit(ctx: click.Context, number: int, telegram_id: int, amount: int | None, as_json: bool) -> None:
    """Give the money of case NUMBER to the balance of customer TELEGRAM_ID, and close it."""
    value = None if amount is None else Money(amount)

    async def run(tx: Tx) -> Case:
        return await credit_case(tx, number, telegram_id, actor=acting_operator(ctx).actor, amount=value)

    found = in_transaction(ctx, "cases.credit", run)
    emit(_data(found), as_json, lambda: f"case {number} is closed: {found.resolution}")


def _text(found: Case) -> str:
    rows = [
        ("case", str(found.id)),
        ("kind", found.kind),
        ("about", found.subject),
        ("state", found.state),
        ("since", moment(found.opened_at)),
    ]
    if found.telegram_id is not None:
        rows.append(("customer", str(found.telegram_id)))
    if found.captured is not None:
        rows += [
            ("charge", found.charge or ""),
            ("captured", found.stated or str(found.captured)),
            ("held", str(found.suspended)),
        ]
    rows += [(name, str(value)) for name, value in found.details.items() if value not in (None, "")]
    if found.state == "closed":
        rows += [
            ("closed", f"{moment(found.closed_at)} by {found.closed_by}"),
            ("how", found.resolution or ""),
        ]
    elif found.captured is None:
        rows.append(("next", f"atlas cases close {found.id} --resolution …"))
    else:
        provider, charge_id = (found.charge or " ").split(" ", 1)
        rows.append(("next", f"atlas cases credit {found.id} CUSTOMER"))
        rows.append(("or", f"atlas refund --provider {provider} --charge {charge_id}"))
    width = max(len(label) for label, _ in rows) + 2
    return "\n".join(f"{label:<{width}}{value}" for label, value in rows)


def _data(found: Case) -> dict[str, object]:
    return {
        "case": found.id,
        "kind": found.kind,
        "subject": found.subject,
        "state": found.state,
        "opened_at": found.opened_at.isoformat(),
        "closed_at": None if found.closed_at is None else found.closed_at.isoformat(),
        "closed_by": found.closed_by,
        "resolution": found.resolution,
        "telegram_id": found.telegram_id,
        "money_in": found.money_in_id,
        "charge": found.charge,
        "captured": None if found.captured is None else found.captured.amount,
        "asset": None if found.captured is None else found.captured.currency,
        "held": found.suspended.amount,
        "details": dict(found.details),
    }
