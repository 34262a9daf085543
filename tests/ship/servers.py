"""PostgreSQL servers with an archive of their write-ahead log, as an operator sets them up."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.postgres_cluster import Cluster, temporary_root

DATABASE = "atlas"


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def settings_for(archive: Path) -> dict[str, str]:
    """What docs/howto/postgresql.md says, and what the tests of other things switch off."""
    return {
        "wal_level": "replica",
        "max_wal_senders": "5",
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "listen_addresses": "127.0.0.1",
        "port": free_port(),
        "archive_mode": "on",
        "archive_command": f"test ! -f {archive}/%f && cp %p {archive}/%f",
        "archive_timeout": "60",
    }


@contextmanager
def archived_server() -> Iterator[tuple[Cluster, Path]]:
    """A server with an empty database, and the directory of its archive, which outlives it."""
    root, archive = temporary_root(), temporary_root()
    server = Cluster(root, settings=settings_for(archive))
    owned(server, archive)
    try:
        server.initialise()
        server.start()
        server._run("createdb", "-h", str(root), "-p", server.port, "-U", "atlas", DATABASE)
        yield server, archive
    finally:
        server.stop()
        shutil.rmtree(root, ignore_errors=True)
        shutil.rmtree(archive, ignore_errors=True)


def owned(server: Cluster, directory: Path) -> None:
    """Let the account that runs the server write there."""
    if server.user is not None:
        os.chown(directory, server.user.pw_uid, server.user.pw_gid)


@contextmanager
def copied_server(of: Cluster, settings: Mapping[str, str], *options: str) -> Iterator[Cluster]:
    """A base backup of a running server as a server of its own, which is not started yet; other settings on top."""
    root = temporary_root()
    copy = Cluster(root, settings={**of.settings, "port": free_port(), **settings})
    owned(copy, root)
    try:
        arguments = ("-D", str(copy.data), "-h", str(of.root), "-p", of.port, "-U", "atlas", "--checkpoint=fast")
        copy._run("pg_basebackup", *arguments, *options)
        yield copy
    finally:
        copy.stop()
        shutil.rmtree(root, ignore_errors=True)


def ask(server: Cluster, query: str, database: str = DATABASE) -> str:
    """The first column of the first row, as psql prints it."""
    done = subprocess.run(
        [str(server.binaries / "psql"), "-XAtqc", query, server.dsn(database)],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()
