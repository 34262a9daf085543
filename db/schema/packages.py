"""Migrations of packages beside this one: tables of their own, numbered by themselves, in a schema of their own.

A package that `database.packages` names has a folder `migrations` with files named like `0001_what_it_does.sql`. They are applied
after ours, each once, each in a transaction of its own. What they create without naming a schema comes into the one that is
called as the package is; so no table of theirs meets one of ours, now or later, and none of theirs meets another package's.
Queries name it: `SELECT … FROM my_package.notes`.
"""

import importlib.util
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from db.schema.migrate import (
    DDL_LOCK_TIMEOUT,
    Migration,
    MigrationError,
    load_migrations,
    lock_migrations,
    not_applied,
    transaction,
)
from db.tx import Tx

_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
_OWN_TABLE = """
    CREATE TABLE IF NOT EXISTS atlas_packages.migrations (
        package    text NOT NULL,
        version    integer NOT NULL,
        name       text NOT NULL,
        checksum   text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (package, version)
    )
"""
_TAKEN = frozenset({"public", "information_schema", "atlas_packages"})


def package_migrations(package: str) -> tuple[Migration, ...]:
    """The migrations of a package in order. Raises MigrationError: no such package or folder, a file misnamed, a gap."""
    if not _NAME.fullmatch(package) or package in _TAKEN or package.startswith("pg_"):
        raise MigrationError(
            f"database.packages: {package!r} cannot be the name of a schema; a package is named by lower-case letters, digits "
            "and _, and not as a schema of PostgreSQL's or ours"
        )
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise MigrationError(
            f"database.packages: there is no package {package!r}; install it into this environment, or put its folder on "
            "PYTHONPATH"
        )
    directory = Path(next(iter(found.submodule_search_locations))) / "migrations"
    if not directory.is_dir():
        raise MigrationError(f"database.packages: {package!r} has no folder `migrations`: {directory} is looked for")
    return load_migrations(directory)


async def migrate_packages(connection: Tx, packages: Sequence[str], *, wait: float = 60.0) -> tuple[str, ...]:
    """Bring the packages' own tables up to date; returns what was applied now, as `package/0001_name`.

    `connection` must not be in a transaction. Several processes take turns, as for our own. Raises MigrationError: see
    `package_migrations`; a released file was changed; the tables are newer than the package; a migration failed.
    """
    applied: list[str] = []
    for package in packages:
        known = package_migrations(package)
        while done := await transaction(connection, partial(_apply_next, package, known, wait)):
            applied.append(f"{package}/{done}")
    return tuple(applied)


async def check_packages(tx: Tx, packages: Sequence[str]) -> None:
    """Return if the tables of all packages are exactly theirs; raises MigrationError if not."""
    for package in packages:
        known = package_migrations(package)
        has_table = await tx.fetchval("SELECT to_regclass('atlas_packages.migrations') IS NOT NULL")
        missing = await _missing(tx, package, known) if has_table else known
        if missing:
            raise MigrationError(
                f"the tables of {package} lack {len(missing)} migrations, the first is {missing[0]}; run `atlas db migrate`, or "
                "set database.migrate_on_start and start"
            )


async def _apply_next(package: str, known: tuple[Migration, ...], wait: float, tx: Tx) -> Migration | None:
    await tx.execute(f"SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '{DDL_LOCK_TIMEOUT}'")
    await lock_migrations(tx, wait)
    await tx.execute(f"CREATE SCHEMA IF NOT EXISTS atlas_packages; {_OWN_TABLE}")
    missing = await _missing(tx, package, known)
    if not missing:
        return None
    migration = missing[0]
    try:
        # The name was checked: it is a plain identifier.
        await tx.execute(f"CREATE SCHEMA IF NOT EXISTS {package}; SET LOCAL search_path = {package}, public")
        await tx.execute(migration.sql)
        await tx.execute("SET LOCAL search_path = DEFAULT")
    except Exception as error:
        raise MigrationError(
            f"migration {package}/{migration} failed and was rolled back: {error}. The database is as it was before; put right "
            "what the server names and start again."
        ) from error
    await tx.execute(
        "INSERT INTO atlas_packages.migrations (package, version, name, checksum) VALUES ($1, $2, $3, $4)",
        package,
        migration.version,
        migration.name,
        migration.checksum,
    )
    return migration


async def _missing(tx: Tx, package: str, known: tuple[Migration, ...]) -> tuple[Migration, ...]:
    rows = await tx.fetch(
        "SELECT version, name, checksum FROM atlas_packages.migrations WHERE package = $1 ORDER BY version", package
    )
    if len(rows) > len(known):
        newest = rows[-1]
        raise MigrationError(
            f"the tables of {package} are newer than the package: they have {newest['version']:04}_{newest['name']}, it knows "
            f"{len(known)} migrations. Install the newer one."
        )
    return not_applied(rows, known, f"{package}/")
