"""`atlas verify`: check the money invariants, and let the auditor derive everything from the facts and compare it."""

from __future__ import annotations

from collections.abc import Sequence

import click

from actors.commands.database import in_transaction
from actors.commands.parameters import TELEGRAM_ID
from db.auditor.audit import Audit, audit_changes
from db.auditor.explain import Explanation, explain
from db.billing.invariants import Invariant
from db.billing.invariants import check_invariants as verify_views
from db.keys.placements import NodeKeys, wrong_keys
from db.schema.migrate import check_schema
from db.tx import Tx
from runtime.cli import Seconds, config_option, emit, json_option
from runtime.wording import moment

VIOLATED = 65
"""An invariant that holds at every commit does not, or the auditor found something (sysexits: the data is wrong)."""
NOT_AT_REST = 75
"""Only invariants that hold once the workers have caught up do not (sysexits: try again later)."""
_NAMED = 20


@click.command()
@click.option(
    "--within",
    type=Seconds(1),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="How long each half may take; both read whole tables.",
)
@click.option(
    "--whole", is_flag=True, help="Derive everything anew, also if nothing has changed since the last clean audit."
)
@click.option(
    "--explain",
    "explained",
    type=TELEGRAM_ID,
    metavar="TELEGRAM_ID",
    help="Show of one customer what follows from the facts beside what is stored, and check nothing else.",
)
@config_option
@json_option
@click.pass_context
def verify(ctx: click.Context, within: float, whole: bool, explained: int | None, as_json: bool) -> None:
    """Check the money invariants, and audit all money and access.

    First every view `money_…`, which lists violations and must be empty; then of each node how many keys are wrong there. Then
    the auditor: it derives journals, purses, rewards and access from the facts, by itself, and names each row that says
    otherwise. It may run beside the service and writes nothing but its own checkpoint. Exit code 0: all hold. 65: an invariant
    that holds at every commit is violated, or the auditor found something. 75: only some that hold at rest are violated, so the
    workers have not caught up yet: look again in a minute.
    """
    if explained is not None:
        _explain(ctx, explained, within, as_json)
        return

    def progress(found: Invariant, number: int, total: int) -> None:
        if not as_json:
            click.echo(f"[{number:>{len(str(total))}}/{total}] {_line(found)}", err=True)

    def step(text: str) -> None:
        if whole and not as_json:
            click.echo(f"auditor: {text}", err=True)

    async def run(tx: Tx) -> tuple[Invariant, ...]:
        await check_schema(tx)  # a view that is not there would find nothing wrong
        return await verify_views(tx, progress)

    async def run_auditor(tx: Tx) -> Audit:
        return await audit_changes(tx, whole=whole, progress=step)

    found = in_transaction(ctx, "verify", run, within=within)
    nodes = in_transaction(ctx, "verify.nodes", wrong_keys, within=within)
    audited = in_transaction(ctx, "verify.audit", run_auditor, within=within, one_snapshot=True)
    emit(
        {
            "holds": all(one.holds for one in found) and audited.holds,
            "invariants": [
                {
                    "name": one.name,
                    "holds": one.holds,
                    "at_rest": one.at_rest,
                    "violations": one.violations,
                    "sample": [{"subject": subject, "problem": problem} for subject, problem in one.sample],
                }
                for one in found
            ],
            "nodes": [
                {
                    "name": node.node,
                    "missing": node.missing,
                    "late": node.late,
                    "ended": node.ended,
                    "strangers": node.strangers,
                    "last_seen_at": None if node.last_seen_at is None else node.last_seen_at.isoformat(),
                }
                for node in nodes
            ],
            "auditor": {
                "holds": audited.holds,
                "rules": audited.rules,
                "derived": audited.is_derived,
                "findings": [
                    {
                        "rule": one.rule,
                        "subject": one.subject,
                        "customer": one.customer_id,
                        "derived": one.derived,
                        "stored": one.stored,
                    }
                    for one in audited.findings
                ],
            },
        },
        as_json,
        lambda: "\n".join([_summary(found), *_nodes_summary(nodes), _audit_summary(audited)]),
    )
    broken = [one for one in found if not one.holds]
    if broken or not audited.holds:
        ctx.exit(NOT_AT_REST if audited.holds and all(one.at_rest for one in broken) else VIOLATED)


def _explain(ctx: click.Context, telegram_id: int, within: float, as_json: bool) -> None:
    async def run(tx: Tx) -> Explanation:
        await check_schema(tx)
        return await explain(tx, telegram_id)

    told = in_transaction(ctx, "verify.explain", run, within=within, one_snapshot=True)
    emit(
        {
            "customer": told.customer_id,
            "telegram_id": told.telegram_id,
            "lines": [
                {
                    "topic": line.topic,
                    "subject": line.subject,
                    "derived": line.derived,
                    "stored": line.stored,
                    "agrees": line.agrees,
                }
                for line in told.lines
            ],
            "findings": [str(one) for one in told.findings],
        },
        as_json,
        lambda: _explanation(told),
    )
    if told.findings:
        ctx.exit(VIOLATED)


def _explanation(told: Explanation) -> str:
    lines = [f"customer {told.telegram_id} (number {told.customer_id}): what follows from the facts | what is stored"]
    for line in told.lines:
        mark = "=" if line.agrees else "≠"
        lines.append(f"{mark} {line.topic} {line.subject}: {line.derived}")
        if not line.agrees:
            lines.append(f"    stored: {line.stored}")
    lines += [str(one) for one in told.findings]
    lines.append(f"{len(told.findings)} findings" if told.findings else "everything stored follows from the facts")
    return "\n".join(lines)


def _line(found: Invariant) -> str:
    if found.holds:
        return f"{found.name} holds"
    return f"{found.name} {'is not at rest' if found.at_rest else 'is VIOLATED'}: {found.violations}"


def _summary(found: Sequence[Invariant]) -> str:
    broken = [one for one in found if not one.holds]
    if not broken:
        return f"all {len(found)} money invariants hold"
    lines = [f"{len(broken)} of {len(found)} money invariants do not hold"]
    for one in broken:
        lines.append(_line(one))
        lines += [f"    {subject}: {problem}" for subject, problem in one.sample]
        if one.violations > len(one.sample):
            lines.append(f"    and {one.violations - len(one.sample)} more; the view {one.name} lists them all")
    if all(one.at_rest for one in broken):
        lines.append("these hold once the workers have caught up: look again in a minute")
    return "\n".join(lines)


def _nodes_summary(nodes: Sequence[NodeKeys]) -> list[str]:
    """One line for each node on which keys are wrong, or one for all."""
    wrong = [f"node {node.node}: {node}{_last_seen(node)}" for node in nodes if str(node)]
    if wrong or not nodes:
        return wrong
    return [f"{len(nodes)} nodes have every key as it is wanted, as far as they were seen"]


def _last_seen(node: NodeKeys) -> str:
    return "; it was never seen" if node.last_seen_at is None else f"; last seen {moment(node.last_seen_at)}"


def _audit_summary(audited: Audit) -> str:
    if not audited.is_derived:
        return "the auditor finds nothing changed since its last clean audit; --whole derives everything anew"
    if audited.holds:
        return f"the auditor's {audited.rules} rules hold: everything stored follows from the facts"
    lines = [f"the auditor found {len(audited.findings)}:"]
    lines += [f"    {one}" for one in audited.findings[:_NAMED]]
    if len(audited.findings) > _NAMED:
        lines.append(f"    and {len(audited.findings) - _NAMED} more; --json lists them all")
    return "\n".join(lines)
