"""One PostgreSQL cluster on this machine: its account, its files, and the command that runs it in the foreground.

It is initialised once; the actor that starts it is its parent.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import attrs
import trio

from db.embedded.binaries import Binaries, find_binaries
from db.embedded.layout import Layout, layout_of
from db.embedded.settings import ClusterError, EmbeddedSettings
from runtime.child_process import PIPE, ChildProcess, spawn

_PASSWD = Path("/etc/passwd")


@attrs.frozen
class Account:
    """A numeric user and group."""

    uid: int
    gid: int


def ensure_account(name: str) -> Account:
    """The system account `name`, created if this machine does not have it. Raises `ClusterError` if it cannot be.

    Blocks while another process of ours creates it: `useradd` looks for the name before it takes its own lock, so of two at
    the same time the later one gives the name to another number, and what the first already owns has no owner.
    """
    found = _look_up(name)
    if found is not None:
        return found
    useradd = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if useradd is None:
        raise ClusterError(
            f"there is no account {name!r} to run PostgreSQL (it refuses root) and no useradd to create it with; "
            "create the account, or set embedded.service_user to one that exists",
            exit_code=os.EX_NOUSER,
        )
    command = [useradd, "--system", "--no-create-home", "--home-dir", "/", "--shell", "/usr/sbin/nologin", name]
    said = ""
    with _one_at_a_time():
        found = _look_up(name)
        if found is None:
            created = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
            said = created.stderr.strip()
            found = _look_up(name)
    if found is None:  # an account made by someone else meanwhile is as good
        raise ClusterError(
            f"useradd could not create the account {name!r} that runs PostgreSQL: {said}; "
            "create it, or set embedded.service_user to one that exists",
            exit_code=os.EX_NOUSER,
        )
    return found


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    # Locked is the file itself, whose name every process knows. It is replaced by each change: a process that waited on
    # the old one finds the account when its turn comes, as every later process does.
    with _PASSWD.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _look_up(name: str) -> Account | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(entry.pw_uid, entry.pw_gid)


SUPERUSER = "atlas"
DATABASE = "atlas"
_READY_POLL = 0.005
_CODES = {
    errno.EROFS: os.EX_NOPERM,
    errno.ENOENT: os.EX_CONFIG,  # a file system that makes no directories, such as /proc
    errno.ENAMETOOLONG: os.EX_CONFIG,
    errno.ELOOP: os.EX_CONFIG,
}
"""Exit codes of what is wrong with the place; anything else, such as a full disk, may pass."""
_STATUS_LINE = 7  # of postmaster.pid, counted from zero: the postmaster's own state


@attrs.frozen
class Cluster:
    """An embedded cluster that is ready to be started."""

    layout: Layout
    binaries: Binaries
    account: Account | None
    "Who it runs as, if not the current user."

    def start(self) -> ChildProcess:
        """Start the server in the foreground as a child; its log comes on `stderr`. SIGINT, also sent by the kernel when
        this process dies, stops it at once and cleanly. Must be called on the main thread."""
        return spawn(
            self._argv(),
            name="postgres",
            user=None if self.account is None else self.account.uid,
            group=None if self.account is None else self.account.gid,
            cwd="/",
            stderr=PIPE,
            death_signal=signal.SIGINT,
        )

    async def until_ready(self, server: ChildProcess) -> None:
        """Return when the server accepts connections. Raises `ClusterError` if it ends instead."""
        pid_file = self.layout.data / "postmaster.pid"
        while True:
            if (status := server.returncode) is not None:
                raise ClusterError(
                    f"PostgreSQL ended with status {status} while it started on {self.layout.data}; its own words are in the "
                    "lines above",
                    exit_code=os.EX_UNAVAILABLE,
                )
            lines = _lines(pid_file)
            if len(lines) > _STATUS_LINE and lines[0] == str(server.pid) and lines[_STATUS_LINE].strip() == "ready":
                return
            await trio.sleep(_READY_POLL)

    async def wait_for_predecessor(self) -> None:
        """Return when no server of an earlier supervisor is still shutting down on the same data. Waits for ever."""
        lines = _lines(self.layout.data / "postmaster.pid")
        if not lines or not lines[0].isdigit():
            return
        pid = int(lines[0])
        try:
            if os.fsencode(self.layout.data) not in Path(f"/proc/{pid}/cmdline").read_bytes():
                return  # the number belongs to another process by now
            pidfd = os.pidfd_open(pid)
        except (FileNotFoundError, ProcessLookupError):
            return
        try:
            await trio.lowlevel.wait_readable(pidfd)
        finally:
            os.close(pidfd)

    def _argv(self) -> list[str]:
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.layout.sockets),
            "unix_socket_permissions": "0700",
            "logging_collector": "off",
            "log_destination": "stderr",
            "log_line_prefix": "",
            # a torn cluster after a power cut costs more than the milliseconds that these would save
            "fsync": "on",
            "full_page_writes": "on",
        }
        argv = [str(self.binaries.program("postgres")), "-D", str(self.layout.data)]
        for name, value in options.items():
            argv += ["-c", f"{name}={value}"]
        return argv


async def prepare(settings: EmbeddedSettings) -> Cluster:
    """Make everything ready to start: account, directories, binaries and, the first time, the cluster itself.

    Safe to repeat and to interrupt: a cluster that was not finished is made anew, a finished one is never touched. Raises
    `ClusterError` if the data directory cannot be made or read, belongs to somebody else, or was made by another major version.
    """
    layout = layout_of(settings)
    account = None if layout.service_user is None else ensure_account(layout.service_user)
    try:
        layout.home.mkdir(parents=True, exist_ok=True)
        if layout.data.exists():
            _check_owner(layout.data, account)  # before anything is changed: it may be another user's installation
        if account is not None:
            layout.home.chmod(layout.home.stat().st_mode | 0o011)
        layout.sockets.mkdir(mode=0o700, exist_ok=True)
        if account is not None:
            os.chown(layout.sockets, account.uid, account.gid)
        _check_sockets(layout.sockets, account)
        cluster = Cluster(layout, find_binaries(settings, layout), account)
        if layout.data.exists():
            _check_data(cluster)
        else:
            await _initialise(cluster)
    except PermissionError as error:
        raise ClusterError(
            f"the data directory {layout.home} cannot be used by {_who(account)}: {error.strerror} on {error.filename}; "
            "correct its owner and permissions, or set embedded.data_dir to another place",
            exit_code=os.EX_NOPERM,
        ) from error
    except (FileExistsError, NotADirectoryError) as error:
        raise ClusterError(
            f"embedded.data_dir = {settings.data_dir}: {error.filename} exists and is not a directory; move it, or set "
            "embedded.data_dir to another place",
            exit_code=os.EX_CONFIG,
        ) from error
    except OSError as error:
        raise ClusterError(
            f"the data directory {layout.home} cannot be used: {error.strerror} on {error.filename or layout.home}; set "
            "embedded.data_dir to a place where files can be made",
            exit_code=_CODES.get(error.errno or 0, os.EX_UNAVAILABLE),
        ) from error
    return cluster


def embedded_dsn(settings: EmbeddedSettings) -> str:
    """How to reach the embedded database; carries no password, because the socket's directory is the key."""
    return f"postgresql://{SUPERUSER}@/{DATABASE}?host={layout_of(settings).sockets}"


