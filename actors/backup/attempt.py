"""One attempt to restore: what it makes is known as unfinished until it is whole, and removed by it or by the next one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from actors.backup.errors import RestoreFailed, RestoreRefused

MARK: Final = ".restoring"
"""In a directory: it is unfinished work of `atlas restore`."""
_LONGEST: Final = 1 << 16
_PATIENCE: Final = 30.0
"""How long a database server that was left behind may take to end, in seconds."""


@attrs.define(eq=False)
class Attempt:
    """A directory that is held for this attempt and was empty. Made by `begun`."""

    directory: Path
    _mark: int
    _made: list[Path] = attrs.field(init=False, factory=list)

    def take(self, home: Path) -> None:
        """Make a directory outside as well, and note it where the next attempt looks for what it has to remove.

        Raises RestoreRefused when something is in it.
        """
        if home.exists() and any(home.iterdir()):
            raise RestoreRefused(
                f"the data directory {home} (embedded.data_dir) is not empty: restore on another machine, move it away, or set "
                "ATLAS__EMBEDDED__DATA_DIR to another place. Nothing was changed"
            )
        os.pwrite(self._mark, os.fsencode(home) + b"\n", os.fstat(self._mark).st_size)
        os.fsync(self._mark)
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        (home / MARK).touch(mode=0o600)
        self._made.append(home)

    def finish(self) -> None:
        """What was made is whole."""
        for path in (*self._made, self.directory):
            (path / MARK).unlink()

    def undo(self) -> None:
        """Remove all that this attempt made; what cannot be removed, the next attempt removes."""
        for path in self._made:
            shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):
            _empty(self.directory)
            (self.directory / MARK).unlink()


@contextlib.contextmanager
def begun(directory: Path, config: str) -> Iterator[Attempt]:
    """An attempt that is undone if the block raises, and is to be finished by the block. `config` is the name of what makes the
    directory an installation.

    Raises RestoreRefused when something is in the directory that is no unfinished attempt, or another attempt works there;
    RestoreFailed for an OSError of the block.
    """
    is_new = not directory.exists()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _is_used(directory, config):
            raise RestoreRefused(
                f"{directory} is not empty, and a backup is restored into a new directory only; nothing was changed"
            )
        mark = os.open(directory / MARK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RestoreRefused(
            f"{directory} cannot be made or written: {error.strerror}; nothing was restored"
        ) from error
    attempt = Attempt(directory, mark)
    try:
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)  # of an attempt that was killed nobody holds it
        except BlockingIOError as error:
            raise RestoreRefused(f"another `atlas restore` works in {directory}; nothing was changed") from error
        try:
            _remove_unfinished(directory, mark)
            yield attempt
        except BaseException:
            attempt.undo()
            if is_new:
                with contextlib.suppress(OSError):
                    directory.rmdir()
            raise
    except OSError as error:
        raise RestoreFailed(
            f"{error.filename or directory}: {error.strerror or error}; nothing was restored: mend it and repeat the command"
        ) from error
    finally:
        os.close(mark)


def _is_used(directory: Path, config: str) -> bool:
    names = {path.name for path in directory.iterdir()}
    return bool(names) and (MARK not in names or config in names)


def _remove_unfinished(directory: Path, mark: int) -> None:
    for line in os.pread(mark, _LONGEST, 0).splitlines():
        home = Path(os.fsdecode(line))
        if (home / MARK).is_file():
            _let_postmasters_end(home)
            _remove(home)
    os.ftruncate(mark, 0)
    _empty(directory)


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        if path.name == MARK:
            continue
        if path.is_dir() and not path.is_symlink():
            _let_postmasters_end(path)
            _remove(path)
        else:
            path.unlink()


def _let_postmasters_end(directory: Path) -> None:
    """Wait for database servers that a killed attempt left behind: they end by themselves, and tidy up while they do."""
    for file in directory.rglob("postmaster.pid"):
        try:
            number = int(file.read_text().splitlines()[0])
            if os.fsencode(file.parent) not in Path(f"/proc/{number}/cmdline").read_bytes():
                continue  # another process has its number by now
            ended = os.pidfd_open(number)
        except (OSError, ValueError, IndexError):
            continue  # it has ended
        try:
            select.select([ended], [], [], _PATIENCE)
        finally:
            os.close(ended)


def _remove(directory: Path) -> None:
    """Remove a directory with all that is in it. Raises OSError when that cannot be done."""
    while directory.exists():
        with contextlib.suppress(FileNotFoundError):  # who left it there has removed a file of it meanwhile
            shutil.rmtree(directory)
