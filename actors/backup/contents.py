"""Which files make an installation the same installation again, and where they go when it is restored.

Beside the database these are: the configuration, with the operators; every file that a setting ending in `_file` names, which is
where secrets are, and the folder `secrets` beside it; the key of payout destinations; and of each embedded node its identity
(REALITY keys and ports, which all links name), its token and who owns it. The keys of customers are not copied from nodes: the
database wants them, and reconciling puts them there at the start, while an older list would let in for a moment who was removed.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from actors.backup.errors import BackupFailed

NODE_FILES: Final = ("identity.json", "token", "owner.json")
"""What of a node's data directory makes it the same node."""
INSTALLATION, DATA, OUTSIDE = "installation", "data", "outside"
"""Where a file was: beside the configuration, in `embedded.data_dir`, or elsewhere on the machine."""
SECRETS: Final = "secrets"
"""Beside the configuration: the folder that `atlas init` makes. Kept as a whole."""
_LONGEST: Final = 4 << 20
_PREFIX: Final = "ATLAS__"


@attrs.frozen
class KeptFile:
    """One file of an installation."""

    place: str
    """INSTALLATION, DATA or OUTSIDE."""
    path: str
    """Relative to that place; absolute, if it was elsewhere."""
    content: bytes = attrs.field(repr=False)
    setting: str = ""
    """The setting that names it, if one does."""


def collect(
    config: Path, data: Path, payout_key: Path, env: Mapping[str, str], more: Sequence[Path] = ()
) -> list[KeptFile]:
    """All files of the installation with this configuration and data directory, and those of `more`.

    The nodes' files are read before the database is dumped: a node is recognised by any nonce that the database has had. Raises
    BackupFailed for one that is named and cannot be read.
    """
    home = config.absolute().parent
    text = _read(config)
    found = [KeptFile(INSTALLATION, config.name, text)]
    seen = {config.absolute()}
    named = [(setting, home / Path(path).expanduser()) for setting, path in _named(tomllib.loads(text.decode()), ())]
    named += [(name, Path(value).absolute()) for name, value in env.items() if _is_file_variable(name)]
    if payout_key.exists():
        named.append(("withdrawals.key_file", payout_key.absolute()))
    named += [("", path.absolute()) for path in (*_files(home / SECRETS), *more)]
    for setting, named_path in named:
        path = Path(os.path.normpath(named_path))
        if path == payout_key.absolute() and not path.exists():
            continue  # it is made when the first destination is sealed
        if path not in seen:
            seen.add(path)
            found.append(_kept(setting, path, home, data))
    for name in sorted(path.name for path in _directories(data / "node")):
        for part in NODE_FILES:
            path = data / "node" / name / part
            if path.is_file():
                found.append(KeptFile(DATA, f"node/{name}/{part}", _read(path)))
    return found


def not_inside(env: Mapping[str, str]) -> list[str]:
    """What of this installation no file says: names of variables, without their values."""
    names = sorted(name for name in env if name.startswith(_PREFIX) and not _is_file_variable(name))
    return [*names, *(["CREDENTIALS_DIRECTORY"] if env.get("CREDENTIALS_DIRECTORY") else [])]


def _kept(setting: str, path: Path, home: Path, data: Path) -> KeptFile:
    content = _read(path, setting)
    if path.is_relative_to(data):
        return KeptFile(DATA, str(path.relative_to(data)), content, setting)
    if path.is_relative_to(home):
        return KeptFile(INSTALLATION, str(path.relative_to(home)), content, setting)
    return KeptFile(OUTSIDE, str(path), content, setting)


def _named(table: Mapping[str, Any], at: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _named(value, (*at, key))
        elif key.endswith("_file") and isinstance(value, str):
            yield ".".join((*at, key)), value


def _is_file_variable(name: str) -> bool:
    return name.startswith(_PREFIX) and name.endswith("_FILE")


def _directories(path: Path) -> list[Path]:
    return [each for each in path.iterdir() if each.is_dir()] if path.is_dir() else []


def _files(path: Path) -> list[Path]:
    return sorted(each for each in path.iterdir() if each.is_file()) if path.is_dir() else []


def _read(path: Path, setting: str = "") -> bytes:
    named = f", which {setting} names," if setting else ""
    try:
        with path.open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise BackupFailed(f"{path}{named} is no ordinary file; no backup was made")
            content = file.read(_LONGEST + 1)
    except OSError as error:
        raise BackupFailed(f"{path}{named} cannot be read: {error.strerror}; no backup was made") from error
    if len(content) > _LONGEST:
        raise BackupFailed(f"{path}{named} is longer than {_LONGEST} bytes; no backup was made")
    return content
