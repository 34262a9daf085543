"""`atlas grant`, `trial`, `prolong`, `revoke`, `reissue`: access that is given for free or given back, its end, another key."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import click

from actors.commands.database import in_transaction
from actors.commands.parameters import DAYS, NAME, REASON, TELEGRAM_ID, allowance, beyond_option
from db.access.entitlements import Entitlement
from db.access.subscriptions import mark_revoked
from db.access.undelivered import Outage, open_prolongation, prolong_page
from db.billing.grants import grant_access, grant_trial
from db.keys.reissue import request_reissue
from db.settings import TrialSettings
from db.tx import Tx
from runtime.cli import acting_operator, config_option, emit, json_option, load_config
from runtime.wording import moment

_MOMENT = click.DateTime(["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d"])


@click.command()
@click.argument("telegram_id", type=TELEGRAM_ID)
@click.option("--tariff", type=NAME, required=True, help="Which one, such as basic.")
@click.option("--days", type=DAYS, required=True, help="For how long.")
@click.option(
    "--key", type=NAME, required=True, help="What makes a repetition the same grant, such as a ticket's number."
)
@config_option
@json_option
@click.pass_context
def grant(ctx: click.Context, telegram_id: int, tariff: str, days: int, key: str, as_json: bool) -> None:
    """Give customer TELEGRAM_ID access without payment. The same --key again changes nothing."""

    async def run(tx: Tx) -> Entitlement:
        return await grant_access(
            tx, telegram_id, tariff, timedelta(days=days), idempotency_key=key, actor=acting_operator(ctx).actor
        )

    _show(in_transaction(ctx, "grant", run), telegram_id, as_json)


@click.command()
@click.argument("telegram_id", type=TELEGRAM_ID)
@beyond_option
@config_option
@json_option
@click.pass_context
def trial(ctx: click.Context, telegram_id: int, beyond: bool, as_json: bool) -> None:
    """Give customer TELEGRAM_ID the trial: 72 hours, once per customer ever."""
    rules, allowed = load_config(ctx).section(TrialSettings), allowance(ctx, beyond)

    async def run(tx: Tx) -> Entitlement:
        return await grant_trial(
            tx,
            telegram_id,
            actor=acting_operator(ctx).actor,
            rules=rules,
            allowance=allowed,
        )

    _show(in_transaction(ctx, "trial", run), telegram_id, as_json)


@click.command()
@click.option("--since", type=_MOMENT, required=True, help="When it began, in UTC, such as 2030-01-31T12:00.")
@click.option("--until", type=_MOMENT, required=True, help="When it ended, in UTC.")
@click.option("--node", type=NAME, help="Only customers whose key is on this node.")
@click.option("--reason", type=REASON, required=True, help="What happened; kept in the audit trail.")
@config_option
@json_option
@click.pass_context
def prolong(ctx: click.Context, since: datetime, until: datetime, node: str | None, reason: str, as_json: bool) -> None:
    """Give everybody back what an outage took: as long as their access and the outage overlapped.

    The same window again gives to those who have not got it yet, and to nobody twice. Refused (65) if another window that
    was made good overlaps this one.
    """
    began, ended = since.replace(tzinfo=UTC), until.replace(tzinfo=UTC)

    async def note(tx: Tx) -> Outage:
        return await open_prolongation(tx, began, ended, node=node, reason=reason, actor=acting_operator(ctx).actor)

    async def give(tx: Tx) -> int:
        return await prolong_page(tx, outage, actor=acting_operator(ctx).actor)

    outage = in_transaction(ctx, "prolong", note)
    given = 0
    while count := in_transaction(ctx, "prolong", give):
        given += count
    data = {
        "prolongation": outage.id,
        "since": began.isoformat(),
        "until": ended.isoformat(),
        "node": node,
        "customers": given,
    }
    where = "" if node is None else f" on node {node}"
    emit(data, as_json, lambda: f"prolongation {outage.id}{where}: {given} customers got back what the outage took")


def _show(given: Entitlement, telegram_id: int, as_json: bool) -> None:
    data = {
        "telegram_id": telegram_id,
        "tariff": given.tariff,
        "expires_at": given.new_end.isoformat(),
        "replayed": given.replayed,
    }
    until = moment(given.new_end)
    again = " (given before; nothing was changed)" if given.replayed else ""
    emit(data, as_json, lambda: f"customer {telegram_id} has {given.tariff} until {until}{again}")


@click.command()
@click.argument("telegram_id", type=TELEGRAM_ID)
@config_option
@json_option
@click.pass_context
def revoke(ctx: click.Context, telegram_id: int, as_json: bool) -> None:
    """End the access of customer TELEGRAM_ID now.

    Marked in the database first; the running supervisor takes the key off its nodes and cuts open connections, usually
    within a second. Repeating it changes nothing.
    """

    async def run(tx: Tx) -> bool:
        return await mark_revoked(tx, telegram_id, actor=acting_operator(ctx).actor)

    changed = in_transaction(ctx, "revoke", run)
    was = "is revoked; its connections are being cut" if changed else "was revoked before; nothing was changed"
    emit({"telegram_id": telegram_id, "changed": changed}, as_json, lambda: f"access of customer {telegram_id} {was}")


@click.command()
@click.argument("telegram_id", type=TELEGRAM_ID)
@click.option(
    "--idempotency-key",
    type=NAME,
    help="Repeating the command with the same key is one reissue. Default: every call is its own.",
)
@beyond_option
@config_option
@json_option
@click.pass_context
def reissue(ctx: click.Context, telegram_id: int, idempotency_key: str | None, beyond: bool, as_json: bool) -> None:
    """Give customer TELEGRAM_ID another key and link; the end of the subscription does not move.

    The old link works until the new one is confirmed on every node; then it is cut. `atlas subscription` shows the link that
    works. Refused (65) if no subscription runs.
    """
    name = idempotency_key or f"operator:{uuid4().hex}"
    allowed = allowance(ctx, beyond)

    async def run(tx: Tx) -> str:
        return await request_reissue(
            tx,
            telegram_id,
            actor=acting_operator(ctx).actor,
            idempotency_key=name,
            allowance=allowed,
        )

    key_id = in_transaction(ctx, "reissue", run)
    data = {"telegram_id": telegram_id, "key": key_id, "idempotency_key": name}
    emit(
        data,
        as_json,
        lambda: (
            f"customer {telegram_id} gets key {key_id}; the old link works until the new one is on every node\n"
            f"`atlas subscription {telegram_id}` shows the link"
        ),
    )
