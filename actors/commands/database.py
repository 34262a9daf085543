"""The database, for one operator command."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple

import attrs
import click
import trio

from db.connection import SessionLimits
from db.embedded import EmbeddedSettings, embedded_dsn
from db.session import open_session
from db.settings import DatabaseSettings
from db.tx import Tx
from runtime.cli.options import load_config

T = TypeVar("T")
Args = TypeVarTuple("Args")

OPERATOR = "operator"
"Who the audit trail says it was."


def in_transaction(
    ctx: click.Context, label: str, function: Callable[[Tx, *Args], Awaitable[T]], *args: *Args, within: float = 10.0
) -> T:
    """Run `await function(tx, *args)` in one transaction on a connection of its own and return its result.

    Works whether or not the supervisor runs, as long as the database does. Raises DatabaseUnreachable (exit code 69) or
    DatabaseUnusable (78), which name the address and the setting, and what the function raises.
    """
    config = load_config(ctx)
    limits = SessionLimits()
    if within > limits.statement:  # what may take long in all may do so in one statement
        limits = attrs.evolve(limits, statement=within, idle_in_transaction=within)
    dsn = config.section(DatabaseSettings).dsn.reveal() or embedded_dsn(config.section(EmbeddedSettings))

    async def run() -> T:
        async with open_session(dsn, f"atlas/{OPERATOR}", limits=limits) as session:
            return await session.run(label, function, *args, within=within)

    return trio.run(run)
