"""`atlas tell`, `atlas ask`: a message of an operator to an actor."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click

from runtime.cli.operators import operator_token
from runtime.cli.options import Seconds, call_control, complete_actor, control_options, control_socket, json_option
from runtime.cli.output import emit

NAME = click.argument("name", shell_complete=complete_actor)
MESSAGE = click.argument("message", metavar="TYPE")
FIELDS = click.argument("fields", metavar="[JSON]", default="{}")


def _read(ctx: click.Context, text: str) -> dict[str, Any]:
    try:
        found = json.loads(sys.stdin.read() if text == "-" else text)
    except ValueError as error:
        raise click.UsageError(f"JSON: {error}", ctx) from error
    if not isinstance(found, dict):
        raise click.UsageError('JSON: the fields of the message are wanted, as in {"number": 3}', ctx)
    return found


@click.command
@NAME
@MESSAGE
@FIELDS
@control_options
@json_option
@click.pass_context
def tell(ctx: click.Context, name: str, message: str, fields: str, *, as_json: bool) -> None:
    """Tell an actor a message of TYPE that it handles, with these fields; `-` reads them from standard input."""
    found = call_control(ctx, "tell", name=name, message=message, fields=_read(ctx, fields))
    emit(found, as_json, lambda: f"{name} has {message}" if found["delivery"] == "accepted" else found["delivery"])
    if found["delivery"] != "accepted":
        ctx.exit(1)


@click.command
@NAME
@MESSAGE
@FIELDS
@click.option(
    "--within",
    type=Seconds(0.001, 600.0),
    default=5.0,
    show_default=True,
    help="Seconds that the reply may take.",
)
@control_options
@json_option
@click.pass_context
def ask(ctx: click.Context, name: str, message: str, fields: str, within: float, *, as_json: bool) -> None:
    """Ask an actor a request of TYPE, and show the reply: bounded, and without secrets."""
    from runtime.control.client import call  # keeps `atlas --help` fast

    found: Any = call(
        control_socket(ctx),
        "ask",
        timeout=within + 5.0,
        token=operator_token(os.environ),
        name=name,
        message=message,
        fields=_read(ctx, fields),
        within=within,
    )
    emit(found, as_json, lambda: json.dumps(found["reply"], indent=2, ensure_ascii=False))
