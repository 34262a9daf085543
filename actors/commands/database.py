"""The database, for one operator command."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import ClassVar, TypeVar, TypeVarTuple

import attrs
import click
import trio

from db.driver.classify import is_driver_error, sqlstate
from db.driver.connection import SessionLimits
from db.driver.session import Session, open_session
from db.embedded import EmbeddedSettings, embedded_dsn
from db.errors import AmbiguousCommit, BusinessError, DatabaseUnreachable, LeaseError, LeaseMisused
from db.schema.migrate import check_schema
from db.settings import DatabaseSettings
from db.tx import Tx
from db.work.audit import act_as, record_refusal
from runtime import AtlasError
from runtime.cli import acting_operator, command_words, load_sections
from runtime.config import Config
from runtime.exit_codes import GAVE_UP, UNSTOPPED, WEDGED
from runtime.operators import NotAllowed, demand, least_role

T = TypeVar("T")
Args = TypeVarTuple("Args")

_SESSION = "atlas/operator"
"""What the server calls the connection."""

_REFUSED_VALUES = ("22", "23", "54")
"""Classes of codes: data exceptions, violated constraints, program limits."""
_NO_SUCH_THING = "42"
"""Class of codes: a table, column or function that is not there."""


class DatabaseAway(AtlasError):
    """The database did not serve the command; the text says what is known."""

    exit_code: ClassVar[int] = GAVE_UP


class CommitUnknown(AtlasError):
    """The answer to COMMIT was lost; the same command again finds out and does nothing twice."""

    exit_code: ClassVar[int] = UNSTOPPED


def in_transaction(
    ctx: click.Context,
    label: str,
    function: Callable[[Tx, *Args], Awaitable[T]],
    *args: *Args,
    within: float = 10.0,
    one_snapshot: bool = False,
) -> T:
    """Run `await function(tx, *args)` in one transaction on a connection of its own and return its result.

    With `one_snapshot` all its statements read one moment: what the service commits in between is not half seen. Works
    whether or not the supervisor runs, as long as the database does. The operator's role is asked first, and the audit
    entries of the transaction name it. Raises NotAllowed (77), which the audit trail keeps, DatabaseUnreachable (69) or
    DatabaseUnusable (78), which name the address and the setting, MigrationError (78) if the schema is not this program's,
    BusinessError (65) for a value that the server refuses, DatabaseBusy (75), DatabaseUnable (69) and DatabaseAway (69) when
    nothing is wrong with the command but its moment, CommitUnknown (75), and what the function raises.
    """
    limits = SessionLimits()
    if within > limits.statement:  # what may take long in all may do so in one statement
        limits = attrs.evolve(limits, statement=within, idle_in_transaction=within)

    async def use(session: Session) -> T:
        async def run(tx: Tx) -> T:
            if one_snapshot:
                await tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            await act_as(tx, acting_operator(ctx))
            return await function(tx, *args)

        try:
            return await session.run(label, run, within=within)
        except Exception as error:
            if not is_driver_error(error):
                raise
            raise await _in_words(session, label, error) from error

    return in_session(ctx, use, limits)


def database_config(ctx: click.Context) -> Config:
    """Where the database is, for `in_session`. Raises ConfigErrors (exit code 78)."""
    return load_sections(ctx, DatabaseSettings, EmbeddedSettings)


def in_session(ctx: click.Context, use: Callable[[Session], Awaitable[T]], limits: SessionLimits | None = None) -> T:
    """Run `await use(session)` on a connection of its own and return its result, if the operator's role allows the command.

    Raises as `in_transaction` does.
    """
    config = database_config(ctx)
    try:
        least = least_role(command_words(ctx))
        if least is not None:
            demand(acting_operator(ctx), least, f"`atlas {command_words(ctx)}`")
    except NotAllowed as refusal:
        _keep_refusal(config, refusal, command_words(ctx))
        raise
    return _connected(config, use, limits)


def _keep_refusal(config: Config, refusal: NotAllowed, command: str) -> None:
    """Write the refusal to the audit trail, if the database is there and has one; the command is refused either way."""

    async def use(session: Session) -> None:
        await session.run("refused", record_refusal, refusal.who, command, str(refusal))

    with suppress(Exception):  # whatever is wrong with the database, the answer to this command is the refusal
        _connected(config, use, None)


def _connected(config: Config, use: Callable[[Session], Awaitable[T]], limits: SessionLimits | None) -> T:
    own = config.section(DatabaseSettings).dsn.reveal()
    dsn = own or embedded_dsn(config.section(EmbeddedSettings))

    async def run() -> T:
        async with open_session(dsn, _SESSION, limits=limits) as session:
            return await use(session)

    try:
        return trio.run(run)
    except DatabaseUnreachable as error:
        if own:
            raise
        raise _embedded_is_away(config, error) from error
    except AmbiguousCommit as error:
        again = "repeat the command as it is: what was done is not done twice, and it says what became of it"
        raise CommitUnknown(f"{error}; {again}") from error
    except LeaseError as error:
        if isinstance(error, LeaseMisused) or error.exit_code != WEDGED:
            raise  # a defect of ours, or an error that knows its code
        raise DatabaseAway(str(error)) from error


async def _in_words(session: Session, label: str, error: Exception) -> Exception:
    """What the server's refusal means to an operator; its details, which are rows of others, are left out."""
    code = sqlstate(error) or ""
    first = next(iter(str(error).splitlines()), type(error).__name__)
    if code.startswith(_REFUSED_VALUES):
        return BusinessError(f"the database refuses a value of {label!r}: {first}; nothing was changed")
    if code.startswith(_NO_SUCH_THING):
        await session.run("check schema", check_schema)  # says which migrations it lacks
    return error


def _embedded_is_away(config: Config, error: DatabaseUnreachable) -> DatabaseAway:
    settings = config.section(EmbeddedSettings)
    if isinstance(error.__cause__, PermissionError):
        why = "its socket belongs to another user: run this command as the one who started it"
    else:
        why = "it runs as long as `atlas run` does: start that, and repeat the command"
    return DatabaseAway(
        f"the embedded database does not answer; {why}. Its data is in {settings.data_dir.absolute()} "
        "(setting embedded.data_dir); a database of your own is named by database.dsn"
    )
