"""Where the embedded parts keep their files, and who owns them. Pure of side effects but for looking at the file system."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path

import attrs

from db.embedded.settings import EmbeddedSettings

_SYSTEM_HOME = Path("/var/lib/atlas")
_SOCKET_NAME = ".s.PGSQL.5432"
_UNIX_PATH_LIMIT = 107  # sun_path of Linux, without its final zero


@attrs.frozen
class Layout:
    """The files of one embedded installation. Every process that reads the same settings computes the same layout."""

    home: Path
    "Holds everything below; shared by the database and the node."
    service_user: str | None
    "The account that PostgreSQL runs as; None: the supervisor's own."

    @property
    def data(self) -> Path:
        """PostgreSQL's data directory."""
        return self.home / "postgres"

    @property
    def node(self) -> Path:
        """The embedded node agent's data directory."""
        return self.home / "node"

    @property
    def sockets(self) -> Path:
        """PostgreSQL's socket directory, 0700: who may enter it is the database's owner, without a password."""
        inside = self.home / "run"
        if len(os.fsencode(inside / _SOCKET_NAME)) <= _UNIX_PATH_LIMIT:
            return inside
        return Path(tempfile.gettempdir()) / f"atlas-{os.getuid()}-{_fingerprint(self.home)}"

    @property
    def binaries_copy(self) -> Path:
        """Where PostgreSQL's binaries are copied when the service user cannot reach the installed ones."""
        return self.home / "postgresql"


def layout_of(settings: EmbeddedSettings) -> Layout:
    """The layout for these settings, run by the current user."""
    home = settings.data_dir.absolute()
    if os.getuid() != 0:
        return Layout(home=home, service_user=None)
    if not reachable_by_others(home.parent):
        home = _SYSTEM_HOME / f"{home.parent.name}-{_fingerprint(home)}"
    return Layout(home=home, service_user=settings.service_user)


def reachable_by_others(path: Path) -> bool:
    """Whether an account that owns nothing here may walk down to `path`; parents that do not exist yet count as reachable."""
    for directory in (path, *path.parents):
        try:
            mode = directory.stat().st_mode
        except PermissionError:
            return False
        except OSError:  # not there, or not possible: the call that makes it says why
            continue
        if stat.S_ISDIR(mode) and not mode & stat.S_IXOTH:
            return False
    return True


def _fingerprint(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
