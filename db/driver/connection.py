"""One connection's life: opened with our session settings, checked, handed out, cleaned in quarantine, cut.

Nothing here waits without a bound, and nothing here decides who gets the connection.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg
import attrs
import trio

from db.driver.bridge import Bridge, DriverConnection
from db.driver.classify import Fault, classify, sqlstate
from db.errors import DatabaseUnreachable, DatabaseUnusable
from db.settings import OLDEST_SERVER

CONNECT_LIMIT = 5.0
"""Seconds for opening a connection."""
QUARANTINE_LIMIT = 2.0
"""Seconds in which a connection in doubt must prove that it is clean."""
_KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
_USER_TIMEOUT_MS = 20_000


@attrs.frozen
class SessionLimits:
    """What the server itself enforces, as the belt below our own deadlines. All in seconds; 0 switches one off."""

    statement: float = 30.0
    """Longest statement."""
    lock: float = 5.0
    """Longest wait for a lock."""
    idle_in_transaction: float = 15.0
    """Longest silence inside a transaction: frees the locks of a client that forgot it."""
    client_check: float = 1.0
    """How often a busy backend looks whether its client is still there: a killed supervisor's locks are freed after it."""


@attrs.frozen
class DatabaseAddress:
    """Where a DSN leads, in words that may be printed."""

    dsn: str = attrs.field(repr=False)
    host: str
    database: str

    @classmethod
    def parse(cls, dsn: str) -> DatabaseAddress:
        """Read host and database out of a DSN; what it leaves open is named by the driver's own defaults."""
        try:
            parts = urlsplit(dsn)
            query = parse_qs(parts.query)
            host = parts.hostname or unquote(query.get("host", [""])[0]) or "the default host"
            port = parts.port or (query.get("port") or [""])[0]
        except ValueError:
            return cls(dsn, "an unreadable address", "unknown")
        name = unquote(parts.path.lstrip("/")) or query.get("dbname", [""])[0] or "the user's own"
        return cls(dsn, f"{host}:{port}" if port else host, name)

    def __str__(self) -> str:
        return f"database {self.database!r} on {self.host}"


def session_settings(application_name: str, limits: SessionLimits) -> dict[str, str]:
    """The settings with which every session of ours begins."""

    def milliseconds(seconds: float) -> str:
        return str(round(seconds * 1000))

    return {
        "application_name": application_name,
        "client_connection_check_interval": milliseconds(limits.client_check),
        "default_transaction_isolation": "read committed",
        "idle_in_transaction_session_timeout": milliseconds(limits.idle_in_transaction),
        "lock_timeout": milliseconds(limits.lock),
        "statement_timeout": milliseconds(limits.statement),
        "tcp_keepalives_count": "3",
        "tcp_keepalives_idle": "10",
        "tcp_keepalives_interval": "5",
        "timezone": "UTC",
    }


@attrs.define(eq=False)
class Connection:
    """An open connection and what is known of it."""

    driver: DriverConnection
    pid: int
    opened_at: float
    """Time on trio's clock at which it was ready."""
    retire_at: float
    """Time on trio's clock after which it is replaced when it comes back."""


async def open_connection(
    bridge: Bridge,
    target: DatabaseAddress,
    application_name: str,
    limits: SessionLimits,
    *,
    within: float = CONNECT_LIMIT,
    lifetime: float = float("inf"),
) -> Connection:
    """Open a connection within `within` seconds.

    Raises DatabaseUnusable if waiting will not help (credentials, no such database, a server older than 15, an unreadable
    DSN), DatabaseUnreachable otherwise. Neither text contains the password.
    """
    try:
        with trio.fail_after(within):
            driver = await bridge.connect(target.dsn, settings=session_settings(application_name, limits))
    except trio.TooSlowError as error:
        raise DatabaseUnreachable(
            f"{target} did not answer within {within:g} s; is the server overloaded or stopped? (setting database.dsn)"
        ) from error
    except Exception as error:
        raise connect_error(target, error) from error
    if driver.server_version < OLDEST_SERVER:
        version = driver.server_version
        driver.terminate()
        raise DatabaseUnusable(
            f"{target} is PostgreSQL {version}, too old: version {OLDEST_SERVER} or newer is needed. "
            "Upgrade the server or name another one (setting database.dsn)"
        )
    _keep_alive(driver)
    now = trio.current_time()
    return Connection(driver, driver.backend_pid, now, now + lifetime)


def connect_error(target: DatabaseAddress, error: Exception) -> DatabaseUnusable | DatabaseUnreachable:
    """The error for an operator when a connection could not be opened."""
    code = sqlstate(error)
    if code is not None and code.startswith("28"):
        return DatabaseUnusable(
            f"{target} refused our credentials ({_words(error)}); check user and password (setting database.dsn)"
        )
    if code == "3D000":
        return DatabaseUnusable(f"{target} does not exist; create it or correct the name (setting database.dsn)")
    if isinstance(error, ssl.SSLCertVerificationError):
        return DatabaseUnusable(
            f"{target} shows a certificate that is not trusted: {error.verify_message}; name the authority that signed it "
            "(sslrootcert=… in the setting database.dsn) or correct the host's name there"
        )
    if isinstance(error, asyncpg.ClientConfigurationError | ValueError):
        # The driver's text may repeat parts of the DSN, and so the password.
        return DatabaseUnusable(
            "the DSN cannot be read; it looks like postgresql://user@host/name (setting database.dsn)"
        )
    if code == "53300":
        return DatabaseUnreachable(
            f"{target} has no room for another connection ({_words(error)}); lower pool.size, or raise max_connections or "
            "the role's CONNECTION LIMIT there"
        )
    if classify(error) is Fault.PERMANENT:
        return DatabaseUnusable(f"{target} refused the connection: {_words(error)} (setting database.dsn)")
    return DatabaseUnreachable(f"{target} cannot be reached: {_words(error)} (setting database.dsn)")


def _words(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _keep_alive(driver: DriverConnection) -> None:
    """Notice a vanished server within half a minute even where nothing is sent."""
    sock = driver.socket
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)


async def quarantine(connection: Connection, *, limit: float = QUARANTINE_LIMIT) -> bool:
    """Make a connection in doubt clean again, or cut it. Returns whether it is clean. Takes at most about `limit` seconds.

    Waits until the server has acknowledged the cancelled statement, rolls back, resets the session, and proves by an
    answer that nothing else is under way.
    """
    driver = connection.driver
    clean = False
    try:
        if not driver.is_closed():
            with trio.move_on_after(limit):
                await driver.run_on_loop(_cleanse(driver))
                clean = driver.is_idle() and driver.probe()
    except Exception:  # noqa: BLE001  whatever it was, the connection is cut and replaced
        clean = False
    finally:
        if not clean:
            driver.terminate()
    if clean:
        driver.needs_cleaning = False
        driver.foreign_await = None
    return clean


async def _cleanse(driver: DriverConnection) -> None:
    raw = driver.raw
    await raw.execute("ROLLBACK")
    await raw.reset()
