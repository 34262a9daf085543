"""`atlas config`."""

from __future__ import annotations

import json

import click

from runtime.cli.options import Text, config_option, config_path, json_option
from runtime.cli.output import Styled, emit, table


@click.command
@click.argument("prefix", type=Text(), required=False)
@click.option("--changed", is_flag=True, help="Only those that are not at their default.")
@config_option
@json_option
@click.pass_context
def config(ctx: click.Context, prefix: str | None, *, changed: bool, as_json: bool) -> None:
    """Show each setting as it holds, where it came from, and what it takes to change it.

    PREFIX leaves those whose key begins so, such as pool or actor.canary. It reads the file and the environment, as `atlas run`
    would now; a running system may still hold older ones, which `atlas reload` names. Secrets are never shown.
    """
    from runtime.config.effective import effective_settings  # keeps `atlas --help` fast
    from runtime.core.worker import PeriodicWorker  # as above
    from runtime.operations.reload import when_reloaded  # as above
    from runtime.wording import nearest  # as above

    known = effective_settings(config_path(ctx))
    found = [one for one in known if one.key.startswith(prefix or "") and not (changed and one.origin == "default")]
    if prefix and not any(one.key.startswith(prefix) for one in known):
        meant = nearest(prefix, {one.key.rpartition(".")[0] for one in known} | {one.key for one in known})
        raise click.UsageError(
            f"no setting begins with {prefix!r}" + (f"; did you mean {meant!r}?" if meant else ""), ctx
        )
    rows = [
        {
            "key": one.key,
            "value": one.value,
            "origin": one.origin,
            "changes_with": when_reloaded(
                one.key,
                is_secret=one.is_secret,
                is_worker=one.actor is not None and issubclass(one.actor, PeriodicWorker),
            ),
        }
        for one in found
    ]

    def render() -> str:
        shown = [
            (
                row["key"],
                row["value"] if isinstance(row["value"], str) else json.dumps(row["value"], ensure_ascii=False),
                Styled("default", "quiet") if row["origin"] == "default" else row["origin"],
                row["changes_with"],
            )
            for row in rows
        ]
        return table(("setting", "value", "from", "changes with"), shown) or "every setting is at its default"

    emit(rows, as_json, render)
