"""`atlas pool …`: change a running pool of database connections. A restart of the pool forgets it."""

from __future__ import annotations

from typing import Any

import click

from runtime.cli.options import call_control, complete_actor, control_options, json_option
from runtime.cli.output import emit
from runtime.cli.parameters import Seconds

NAME = click.argument("name", shell_complete=complete_actor)


@click.group()
def pool() -> None:
    """Change a running pool of database connections, until its next restart (`atlas leases` shows it)."""


@pool.command()
@NAME
@click.argument("size", type=click.IntRange(1, 1000))
@control_options
@json_option
@click.pass_context
def resize(ctx: click.Context, name: str, size: int, *, as_json: bool) -> None:
    """Keep SIZE connections in pool NAME. Surplus ones go when they are given back. `pool.size` makes it last."""
    _change(ctx, as_json, name, "resize", size=size)


@pool.command()
@NAME
@control_options
@json_option
@click.pass_context
def pause(ctx: click.Context, name: str, *, as_json: bool) -> None:
    """Let pool NAME serve health checks only: holders finish, everybody else waits."""
    _change(ctx, as_json, name, "pause")


@pool.command()
@NAME
@control_options
@json_option
@click.pass_context
def resume(ctx: click.Context, name: str, *, as_json: bool) -> None:
    """Undo `atlas pool pause`."""
    _change(ctx, as_json, name, "resume")


@pool.command()
@NAME
@click.option(
    "--spread",
    type=Seconds(0),
    default=10.0,
    show_default=True,
    help="Seconds over which to replace them.",
)
@control_options
@json_option
@click.pass_context
def expire(ctx: click.Context, name: str, spread: float, *, as_json: bool) -> None:
    """Replace every connection of pool NAME, as after a change of the server's settings or of the password."""
    _change(ctx, as_json, name, "expire", spread=spread)


@pool.command()
@NAME
@click.argument("owner", required=False, shell_complete=complete_actor)
@click.option("--all", "everybody", is_flag=True, help="Everybody's leases.")
@control_options
@json_option
@click.pass_context
def revoke(ctx: click.Context, name: str, owner: str | None, *, everybody: bool, as_json: bool) -> None:
    """Take away the leases that the actor OWNER holds of pool NAME: their transactions do not commit."""
    if (owner is not None) is everybody:
        raise click.UsageError("say whose leases to take away: OWNER, or --all for everybody's")
    _change(ctx, as_json, name, "revoke", owner=owner or "", everybody=everybody)


def _change(ctx: click.Context, as_json: bool, name: str, action: str, **arguments: object) -> None:
    found: dict[str, Any] = call_control(ctx, "pool", pool=name, action=action, **arguments)

    def told() -> str:
        what = {
            "resize": f"keeps {found['size']} connections",
            "pause": "serves only the system lane",
            "resume": "serves everybody",
            "expire": "replaces its connections",
            "revoke": f"took {found['revoked']} {'lease' if found['revoked'] == 1 else 'leases'} away",
        }[action]
        return f"{name} {what}; {found['leased']} leased, {found['waiting']} waiting"

    emit(found, as_json, told)
