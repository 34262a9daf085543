"""A pooler between us and PostgreSQL (Debian's PgBouncer, in both its modes) is found out, and called by its name."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from db.driver.connection import SessionLimits, session_settings
from db.driver.session import open_session
from db.errors import DatabaseUnusable
from tests.postgres_cluster import Cluster, temporary_root

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(PGBOUNCER is None, reason="needs Debian's pgbouncer"),
]
IGNORED = ", ".join(session_settings("", SessionLimits()))
"""What an operator adds when the pooler refuses our settings one after the other."""


@contextmanager
def pgbouncer(cluster: Cluster, mode: str, ignored: str) -> Iterator[Path]:
    """A running PgBouncer in front of the server; gives the directory of its socket, whose port is 6432."""
    assert PGBOUNCER is not None
    root = temporary_root()
    owner = cluster.user
    try:
        (root / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={cluster.root} port={cluster.port} user=atlas\n[pgbouncer]\nauth_type = any\n"
            f"listen_addr =\nunix_socket_dir = {root}\npool_mode = {mode}\nignore_startup_parameters = {ignored}\n"
        )
        if owner is not None:
            os.chown(root, owner.pw_uid, owner.pw_gid)
        with subprocess.Popen(
            [PGBOUNCER, str(root / "pgbouncer.ini")],
            stderr=subprocess.PIPE,
            text=True,
            user=owner.pw_uid if owner else None,
            group=owner.pw_gid if owner else None,
            extra_groups=[] if owner else None,
        ) as process:
            try:
                assert process.stderr is not None
                assert any("process up" in line for line in process.stderr), "PgBouncer did not start"
                yield root
            finally:
                process.kill()
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.mark.parametrize("ignored", ["extra_float_digits", IGNORED], ids=["as it comes", "settings ignored"])
@pytest.mark.parametrize("mode", ["session", "transaction"])
async def test_a_pooler_is_refused_by_its_name_with_the_cure(
    cluster: Cluster, empty_database_dsn: str, mode: str, ignored: str
) -> None:
    with pgbouncer(cluster, mode, ignored) as directory:
        dsn = f"postgresql://atlas:hunter2@/{_name(empty_database_dsn)}"
        with pytest.raises(DatabaseUnusable) as caught:
            async with open_session(f"{dsn}?host={directory}&port=6432", "atlas/test"):
                pass
    text = str(caught.value)
    assert caught.value.exit_code == 78
    assert "is not PostgreSQL itself but a connection pooler, such as PgBouncer" in text
    assert "database.dsn" in text
    assert "docs/pool.md" in text
    assert str(directory) in text
    assert "hunter2" not in text


async def test_another_programs_statement_is_not_run_by_asking_who_is_there(
    cluster: Cluster, empty_database_dsn: str
) -> None:
    name = _name(empty_database_dsn)
    cluster.sql("CREATE TABLE theirs (); INSERT INTO theirs DEFAULT VALUES", name)
    with pgbouncer(cluster, "transaction", IGNORED) as directory:
        dsn = f"postgresql://atlas@/{name}?host={directory}&port=6432"
        names = "".join(f"PREPARE __asyncpg_stmt_{number:x}__ AS DELETE FROM theirs;" for number in range(1, 40))
        await trio.run_process(
            [str(cluster.binaries / "psql"), "-X", "-q", "-c", f"{names} PREPARE p AS SELECT 1", dsn],
            capture_stdout=True,
        )
        with pytest.raises(DatabaseUnusable, match="PgBouncer"):
            async with open_session(dsn, "atlas/test"):
                pass
    assert cluster.sql("SELECT count(*) FROM theirs", name) == "1"


def _name(dsn: str) -> str:
    return dsn.rpartition("?")[0].rpartition("/")[2]
