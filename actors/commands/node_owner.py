"""`atlas node own`: rule a node from here. The other commands of the group ask a node itself and know no database."""

from __future__ import annotations

import click

from actors.commands.database import in_transaction
from db.keys.node_owner import take_node
from db.tx import Tx
from runtime.cli import Text, acting_operator, config_option
from vpn.commands.node import node as node


@node.command()
@click.argument("name", type=Text())
@click.option("--take", is_flag=True, help="Take the node away from the installation that rules it.")
@click.option("--code", type=Text(), default=None, help="What `atlas node disown` printed on the node's host.")
@config_option
@click.pass_context
def own(ctx: click.Context, name: str, code: str | None, *, take: bool) -> None:
    """Have this installation rule node NAME of the configuration, after a database was restored or moved, or the node was
    disowned.

    The other installation can change nothing there from then on, and says so. It is said to the node within seconds; `atlas
    status` shows what came of it.
    """
    in_transaction(ctx, "node own", _take, name, take, code, acting_operator(ctx).actor)
    click.echo(f"node {name} is asked to take this installation for its owner")


async def _take(tx: Tx, name: str, take: bool, code: str | None, actor: str) -> None:
    if take is (code is not None):
        raise click.UsageError("say --take, or give the --code of a node that was disowned")
    await take_node(tx, name, code or "", actor=actor)