def _check_sockets(directory: Path, account: Account | None) -> None:
    status = directory.stat()
    if status.st_uid != (os.getuid() if account is None else account.uid) or status.st_mode & 0o077:
        raise ClusterError(
            f"the socket directory {directory} must belong to {_who(account)} alone (mode 0700), because whoever may enter it "
            "owns the database; remove it, and it is made anew",
            exit_code=os.EX_NOPERM,
        )


def _check_owner(data: Path, account: Account | None) -> None:
    status = data.stat()
    owner = os.getuid() if account is None else account.uid
    if status.st_uid != owner:
        raise ClusterError(
            f"the data directory {data} belongs to user {status.st_uid}, but PostgreSQL would run as {_who(account)}; "
            f"`chown -R` it, or set embedded.data_dir to another place",
            exit_code=os.EX_NOPERM,
        )


def _check_data(cluster: Cluster) -> None:
    data = cluster.layout.data
    try:
        made_by = (data / "PG_VERSION").read_text().strip()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ClusterError(
            f"{data} is not a PostgreSQL data directory: it has no readable PG_VERSION; restore it from a backup, or move "
            "it away and a new one is made",
            exit_code=os.EX_CONFIG,
        ) from error
    if made_by != str(cluster.binaries.major):
        raise ClusterError(
            f"the data directory {data} was made by PostgreSQL {made_by}, but the programs in "
            f"{cluster.binaries.directory} are {cluster.binaries.version}; set embedded.binaries to a PostgreSQL "
            f"{made_by}, or upgrade the data with pg_upgrade. Nothing was changed",
            exit_code=os.EX_CONFIG,
        )


async def _initialise(cluster: Cluster) -> None:
    """Make the cluster beside its place and move it there when it is whole: an interruption leaves nothing half made."""
    layout, account = cluster.layout, cluster.account
    unfinished = layout.home / "postgres.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    if account is not None:
        os.chown(unfinished, account.uid, account.gid)
    initdb = [
        str(cluster.binaries.program("initdb")),
        *("--pgdata", str(unfinished), "--username", SUPERUSER),
        *("--auth-local", "trust", "--auth-host", "reject", "--encoding", "UTF8", "--no-locale"),
    ]
    await _run(cluster, initdb, "initdb")
    single = [str(cluster.binaries.program("postgres")), "--single", "-D", str(unfinished), "postgres"]
    await _run(cluster, single, "postgres --single", f"CREATE DATABASE {DATABASE};\n".encode())
    unfinished.rename(layout.data)


async def _run(cluster: Cluster, argv: list[str], name: str, stdin: bytes | None = None) -> None:
    account = cluster.account
    child = spawn(
        argv,
        name=name,
        user=None if account is None else account.uid,
        group=None if account is None else account.gid,
        cwd="/",
        stdin=stdin,
        stderr=PIPE,
    )
    assert child.stderr is not None
    try:
        words = b"".join([part async for part in child.stderr])
        status = await child.wait()
    finally:
        await child.close()
    if status != 0:
        said = words.decode(errors="replace").strip()
        raise ClusterError(
            f"{name} could not make a cluster in {cluster.layout.home} (status {status}): {said}",
            exit_code=os.EX_UNAVAILABLE,
        )


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []


def _who(account: Account | None) -> str:
    return f"user {os.getuid() if account is None else account.uid}"
