"""What an error of the database means for the one who got it: try again, find out, give up, or wait for the server.

The only place that knows asyncpg's exceptions and the server's error codes; business code asks `sqlstate` and `classify`.
"""

from __future__ import annotations

import enum
import ssl

import asyncpg
import trio

from db.errors import (
    AmbiguousCommit,
    ConnectionLost,
    DatabaseBusy,
    DatabaseUnable,
    DatabaseUnreachable,
    DatabaseUnusable,
    LeaseExpired,
    LeaseMisused,
    LeaseRevoked,
    LeaseTimeout,
    PoolCrashed,
    PoolDown,
    TransactionLost,
)


class Fault(enum.Enum):
    """What the caller may do about an error."""

    TRANSIENT = "transient"
    """Nothing was changed and the same again may succeed: repeat after a moment."""
    AMBIGUOUS = "ambiguous"
    """It may have happened or not: look the result up by its idempotency key before anything else."""
    PERMANENT = "permanent"
    """The same again fails again: a defect, a violated rule, or a configuration to correct."""
    DOWN = "down"
    """The server is not there for now; nothing was changed. Wait for it."""


_BY_CODE = {
    "08007": Fault.AMBIGUOUS,  # transaction_resolution_unknown
    "08P01": Fault.PERMANENT,  # protocol_violation
    "25006": Fault.DOWN,  # read_only_sql_transaction: we were moved to a standby
    "25P03": Fault.TRANSIENT,  # idle_in_transaction_session_timeout
    "25P04": Fault.TRANSIENT,  # transaction_timeout
    "40003": Fault.AMBIGUOUS,  # statement_completion_unknown
    "55006": Fault.TRANSIENT,  # object_in_use
    "55P03": Fault.TRANSIENT,  # lock_not_available
    "57014": Fault.TRANSIENT,  # query_canceled, by statement_timeout too
    "57P01": Fault.DOWN,  # admin_shutdown
    "57P02": Fault.DOWN,  # crash_shutdown
    "57P03": Fault.DOWN,  # cannot_connect_now
    "57P05": Fault.TRANSIENT,  # idle_session_timeout
}
_REMEDIES = {
    "25006": "it takes no writes: a standby, or default_transaction_read_only is on; make it writable, or name the primary "
    "(database.dsn)",
    "40P01": "two transactions waited for each other",
    "53100": "its disk is full: make room on the database's machine",
    "53300": "too many clients: raise max_connections of the server, or make the pools smaller (pool.size)",
    "55P03": "another session keeps a row or a table locked: pg_blocking_pids() names it, `atlas leases` those of ours",
    "57014": "it ran into statement_timeout: the server is overloaded, or the statement has too much to do",
}
_BY_CLASS = {
    "08": Fault.DOWN,  # connection exceptions
    "40": Fault.TRANSIENT,  # transaction rollback: serialization failure, deadlock
    "53": Fault.DOWN,  # insufficient resources: connections, memory, disk
    "58": Fault.DOWN,  # system errors outside PostgreSQL
}
_OURS: tuple[tuple[type[Exception], Fault], ...] = (
    (AmbiguousCommit, Fault.AMBIGUOUS),
    (PoolDown, Fault.DOWN),
    (DatabaseUnable, Fault.DOWN),
    (DatabaseUnreachable, Fault.DOWN),
    (DatabaseUnusable, Fault.PERMANENT),
    (LeaseMisused, Fault.PERMANENT),
    (TransactionLost, Fault.PERMANENT),
    (DatabaseBusy, Fault.TRANSIENT),
    (LeaseTimeout, Fault.TRANSIENT),
    (PoolCrashed, Fault.TRANSIENT),
    (LeaseExpired, Fault.TRANSIENT),
    (LeaseRevoked, Fault.TRANSIENT),
    (ConnectionLost, Fault.TRANSIENT),
    (ssl.SSLCertVerificationError, Fault.PERMANENT),
    (asyncpg.ClientConfigurationError, Fault.PERMANENT),
    (asyncpg.TargetServerAttributeNotMatched, Fault.DOWN),
    (OSError, Fault.DOWN),
    (trio.TooSlowError, Fault.DOWN),
)


def sqlstate(error: BaseException) -> str | None:
    """The server's five-character code, or None if the error is not the server's. `23505` is a unique violation."""
    if not isinstance(error, asyncpg.PostgresError):
        return None
    code: str | None = getattr(error, "sqlstate", None)
    return code


def is_driver_error(error: BaseException) -> bool:
    """Whether the error comes from the driver or the server rather than from our own code."""
    return isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError | asyncpg.InternalClientError | OSError)


def is_stale_statement(error: BaseException) -> bool:
    """Whether a prepared statement no longer fits the tables; nothing of it happened, and prepared anew it works."""
    return isinstance(error, asyncpg.InvalidCachedStatementError)


def classify(error: BaseException, *, connection_lost: bool = False, commit_sent: bool = False) -> Fault:
    """What the error means.

    `connection_lost`: the connection was found closed afterwards. asyncpg reports a broken connection under several names,
    some of which blame the caller, so that this fact outranks the name. `commit_sent`: COMMIT had gone out before; a
    loss is then ambiguous, a definite answer of the server is not.
    """
    code = sqlstate(error)
    by_code = None if code is None else _BY_CODE.get(code) or _BY_CLASS.get(code[:2])
    if isinstance(error, asyncpg.ConnectionDoesNotExistError | asyncpg.ConnectionFailureError):
        connection_lost = True
    if commit_sent and (connection_lost or by_code is Fault.DOWN):
        return Fault.AMBIGUOUS
    if by_code is not None and (not connection_lost or by_code is not Fault.DOWN):
        return by_code
    if connection_lost:
        return Fault.TRANSIENT
    if isinstance(error, LeaseExpired | LeaseRevoked) and error.in_part:
        return Fault.AMBIGUOUS
    for kind, fault in _OURS:
        if isinstance(error, kind):
            return fault
    return Fault.PERMANENT


def passing_error(error: BaseException, label: str) -> DatabaseBusy | DatabaseUnable | None:
    """Return what to raise instead of an error of the server that is no mistake of the function's and passes by itself.

    None: it is not such an error; raise it as it is. Call it only if nothing was committed and the connection still
    stands. `label` names the function in the text.
    """
    code = sqlstate(error)
    fault = None if code is None else classify(error)
    if fault not in (Fault.TRANSIENT, Fault.DOWN):
        return None
    remedy = _REMEDIES.get(code or "", "")
    message = str(error).partition("\n")[0]  # what follows may repeat values of a row
    why = f"{message} ({code})" + (f"; {remedy}" if remedy else "")
    kind = DatabaseBusy if fault is Fault.TRANSIENT else DatabaseUnable
    return kind(f'the database does not do "{label}" now: {why}; nothing was changed, it may be repeated')
