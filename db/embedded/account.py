"""The account that PostgreSQL runs as when the supervisor is root."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess

import attrs

from db.embedded.errors import ClusterError


@attrs.frozen
class Account:
    """A numeric user and group."""

    uid: int
    gid: int


def ensure_account(name: str) -> Account:
    """The system account `name`, created if this machine does not have it. Raises `ClusterError` if it cannot be."""
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
    created = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    found = _look_up(name)
    if found is None:  # an account made by someone else meanwhile is as good
        raise ClusterError(
            f"useradd could not create the account {name!r} that runs PostgreSQL: {created.stderr.strip()}; "
            "create it, or set embedded.service_user to one that exists",
            exit_code=os.EX_NOUSER,
        )
    return found


def _look_up(name: str) -> Account | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(entry.pw_uid, entry.pw_gid)
