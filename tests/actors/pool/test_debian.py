"""The pool on Debian's PostgreSQL 15: the oldest version that is supported, over its socket, TCP and TLS.

The server of the other tests comes from a wheel, is the newest, and was built without TLS.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
import trio

from actors.pool.pool import PoolActor
from actors.pool.settings import PoolSettings
from db.embedded import EmbeddedSettings
from db.settings import DatabaseSettings
from db.tx import Tx
from runtime import Fatal
from runtime.config import Secret
from runtime.testing import actor_system
from tests.actors.pool import test_churn as churn
from tests.actors.pool import test_holders as holders
from tests.actors.pool import test_outage as outage
from tests.actors.pool import test_wakeups as wake
from tests.actors.pool_fixtures import POOL, pool_harness
from tests.postgres_cluster import Cluster, temporary_root
from tests.vpn.certificate import make_certificate

BINARIES = Path("/usr/lib/postgresql/15/bin")
REPOSITORY = Path(__file__).parent.parent.parent.parent
SUITE = {
    "statements": (
        "tests/db/driver/test_begin.py",
        "tests/db/driver/test_bridge.py",
        "tests/db/driver/test_classify_server.py",
        "tests/db/driver/test_pooler.py",
    ),
    "storms": ("tests/actors/pool/test_churn.py",),
    "leases": (
        "tests/actors/pool/test_ambiguous.py",
        "tests/actors/pool/test_holders.py",
        "tests/actors/pool/test_limits.py",
        "tests/actors/pool/test_wakeups.py",
    ),
    "sessions": ("tests/actors/pool/test_altered_tables.py", "tests/db/driver/test_statements.py"),
}
"""What must pass on any server that is supported, in parts of about the same length."""

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not (BINARIES / "postgres").exists(), reason="needs Debian's postgresql-15"),
]


@attrs.frozen
class Debian:
    """A server that can be reached with and without encryption."""

    cluster: Cluster
    authority: Path
    """The certificate that clients have to trust."""

    def dsn(self, way: str, database: str) -> str:
        """The address of a database by that way."""
        if way == "tcp":
            return self.cluster.tcp_dsn(database, sslmode="disable")
        return self.cluster.tcp_dsn(database, sslmode="verify-full", sslrootcert=self.authority)


@pytest.fixture(scope="module")
def debian() -> Iterator[Debian]:
    """One server for these tests."""
    root = temporary_root()
    certificate, key = make_certificate(root, "localhost")
    # Kept until the server is gone, so that nobody else is given the port: it may be bound twice, and listened on once.
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(reserved.getsockname()[1]),
            "ssl": "on",
            "ssl_cert_file": str(certificate),
            "ssl_key_file": str(key),
        }
        key.chmod(0o600)
        server = Cluster(root, binaries=BINARIES, settings=settings)
        if server.user is not None:
            os.chown(certificate, server.user.pw_uid, server.user.pw_gid)
            os.chown(key, server.user.pw_uid, server.user.pw_gid)
        try:
            server.initialise()
            server.start()
            yield Debian(server, certificate)
        finally:
            server.stop()
            shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def way() -> str:
    """How the server is reached, unless a test says otherwise."""
    return "tls"


@pytest.fixture
def empty_database_dsn(debian: Debian, way: str) -> Iterator[str]:
    """A fresh database by that way."""
    name = debian.cluster.create_database()
    yield debian.dsn(way, name)
    debian.cluster.drop_database(name)


async def _how(tx: Tx) -> tuple[int, bool, bool]:
    row = await tx.fetchrow(
        "SELECT current_setting('server_version_num')::int / 10000 AS version, inet_client_addr() IS NOT NULL AS tcp, "
        "ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    )
    assert row is not None
    return row["version"], row["tcp"], row["ssl"]


@pytest.mark.parametrize("way", ["tcp", "tls"])
async def test_each_way_is_what_it_is_called(empty_database_dsn: str, way: str) -> None:
    async with pool_harness(empty_database_dsn, PoolSettings(size=2)) as harness:
        assert await harness.pool.run("how", _how) == (15, True, way == "tls")


@pytest.mark.parametrize("way", ["tcp", "tls"])
async def test_a_storm_of_cancels_loses_nothing(empty_database_dsn: str) -> None:
    await churn.test_cancels_at_random_points_lose_nothing(empty_database_dsn)


async def test_terminated_backends_lose_nothing(debian: Debian, empty_database_dsn: str) -> None:
    await churn.test_terminated_backends_lose_nothing(debian.cluster, empty_database_dsn)


async def test_idle_connections_that_were_terminated_cost_no_caller_an_error(empty_database_dsn: str) -> None:
    await outage.test_idle_connections_that_were_terminated_cost_no_caller_an_error(empty_database_dsn)


async def test_a_stopped_backend_costs_no_place(empty_database_dsn: str) -> None:
    await outage.test_a_stopped_backend_costs_no_place(empty_database_dsn)


async def test_a_shielded_holder_loses_its_connection_by_force(empty_database_dsn: str) -> None:
    await holders.test_a_shielded_holder_in_a_statement_is_woken_by_force(empty_database_dsn)


async def test_a_worker_is_woken_and_again_after_an_interruption(debian: Debian, empty_database_dsn: str) -> None:
    await wake.test_after_an_interruption_all_are_woken_since_something_may_have_gone_unheard(
        debian.cluster, empty_database_dsn
    )


async def test_a_server_with_a_certificate_that_is_not_trusted_ends_the_process_with_78(
    debian: Debian, tmp_path: Path
) -> None:
    stranger, _ = make_certificate(tmp_path, "localhost")
    dsn = debian.cluster.tcp_dsn(sslmode="verify-full", sslrootcert=stranger)
    with trio.fail_after(15), pytest.raises(BaseExceptionGroup) as caught:
        async with actor_system() as system:
            database = DatabaseSettings(dsn=Secret(dsn), purpose="test")
            ref = await system.start(PoolActor(database, PoolSettings(size=1), EmbeddedSettings()), name=POOL)
            await system.exited(ref)
    fatal, rest = caught.value.split(Fatal)
    assert rest is None
    assert fatal is not None
    (error,) = fatal.exceptions
    assert isinstance(error, Fatal)
    assert error.exit_code == 78
    assert "a certificate that is not trusted" in str(error)
    assert "sslrootcert" in str(error)


@pytest.mark.parametrize("part", SUITE)
def test_the_essential_suite_passes_on_postgresql_15(part: str) -> None:
    env = {**os.environ, "ATLAS_TEST_POSTGRES_BIN": str(BINARIES), "ATLAS_TEST_BRIDGE": "inline"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *SUITE[part]],
        env=env,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    if part != "statements":  # they open connections without a pool
        assert re.search(r"pools ran on: inline \d+ times", done.stdout)
