"""The one source of the schema: numbered SQL files, each applied once, in order, in a transaction of its own.

Several processes may start at once: they take turns under an advisory lock that each transaction takes for itself, so
nothing is left locked when one of them dies. A file is never edited after it was released; its checksum is compared.

A file that begins with `-- exclusive` changes what released programs rely on: it waits until no instance works on the
database, and from then on the database refuses older programs. What such a file cannot move in one statement is moved
after it, page by page (`db.schema.moving_over`).
"""

import contextlib
import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import ClassVar, TypeVar

import attrs

from db.schema.moving_over import move_next_page, unfinished_step
from db.settings import OLDEST_SERVER
from db.tx import LockSpace, Row, Tx
from runtime import AtlasError

T = TypeVar("T")
_DIRECTORY = Path(__file__).parent / "migrations"
_FILE = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_POLL = 0.1
DDL_LOCK_TIMEOUT = "10s"
_OWN_TABLE = """
    CREATE TABLE schema_migrations (
        version    integer PRIMARY KEY,
        name       text NOT NULL,
        checksum   text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
    )
"""


class MigrationError(AtlasError):
    """The schema could not be brought to, or is not at, the version of this program. The text says what to do."""

    exit_code: ClassVar[int] = 78


class InstanceWorks(MigrationError):
    """A program works on the database that a migration has to wait for; the text names it and says what to do."""

    exit_code: ClassVar[int] = 69


@attrs.frozen
class Migration:
    """One numbered file of SQL, with its checksum."""

    version: int
    name: str
    sql: str = attrs.field(repr=False)
    checksum: str
    """SHA-256 of the file, in hexadecimal."""

    @property
    def is_exclusive(self) -> bool:
        """Whether it waits for the end of every instance, and stops older programs."""
        return self.sql.startswith("-- exclusive")

    def __str__(self) -> str:
        return f"{self.version:04}_{self.name}"


@cache
def load_migrations(directory: Path = _DIRECTORY) -> tuple[Migration, ...]:
    """All migrations in order. Raises `MigrationError` when a file is misnamed or the numbers have a gap."""
    found = []
    for path in sorted(directory.glob("*.sql")):
        matched = _FILE.fullmatch(path.name)
        if matched is None:
            raise MigrationError(f"migration {path.name!r} is not named like 0001_what_it_does.sql")
        text = path.read_text(encoding="utf-8")
        found.append(Migration(int(matched[1]), matched[2], text, hashlib.sha256(text.encode()).hexdigest()))
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise MigrationError(
            f"migrations are not numbered 1 to {len(found)} without gaps: {', '.join(map(str, found))}"
        )
    return tuple(found)


async def migrate(
    connection: Tx,
    *,
    purpose: str | None = None,
    wait: float = 60.0,
    migrations: Sequence[Migration] | None = None,
) -> tuple[str, ...]:
    """Bring the database to this program's schema and return the names of the migrations that were applied now.

    `connection` must not be in a transaction: each migration gets its own, so after a failure the earlier ones stay
    and the failed one leaves no trace. Afterwards existing rows are moved over, page by page, where a file asks for it; a
    move that was interrupted goes on. `purpose` (production, demo or test; default production) is written into a
    new database and compared with an existing one when it is given. Waits at most `wait` seconds for another
    process that is migrating, and before an exclusive file for the end of the instance that works on the database.

    Raises `MigrationError`: the server is older than 15, the schema is newer than this program, a released file was
    changed, the purpose differs, the other process is not done in time, or a migration failed (with the server's
    text); `InstanceWorks` when the instance has not ended in time.
    """
    known = load_migrations() if migrations is None else tuple(migrations)
    applied: list[str] = []
    while done := await transaction(connection, partial(apply_next, purpose=purpose, wait=wait, migrations=known)):
        applied.append(str(done))
    while await transaction(connection, partial(_move_next, wait=wait)):
        pass
    return tuple(applied)


