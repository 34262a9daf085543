"""Where the control socket is."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from runtime.config.config import Config
from runtime.errors import ConfigError

LONGEST: Final = 107
"""Bytes of a unix socket's path that the kernel takes."""


def socket_path(config: Config, env: Mapping[str, str]) -> Path:
    """`[control] socket`, else `$XDG_RUNTIME_DIR/atlas/<name>.sock`, else a directory of the user's own in the temp dir.

    Raises ConfigError when the path is longer than 107 bytes.
    """
    name = f"{config.supervisor.name}.sock"
    if config.control.socket is not None:
        base = config.path.parent if config.path is not None else Path()
        path = (base / config.control.socket).absolute()
        origin = "[control] socket"
    elif env.get("XDG_RUNTIME_DIR"):
        path = Path(env["XDG_RUNTIME_DIR"]) / "atlas" / name
        origin = "its default, from XDG_RUNTIME_DIR and [supervisor] name"
    else:
        path = Path(tempfile.gettempdir()) / f"atlas-{os.geteuid()}" / name
        origin = "its default, from the temporary directory and [supervisor] name"
    length = len(os.fsencode(path))
    if length > LONGEST:
        raise ConfigError(
            f"the path of the control socket is {length} bytes long and may have {LONGEST}: {path} ({origin}); "
            "set [control] socket (or ATLAS__CONTROL__SOCKET) to a shorter one"
        )
    return path


def make_directory(path: Path) -> None:
    """Make the socket's directory with mode 0700. Raises ConfigError when it cannot be made or belongs to somebody else.

    A directory in a place where everybody may write (the temporary directory) could have been made by anybody.
    """
    directory = path.parent
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.stat() if directory.parent.stat().st_uid == os.geteuid() else directory.lstat()
    except OSError as error:
        raise ConfigError(
            f"the directory of the control socket cannot be used: {error}; set [control] socket to another place"
        ) from error
    is_ours = found.st_uid in (os.geteuid(), 0)
    if not stat.S_ISDIR(found.st_mode) or not is_ours or (found.st_mode & 0o002 and not found.st_mode & stat.S_ISVTX):
        raise ConfigError(
            f"the directory of the control socket, {directory}, belongs to somebody else (uid {found.st_uid}) or lets "
            "everybody write; set [control] socket to another place"
        )
