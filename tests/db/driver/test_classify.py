"""The table of errors: what each one means for the one who got it."""

from __future__ import annotations

import ssl

import asyncpg
import pytest
import trio

from db.driver.classify import Fault, classify, sqlstate
from db.errors import (
    AmbiguousCommit,
    ConnectionLost,
    DatabaseBusy,
    DatabaseUnable,
    DatabaseUnreachable,
    DatabaseUnusable,
    ForeignAwait,
    LeaseExpired,
    LeaseRevoked,
    LeaseShed,
    LeaseTimeout,
    NestedLease,
    PoolCrashed,
    PoolDown,
    TransactionLost,
)

TABLE = [
    (asyncpg.SerializationError(), Fault.TRANSIENT),
    (asyncpg.DeadlockDetectedError(), Fault.TRANSIENT),
    (asyncpg.LockNotAvailableError(), Fault.TRANSIENT),
    (asyncpg.QueryCanceledError(), Fault.TRANSIENT),
    (asyncpg.IdleInTransactionSessionTimeoutError(), Fault.TRANSIENT),
    (asyncpg.StatementCompletionUnknownError(), Fault.AMBIGUOUS),
    (asyncpg.TransactionResolutionUnknownError(), Fault.AMBIGUOUS),
    (asyncpg.UniqueViolationError(), Fault.PERMANENT),
    (asyncpg.CheckViolationError(), Fault.PERMANENT),
    (asyncpg.ForeignKeyViolationError(), Fault.PERMANENT),
    (asyncpg.PostgresSyntaxError(), Fault.PERMANENT),
    (asyncpg.UndefinedTableError(), Fault.PERMANENT),
    (asyncpg.InvalidPasswordError(), Fault.PERMANENT),
    (asyncpg.InvalidCatalogNameError(), Fault.PERMANENT),
    (asyncpg.ProtocolViolationError(), Fault.PERMANENT),
    (asyncpg.InternalServerError(), Fault.PERMANENT),
    (asyncpg.AdminShutdownError(), Fault.DOWN),
    (asyncpg.CrashShutdownError(), Fault.DOWN),
    (asyncpg.CannotConnectNowError(), Fault.DOWN),
    (asyncpg.TooManyConnectionsError(), Fault.DOWN),
    (asyncpg.DiskFullError(), Fault.DOWN),
    (asyncpg.ReadOnlySQLTransactionError(), Fault.DOWN),
    (asyncpg.ConnectionDoesNotExistError(), Fault.TRANSIENT),
    (asyncpg.InterfaceError("another operation is in progress"), Fault.PERMANENT),
    (asyncpg.InternalClientError("cannot switch to state 12"), Fault.PERMANENT),
    (asyncpg.ClientConfigurationError("bad"), Fault.PERMANENT),
    (ConnectionRefusedError(), Fault.DOWN),
    (FileNotFoundError(), Fault.DOWN),
    (ConnectionResetError(), Fault.DOWN),
    (ssl.SSLCertVerificationError(), Fault.PERMANENT),
    (trio.TooSlowError(), Fault.DOWN),
    (AmbiguousCommit(), Fault.AMBIGUOUS),
    (DatabaseBusy(), Fault.TRANSIENT),
    (DatabaseUnable(), Fault.DOWN),
    (ConnectionLost(), Fault.TRANSIENT),
    (LeaseTimeout(), Fault.TRANSIENT),
    (LeaseShed(), Fault.TRANSIENT),
    (LeaseExpired(), Fault.TRANSIENT),
    (LeaseRevoked(), Fault.TRANSIENT),
    (PoolCrashed(), Fault.TRANSIENT),
    (PoolDown(), Fault.DOWN),
    (DatabaseUnreachable(), Fault.DOWN),
    (DatabaseUnusable(), Fault.PERMANENT),
    (ForeignAwait(), Fault.PERMANENT),
    (NestedLease(), Fault.PERMANENT),
    (TransactionLost(), Fault.PERMANENT),
    (KeyError(), Fault.PERMANENT),
]


@pytest.mark.parametrize(("error", "fault"), TABLE, ids=lambda value: type(value).__name__)
def test_each_error_has_its_meaning(error: Exception, fault: Fault) -> None:
    assert classify(error) is fault


LOST = [
    asyncpg.ConnectionDoesNotExistError(),
    asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress"),
    asyncpg.InterfaceError("connection is closed"),
    asyncpg.AdminShutdownError(),
    ConnectionResetError(),
]


@pytest.mark.parametrize("error", LOST, ids=lambda value: type(value).__name__)
def test_a_lost_connection_outranks_the_name_of_the_error(error: Exception) -> None:
    assert classify(error, connection_lost=True) is Fault.TRANSIENT


@pytest.mark.parametrize("error", LOST, ids=lambda value: type(value).__name__)
def test_a_connection_lost_after_commit_was_sent_is_ambiguous(error: Exception) -> None:
    assert classify(error, connection_lost=True, commit_sent=True) is Fault.AMBIGUOUS


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (asyncpg.UniqueViolationError(), Fault.PERMANENT),
        (asyncpg.SerializationError(), Fault.TRANSIENT),
        (asyncpg.QueryCanceledError(), Fault.TRANSIENT),
    ],
)
def test_the_servers_definite_no_at_commit_is_not_ambiguous(error: Exception, fault: Fault) -> None:
    assert classify(error, commit_sent=True) is fault


def test_a_shutdown_announced_at_commit_is_ambiguous() -> None:
    assert classify(asyncpg.AdminShutdownError(), commit_sent=True) is Fault.AMBIGUOUS


def test_sqlstate_is_the_servers_code_or_nothing() -> None:
    assert sqlstate(asyncpg.UniqueViolationError()) == "23505"
    assert sqlstate(KeyError()) is None