async def transaction(connection: Tx, step: Callable[[Tx], Awaitable[T]]) -> T:
    """Run one step of a migration in a transaction of its own."""
    await connection.execute("BEGIN")
    try:
        done = await step(connection)
    except BaseException:
        with contextlib.suppress(Exception):  # the first error is the one to tell; a dead session rolls back itself
            await connection.execute("ROLLBACK")
        raise
    await connection.execute("COMMIT")
    return done


async def _move_next(tx: Tx, wait: float) -> bool:
    """Move one page of what is not moved over; `False`: everything is. Only one process does so, and no instance works."""
    await tx.execute(f"SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '{DDL_LOCK_TIMEOUT}'")
    await lock_migrations(tx, wait)
    if await tx.fetchval("SELECT to_regclass('moving_over') IS NULL") or await unfinished_step(tx) is None:
        return False
    await _wait_for_instances(tx, wait, "existing rows are moved over")
    return await move_next_page(tx)


async def apply_next(
    tx: Tx, *, purpose: str | None, wait: float, migrations: Sequence[Migration] | None = None
) -> Migration | None:
    """Apply the first migration that is missing, inside the caller's transaction; `None` when there is none left.

    Raises as `migrate` does. The caller commits after each call.
    """
    known = load_migrations() if migrations is None else tuple(migrations)
    await _refuse_old_server(tx)
    await tx.execute(f"SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '{DDL_LOCK_TIMEOUT}'")
    await lock_migrations(tx, wait)
    if await tx.fetchval("SELECT to_regclass('schema_migrations') IS NULL"):
        await tx.execute(_OWN_TABLE)
    missing = await _missing(tx, known)
    if missing and missing[0].version == 1:
        await tx.fetchval("SELECT set_config('atlas.purpose', $1, true)", purpose or "production")
    elif purpose is not None:
        await _refuse_other_purpose(tx, purpose)
    if not missing:
        return None
    migration = missing[0]
    if migration.is_exclusive:
        await _wait_for_instances(tx, wait, f"migration {migration} is applied")
    try:
        await tx.execute(migration.sql)
    except Exception as error:
        raise MigrationError(
            f"migration {migration} failed and was rolled back: {error}. The database is as it was after the one "
            "before it; put right what the server names and start again."
        ) from error
    await tx.execute(
        "INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)",
        migration.version,
        migration.name,
        migration.checksum,
    )
    if migration.is_exclusive:
        await tx.execute("UPDATE schema_migrations SET exclusive = true WHERE version = $1", migration.version)
    return migration


async def check_schema(tx: Tx) -> None:
    """Return if the schema is exactly this program's; raises `MigrationError` if it is older, newer or changed."""
    await _refuse_old_server(tx)
    if await tx.fetchval("SELECT to_regclass('schema_migrations') IS NULL"):
        raise MigrationError("the database has no ATLAS schema; run `atlas db migrate` or `atlas run`")
    missing = await _missing(tx, load_migrations())
    if missing:
        raise MigrationError(
            f"the schema lacks {len(missing)} migrations, the first is {missing[0]}; run `atlas db migrate`, "
            "or set database.migrate_on_start and start"
        )
    step = await unfinished_step(tx)
    if step is not None:
        raise MigrationError(
            f"existing rows are not moved over yet: step {step.name!r} has come to number {step.last_id}; run "
            "`atlas db migrate`, which goes on there, or set database.migrate_on_start and start"
        )


async def _refuse_old_server(tx: Tx) -> None:
    version = int(await tx.fetchval("SELECT current_setting('server_version_num')"))
    if version // 10000 < OLDEST_SERVER:
        raise MigrationError(
            f"the server is PostgreSQL {version // 10000}.{version % 10000}, the oldest supported is "
            f"{OLDEST_SERVER}; upgrade it or point database.dsn at another"
        )


