"""`atlas db …`: the schema of the database."""

from __future__ import annotations

import click

from actors.commands.database import database_config, in_session, in_transaction
from db.driver.session import Session
from db.schema.migrate import check_schema, load_migrations, migrate
from db.schema.packages import check_packages, migrate_packages
from db.settings import DatabaseSettings
from db.tx import Tx
from runtime.cli import config_option, emit, json_option


@click.group()
def db() -> None:
    """Bring the schema of the database up to date, or check that it is."""


@db.command("migrate")
@config_option
@json_option
@click.pass_context
def migrate_(ctx: click.Context, as_json: bool) -> None:
    """Apply the migrations that the database lacks, one transaction each. `atlas run` does the same at its start.

    Repeating it changes nothing. Several at once take turns.
    """
    config = database_config(ctx)
    settings = config.section(DatabaseSettings)

    async def use(session: Session) -> tuple[str, ...]:
        applied = await migrate(session.statements, purpose=settings.purpose, wait=settings.migration_wait)
        return applied + await migrate_packages(session.statements, settings.packages, wait=settings.migration_wait)

    applied = in_session(ctx, use)
    emit({"applied": list(applied)}, as_json, lambda: "\n".join(applied) or "the schema is up to date")


@db.command()
@config_option
@json_option
@click.pass_context
def check(ctx: click.Context, as_json: bool) -> None:
    """Check that the schema is exactly this program's: 78 if it is older, newer or was changed."""
    packages = database_config(ctx).section(DatabaseSettings).packages

    async def look(tx: Tx) -> None:
        await check_schema(tx)
        await check_packages(tx, packages)

    in_transaction(ctx, "check schema", look)
    latest = str(load_migrations()[-1])
    emit({"schema": latest}, as_json, lambda: f"the schema is up to date, at {latest}")
