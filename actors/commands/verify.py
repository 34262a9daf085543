"""`atlas verify`: check the money invariants."""

from __future__ import annotations

from collections.abc import Sequence

import click

from actors.commands.database import in_transaction
from db.billing.invariants import Invariant
from db.billing.invariants import check_invariants as verify_views
from db.schema.migrate import check_schema
from db.tx import Tx
from runtime.cli import Seconds, config_option, emit, json_option

VIOLATED = 65
"""An invariant that holds at every commit does not (sysexits: the data is wrong)."""
NOT_AT_REST = 75
"""Only invariants that hold once the workers have caught up do not (sysexits: try again later)."""


@click.command()
@click.option(
    "--within",
    type=Seconds(1),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="How long it may take in all; the views read whole tables.",
)
@config_option
@json_option
@click.pass_context
def verify(ctx: click.Context, within: float, as_json: bool) -> None:
    """Check the money invariants: every view `money_…` lists violations and must be empty.

    Changes nothing and may run beside the service. Exit code 0: all hold. 65: an invariant that holds at every commit is
    violated. 75: only some that hold at rest are, so the workers have not caught up yet: look again in a minute.
    """

    def progress(found: Invariant, number: int, total: int) -> None:
        if not as_json:
            click.echo(f"[{number:>{len(str(total))}}/{total}] {_line(found)}", err=True)

    async def run(tx: Tx) -> tuple[Invariant, ...]:
        await check_schema(tx)  # a view that is not there would find nothing wrong
        return await verify_views(tx, progress)

    found = in_transaction(ctx, "verify", run, within=within)
    emit(
        {
            "holds": all(one.holds for one in found),
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
        },
        as_json,
        lambda: _summary(found),
    )
    broken = [one for one in found if not one.holds]
    if broken:
        ctx.exit(NOT_AT_REST if all(one.at_rest for one in broken) else VIOLATED)


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
