"""`atlas audit`."""

from __future__ import annotations

import json

import click

from actors.commands.database import in_transaction
from actors.commands.parameters import NAME, NUMBER, PAGE_SIZE, TELEGRAM_ID
from db.stories import AuditEntry, read_audit
from db.tx import Tx
from runtime.cli import config_option, emit, json_option, table
from runtime.wording import moment


@click.command()
@click.option("--customer", "telegram_id", type=TELEGRAM_ID, help="Only of the customer with this Telegram id.")
@click.option("--by", "actor", type=NAME, help="Only by this one, such as operator:anna or activation.")
@click.option("--action", type=NAME, help="Only of this kind, such as refused or refund.")
@click.option("--before", type=NUMBER, help="Only entries before this number: the next page.")
@click.option("--limit", type=PAGE_SIZE, default=50, show_default=True, help="At most so many.")
@config_option
@json_option
@click.pass_context
def audit(
    ctx: click.Context,
    telegram_id: int | None,
    actor: str | None,
    action: str | None,
    before: int | None,
    limit: int,
    as_json: bool,
) -> None:
    """Show the audit trail: who did what to whom, in which role, the newest first."""

    async def run(tx: Tx) -> list[AuditEntry]:
        return list(await read_audit(tx, limit, telegram_id=telegram_id, actor=actor, action=action, before=before))

    found = in_transaction(ctx, "audit", run)
    data = [
        {
            "id": one.id,
            "at": one.at.isoformat(),
            "actor": one.actor,
            "role": one.role,
            "how": one.how,
            "action": one.action,
            "telegram_id": one.telegram_id,
            "subject": one.subject,
            "details": json.loads(one.details),
        }
        for one in found
    ]
    rows = [
        (
            one.id,
            moment(one.at),
            one.actor if one.role is None else f"{one.actor} ({one.role})",
            one.action,
            one.telegram_id or "",
            "; ".join(part for part in (one.subject, "" if one.details == "{}" else one.details) if part),
        )
        for one in found
    ]
    headers = ("entry", "at", "who", "what", "customer", "about")
    emit(data, as_json, lambda: table(headers, rows, notes=True) or "no entries")
