"""The key file of payout destinations: made once, beside the data and outside the database, and read where it is needed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from db.embedded import EmbeddedSettings, layout_of
from db.settings import WithdrawalSettings
from db.work.sealing import Seal, SealError, new_key_text, read_seal
from runtime.exit_codes import NO_PERMISSION

KEY_FILE: Final = "payout.key"
_LONGEST: Final = 65536


def key_path(withdrawals: WithdrawalSettings, embedded: EmbeddedSettings) -> Path:
    """`withdrawals.key_file`, else `payout.key` in the data directory."""
    return withdrawals.key_file or layout_of(embedded).home / KEY_FILE


def open_seal(withdrawals: WithdrawalSettings, embedded: EmbeddedSettings) -> Seal:
    """Read the key file, and make it first where there is none: mode 0600, never over another one.

    Raises SealError: the file may not be read or made, or is open to others (exit code 77), or holds no key (78).
    """
    path = key_path(withdrawals, embedded)
    try:
        return _read(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _unusable(path, "cannot be read", error) from error
    try:
        _make(path)
        return _read(path)
    except OSError as error:
        raise _unusable(path, "cannot be made", error) from error


def seal_opener(withdrawals: WithdrawalSettings, embedded: EmbeddedSettings) -> Callable[[], Seal]:
    """A function that opens the seal when it is first needed, and keeps it. Raises as `open_seal`, until that succeeds."""
    kept: list[Seal] = []

    def opened() -> Seal:
        if not kept:
            kept.append(open_seal(withdrawals, embedded))
        return kept[0]

    return opened


def _read(path: Path) -> Seal:
    with path.open("rb") as opened:
        mode = stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
        content = opened.read(_LONGEST)
    if mode & 0o007:
        raise SealError(
            f"{path} is open to everybody (mode {mode:04o}): chmod 600 (withdrawals.key_file)", NO_PERMISSION
        )
    return read_seal(content.decode("utf-8", "replace"), str(path))


def _make(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        with os.fdopen(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "w") as opened:
            opened.write(new_key_text())
            opened.flush()
            os.fsync(opened.fileno())
        try:
            # A link is made whole or not at all, and of two processes one makes it: the other one reads that one's key.
            os.link(made, path)
        except FileExistsError:
            return
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    finally:
        made.unlink(missing_ok=True)


def _unusable(path: Path, what: str, error: OSError) -> SealError:
    code = NO_PERMISSION if isinstance(error, PermissionError) else SealError.exit_code
    return SealError(
        f"the key file of payout destinations {what}: {path}: {error.strerror or error}; withdrawals.key_file names another one",
        code,
    )
