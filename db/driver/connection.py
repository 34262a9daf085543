"""One connection's life: opened with our session settings, checked, handed out, cleaned in quarantine, cut.

Nothing here waits without a bound, and nothing here decides who gets the connection.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path

import asyncpg
import attrs
import trio

from db.driver.address import UNREADABLE, DatabaseAddress
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
PROVEN = (
    "client_connection_check_interval",
    "default_transaction_isolation",
    "idle_in_transaction_session_timeout",
    "lock_timeout",
    "statement_timeout",
    "timezone",
)
"""Settings that the server must say to have taken. It says nothing of `tcp_…` on a unix socket."""
_WHO = (
    "SELECT 'pid', pg_backend_pid()::text UNION ALL SELECT lower(name), setting FROM pg_settings WHERE lower(name) IN "
)
_WHO += str(PROVEN)  # COPY takes no parameters, and these names are quoted in SQL as in Python
_POOLER = (
    "a connection pooler, such as PgBouncer, in between: it would lose our time limits and what is notified, and can run other "
    "programs' statements in our sessions. The pool here does a pooler's work: name the host and port of PostgreSQL "
    "itself (setting database.dsn). How many connections that takes there is in docs/pool.md."
)


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

    Before it is given out, the server says in it who it is: that the session is ours alone, and has the settings that were
    asked for. Raises DatabaseUnusable if waiting will not help (credentials, no such database, a server older than 15, a
    connection pooler in between), DatabaseUnreachable otherwise. Neither text contains the password.
    """
    settings = session_settings(application_name, limits)
    driver: DriverConnection | None = None
    wrong = ""
    proven = False
    try:
        with trio.fail_after(within):
            driver = await bridge.connect(target.dsn, settings=settings)
            if driver.server_version >= OLDEST_SERVER:
                wrong = await _what_is_wrong(driver, settings)
            proven = True
    except trio.TooSlowError as error:
        raise DatabaseUnreachable(
            f"{target} did not answer within {within:g} s; is the server overloaded or stopped? (setting database.dsn)"
        ) from error
    except (asyncpg.ClientConfigurationError, ValueError) as error:
        # Not chained: the driver's text may repeat parts of the DSN.
        raise connect_error(target, error) from None
    except Exception as error:
        raise connect_error(target, error) from error
    finally:
        if driver is not None and not proven:
            driver.terminate()
    if wrong:
        driver.terminate()
        raise DatabaseUnusable(f"{target} {wrong}")
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


async def _what_is_wrong(driver: DriverConnection, settings: Mapping[str, str]) -> str:
    """Let the server say which session this is; returns what is wrong with it, as the end of a sentence, or nothing.

    By COPY, which needs no prepared statement: behind a pooler that shares sessions, its name might stand for another
    program's statement.
    """
    answer = bytearray()

    async def take(data: bytes) -> None:
        answer.extend(data)

    await driver.run_on_loop(driver.raw.copy_from_query(_WHO, output=take))
    said = dict(line.split("\t") for line in answer.decode().splitlines())
    if said.pop("pid", "") != str(driver.backend_pid):
        return f"is not PostgreSQL itself but {_POOLER}"
    others = [
        f"{name} is {said.get(name)} instead of {settings[name]}" for name in PROVEN if said.get(name) != settings[name]
    ]
    if others:
        return f"did not take the settings of our session ({', '.join(others)}): there is {_POOLER}"
    return ""


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
    if code == "08P01" and "startup parameter" in str(error):
        return DatabaseUnusable(f"{target} is not PostgreSQL itself but {_POOLER} It said: {_words(error)}")
    if isinstance(error, asyncpg.ClientConfigurationError) and "root certificate" in str(error):
        return DatabaseUnusable(
            f"{target} cannot be verified: sslmode=verify-full and verify-ca need the certificate of the authority that "
            "signed the server's; name its file (sslrootcert=… in the setting database.dsn)"
        )
    if isinstance(error, OSError) and target.root_certificate and not Path(target.root_certificate).is_file():
        return DatabaseUnusable(
            f"{target} cannot be verified: there is no file {target.root_certificate!r} (sslrootcert=… in the setting "
            "database.dsn)"
        )
    if isinstance(error, asyncpg.ClientConfigurationError | ValueError):
        # The driver's text may repeat parts of the DSN, and so the password.
        return DatabaseUnusable(UNREADABLE)
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
    if not driver.session_changed:
        await raw.reset()
        return
    await raw.execute("DISCARD ALL")
    # The driver's own prepared statements went with the holder's, and what it knows of temporary types.
    raw._drop_local_statement_cache()
    raw._drop_local_type_cache()
    driver.session_changed = False
