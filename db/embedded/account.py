"""The account that PostgreSQL runs as when the supervisor is root."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import attrs

from db.embedded.errors import ClusterError

_PASSWD = Path("/etc/passwd")


@attrs.frozen
class Account:
    """A numeric user and group."""

    uid: int
    gid: int


def ensure_account(name: str) -> Account:
    """The system account `name`, created if this machine does not have it. Raises `ClusterError` if it cannot be.

    Blocks while another process of ours creates it: `useradd` looks for the name before it takes its own lock, so of two at
    the same time the later one gives the name to another number, and what the first already owns belongs to nobody.
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
    # the old one finds the account when its turn comes, as everybody does who comes later.
    with _PASSWD.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _look_up(name: str) -> Account | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(entry.pw_uid, entry.pw_gid)
