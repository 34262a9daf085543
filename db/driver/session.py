"""One connection for one command of an operator; the program's own work goes through a pool."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar, TypeVarTuple

import trio

from db.driver.address import DatabaseAddress
from db.driver.bridge import open_loop
from db.driver.bridge_choice import choose_bridge
from db.driver.connection import Connection, SessionLimits, open_connection, quarantine
from db.driver.transaction import SteppedTx, transact
from db.errors import ConnectionLost, LeaseExpired
from db.tx import Tx
from runtime import get_logger
from runtime.config import Secret

T = TypeVar("T")
Args = TypeVarTuple("Args")

log = get_logger(__name__)


class Session:
    """An open connection of an operator's command, for one task."""

    def __init__(self, connection: Connection, target: DatabaseAddress) -> None:
        self._connection = connection
        self._target = target

    @property
    def statements(self) -> Tx:
        """The bare connection, for code that begins and ends its transactions itself (migrations)."""
        return SteppedTx(self._connection.driver)

    async def run(
        self, label: str, function: Callable[[Tx, *Args], Awaitable[T]], *args: *Args, within: float = 5.0
    ) -> T:
        """Run `await function(tx, *args)` in one READ COMMITTED transaction, within `within` seconds in all.

        The function may await nothing but `tx`. Raises what the function raises and, as a pool does, LeaseExpired,
        ConnectionLost, TransactionLost, AmbiguousCommit and ForeignAwait.
        """
        driver = self._connection.driver
        if (driver.needs_cleaning or not driver.is_idle()) and not await quarantine(self._connection):
            raise ConnectionLost(f'"{label}" cannot run: the connection to {self._target} was lost before it began')
        driver.label = label
        deadline = trio.current_time() + within
        with trio.CancelScope(deadline=deadline):
            return await transact(driver, function, *args, deadline=deadline)
        raise LeaseExpired(f'"{label}" was not done within {within:g} s on {self._target}; nothing was committed')


@asynccontextmanager
async def open_session(
    dsn: str | Secret, application_name: str, *, within: float = 5.0, limits: SessionLimits | None = None
) -> AsyncIterator[Session]:
    """Connect within `within` seconds and give a Session; the connection is cut at the end of the block.

    Raises DatabaseUnreachable (exit code 69), or DatabaseUnusable (78): credentials refused, no such database, a server older
    than 15, an unreadable DSN. Both name host, database and the setting `database.dsn`, never the password.
    """
    target = DatabaseAddress.parse(dsn.reveal() if isinstance(dsn, Secret) else dsn)
    async with open_loop(log.warning) as loop:
        bridge, _ = await choose_bridge("auto", loop)
        connection = await open_connection(bridge, target, application_name, limits or SessionLimits(), within=within)
        try:
            yield Session(connection, target)
        finally:
            connection.driver.terminate()