async def lock_migrations(tx: Tx, wait: float) -> None:
    """Take the lock of whoever migrates, until the transaction ends; raises MigrationError after `wait` seconds.

    Poll rather than wait in the server: a waiting lock would queue every later DDL behind it.
    """
    lock = (LockSpace.MIGRATION, 0)
    started = await tx.fetchval("SELECT clock_timestamp()")
    while not await tx.fetchval("SELECT pg_try_advisory_xact_lock($1, $2)", *lock):
        waited = (await tx.fetchval("SELECT clock_timestamp()") - started).total_seconds()
        if waited > wait:
            holder = await tx.fetchrow(
                """
                SELECT a.pid, a.application_name, date_trunc('second', clock_timestamp() - a.xact_start) AS since
                FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
                WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.classid = $1 AND l.objid = $2
                  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                """,
                *lock,
            )
            who = (
                f"backend {holder['pid']} ({holder['application_name']}), for {holder['since']}"
                if holder
                else "nobody now"
            )
            raise MigrationError(
                f"another process is migrating this database and was not done after {waited:.1f} s; the lock is held by "
                f"{who}. Wait for it, or raise database.migration_wait (now {wait:g} s)."
            )
        await tx.execute(f"SELECT pg_sleep({_POLL})")


async def _wait_for_instances(tx: Tx, wait: float, what: str) -> None:
    """Return once no process holds the instance row, and keep it from being taken until the transaction ends.

    Polls: a table lock that waited would stop the renewals of the very process that is waited for.
    """
    started = await tx.fetchval("SELECT clock_timestamp()")
    while True:
        await tx.execute("SAVEPOINT instances; LOCK TABLE epochs IN SHARE ROW EXCLUSIVE MODE")
        # The transaction's own time stands still, so the clock is read.
        holder = await tx.fetchrow(
            """
            SELECT host, pid, acquired_at FROM epochs
            WHERE name = 'supervisor' AND held_until > clock_timestamp() + (SELECT clock_offset FROM database_identity)
            """
        )
        if holder is None:
            return
        await tx.execute("ROLLBACK TO SAVEPOINT instances")
        waited = (await tx.fetchval("SELECT clock_timestamp()") - started).total_seconds()
        if waited > wait:
            raise InstanceWorks(
                f"{what} only while no instance works on this database, and after {waited:.1f} s there still is one: pid "
                f"{holder['pid']} on host {holder['host']}, since {holder['acquired_at']:%Y-%m-%d %H:%M:%S} UTC. Stop it, and "
                f"start again, or raise database.migration_wait (now {wait:g} s)."
            )
        await tx.execute(f"SELECT pg_sleep({_POLL})")


async def _missing(tx: Tx, known: Sequence[Migration]) -> tuple[Migration, ...]:
    rows = await tx.fetch("SELECT version, name, checksum FROM schema_migrations ORDER BY version")
    if len(rows) > len(known):
        newest = rows[-1]
        raise MigrationError(
            f"the schema is newer than this program: it has {newest['version']:04}_{newest['name']}, this program knows "
            f"{len(known)} migrations. Start the newer program; schemas are not taken back."
        )
    return not_applied(rows, known)


def not_applied(rows: Sequence[Row], known: Sequence[Migration], of: str = "") -> tuple[Migration, ...]:
    """Return the migrations beyond those that `rows` (version, name, checksum) say were applied, in order.

    `of` goes before the name of one in an error. Raises MigrationError for one that was changed after it was applied.
    """
    for row, migration in zip(rows, known, strict=False):
        if (row["version"], row["checksum"]) != (migration.version, migration.checksum):
            raise MigrationError(
                f"migration {of}{migration} was changed after it was applied to this database (as "
                f"{row['version']:04}_{row['name']}); restore the released file and put the change in a new one"
            )
    return tuple(known[len(rows) :])


async def _refuse_other_purpose(tx: Tx, purpose: str) -> None:
    actual = await tx.fetchval("SELECT purpose FROM database_identity")
    if actual != purpose:
        raise MigrationError(
            f"the database was created for {actual}, the configuration says {purpose}; set database.purpose to "
            f"{actual!r} or use another database"
        )
