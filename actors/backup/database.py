"""The database as one file, and a database from it: by `pg_dump` and `pg_restore`, as children that die with us.

A dump is one snapshot, taken beside the running service, and needs no stop. It goes back in one transaction, so a database
has all of it or nothing.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO
from urllib.parse import parse_qsl, quote, unquote, urlencode

import attrs
import trio

from actors.backup.errors import BackupFailed, RestoreFailed, RestoreRefused
from db.embedded import Cluster, EmbeddedSettings, layout_of
from db.embedded.binaries import Binaries, find_binaries
from db.schema.migrate import load_migrations
from db.tx import Tx
from runtime import unwrap_group
from runtime.child_process import PIPE, spawn

_LONGEST_ERROR = 2000


@attrs.frozen
class DatabaseFacts:
    """What a backup says of its database."""

    database_id: str
    purpose: str
    schema: int
    """The number of the last migration."""
    server: str
    """Version of the server, such as 18.4."""


async def read_facts(tx: Tx) -> DatabaseFacts:
    """What this database is; also one whose schema is older than this program's."""
    row = await tx.fetchrow(
        """
        SELECT i.database_id::text, i.purpose, current_setting('server_version') AS server,
               (SELECT max(version) FROM schema_migrations) AS schema
        FROM database_identity i
        """
    )
    assert row is not None, "a database of ours has an identity"
    return DatabaseFacts(row["database_id"], row["purpose"], row["schema"], str(row["server"]).split()[0])


async def free_instances(tx: Tx) -> None:
    """Let nobody hold a restored database: whoever did works on the one that was backed up."""
    await tx.execute("UPDATE epochs SET held_until = atlas_now() WHERE held_until > atlas_now()")


async def count_tables(tx: Tx) -> int:
    """How many tables there are that are not the server's own."""
    found: int = await tx.fetchval(
        """
        SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'v', 'm') AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
        """
    )
    return found


def tools(settings: EmbeddedSettings) -> Binaries:
    """PostgreSQL's programs, as for the embedded server. Raises ClusterError when there are none."""
    return find_binaries(settings, layout_of(settings))


async def dump(binaries: Binaries, dsn: str, target: BinaryIO) -> None:
    """Write a dump in PostgreSQL's custom format to `target`. Raises BackupFailed with what pg_dump said."""
    options = ("--format=custom", "--no-owner", "--no-privileges", "--no-password")
    said, status = await _run(binaries, "pg_dump", options, dsn, target.fileno())
    if status != 0:
        raise BackupFailed(
            f"the database could not be dumped, and no backup was made: pg_dump {binaries.version} ended with status "
            f"{status}: {said}"
        )


async def restore_dump(binaries: Binaries, dsn: str, file: Path) -> None:
    """Put a dump into an empty database, whole or not at all. Raises RestoreFailed with what pg_restore said."""
    options = ("--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges", "--no-password")
    said, status = await _run(binaries, "pg_restore", (*options, str(file)), dsn, None)
    if status != 0:
        raise RestoreFailed(
            f"the database could not be restored and has nothing of it: pg_restore {binaries.version} ended with status "
            f"{status}: {said}; mend what it says and repeat the command"
        )


def check_versions(facts: DatabaseFacts, dump_version: str, binaries: Binaries) -> None:
    """Refuse a backup that these programs cannot take. Raises RestoreRefused."""
    newest = load_migrations()[-1].version
    if facts.schema > newest:
        raise RestoreRefused(
            f"the backup has a database of schema {facts.schema:04}, and this program knows {newest:04}: restore it with the "
            "version that made it, or a newer one. Nothing was changed"
        )
    made_by = int(dump_version.split(".")[0])
    if made_by > binaries.major:
        raise RestoreRefused(
            f"the backup was made by pg_dump {dump_version}, and the programs in {binaries.directory} are "
            f"{binaries.version}: set embedded.binaries to those of PostgreSQL {made_by} or newer. Nothing was changed"
        )


@contextlib.asynccontextmanager
async def run_for(cluster: Cluster) -> AsyncIterator[None]:
    """An embedded server for the block; afterwards it has been stopped in order. Raises ClusterError if it does not start."""
    server = cluster.start()
    assert server.stderr is not None
    words = server.stderr
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_drain, words)
            await cluster.until_ready(server)
            yield
            await server.stop(signal.SIGINT, grace=60)
    except BaseExceptionGroup as group:
        raise unwrap_group(group) from None
    finally:
        with trio.CancelScope(shield=True):
            await server.close()


async def _drain(stream: trio.lowlevel.FdStream) -> None:
    try:
        async for _ in stream:
            pass
    except trio.ClosedResourceError:
        pass


async def _run(
    binaries: Binaries, program: str, options: Sequence[str], dsn: str, stdout: int | None
) -> tuple[str, int]:
    address, secret = without_password(dsn)
    child = spawn(
        [binaries.program(program), *options, f"--dbname={address}"],
        name=program,
        env={**os.environ, **secret, "PGAPPNAME": f"atlas/{program}"},
        stdout=PIPE if stdout is None else stdout,
        stderr=PIPE,
    )
    assert child.stderr is not None
    said = b""
    try:
        async for part in child.stderr:
            said = (said + part)[:_LONGEST_ERROR]
        status = await child.wait()
    finally:
        await child.close()
    return " ".join(said.decode(errors="replace").split()), status


def without_password(dsn: str) -> tuple[str, Mapping[str, str]]:
    """The DSN as it may stand on a command line, which everybody can read, and the environment with its password."""
    scheme, _, rest = dsn.partition("://")
    authority, slash, path = rest.partition("/")
    path, _, query = path.partition("?")
    user, at, hosts = authority.rpartition("@")
    name, _, password = user.partition(":")
    pairs = parse_qsl(query, keep_blank_values=True)
    in_query = [value for key, value in pairs if key == "password"]
    left = urlencode([(key, value) for key, value in pairs if key != "password"], quote_via=quote, safe="/")
    found = in_query[-1] if in_query else unquote(password)
    shown = f"{scheme}://{name}{at}{hosts}{slash}{path}{'?' + left if left else ''}"
    return shown, {"PGPASSWORD": found} if found else {}
