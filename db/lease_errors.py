"""What can go wrong between asking for a connection and giving it back."""

from __future__ import annotations

from typing import ClassVar

from runtime.errors import AtlasError


class LeaseError(AtlasError):
    """Base of all errors about a lease: it was not given, or it was taken away, or it was misused."""


class LeaseTimeout(LeaseError):
    """No connection became free within the acquire deadline. Nothing was sent to the database: safe to repeat."""


class LeaseShed(LeaseTimeout):
    """The queue is too long for this request to be served in time, so it is told now. Safe to repeat later."""


class PoolDown(LeaseError):
    """The database cannot be reached; the text names the last cause and since when. Nothing was sent."""


class PoolCrashed(LeaseError):
    """The pool's actor ended while the request waited. Nothing was sent: safe to repeat."""


class LeaseExpired(LeaseError):
    """The hold deadline passed; the connection was taken away and its transaction does not commit."""


class LeaseRevoked(LeaseError):
    """The pool took the connection away: its holder died or overran, or the pool was replaced."""


class LeaseMisused(LeaseError):
    """The connection was used by a task, or at a time, for which it was not leased."""


class ForeignAwait(LeaseMisused):
    """A function that was given a connection awaited something other than this connection."""


class NestedLease(LeaseMisused):
    """A connection was asked for while one is held: with every connection held that way, nobody would ever go on."""


class TransactionLost(LeaseError):
    """The transaction was rolled back although its function returned: it had swallowed an error or a cancellation."""


class ConnectionLost(LeaseError):
    """The connection broke while it was in use and before COMMIT was sent: nothing was committed, safe to repeat."""


class DatabaseBusy(LeaseError):
    """The server broke the transaction off for now: a lock or a statement took too long, or two transactions were in each
    other's way. Nothing was committed: safe to repeat after a moment."""

    exit_code: ClassVar[int] = 75


class DatabaseUnable(LeaseError):
    """The server answers and cannot do this: it takes no writes, or has no disk, memory or connections left. Nothing was
    committed; the same again succeeds once the server is well."""

    exit_code: ClassVar[int] = 69


class AmbiguousCommit(LeaseError):
    """COMMIT was sent and no answer came: it may or may not have happened. Resolve it by the idempotency key."""


class DatabaseUnusable(AtlasError):
    """A configuration that no waiting cures: wrong credentials, no such database, a server that is too old."""

    exit_code: ClassVar[int] = 78


class DatabaseUnreachable(AtlasError):
    """Nobody answers at the address, or the server refuses connections for now."""

    exit_code: ClassVar[int] = 69
