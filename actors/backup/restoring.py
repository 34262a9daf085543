"""A new installation from a backup: nothing is replaced, and one that was not finished is no installation.

Everything is put where it belongs, and the configuration gets its name last: without it there is nothing to run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import attrs

from actors.backup.archive import Archive
from actors.backup.attempt import begun
from actors.backup.contents import DATA, INSTALLATION, OUTSIDE
from actors.backup.database import check_versions, count_tables, free_instances, restore_dump, run_for, tools
from actors.backup.description import DUMP, Description
from actors.backup.errors import ArchiveRefused, RestoreRefused
from db.driver.session import open_session
from db.embedded import EmbeddedSettings, embedded_dsn, layout_of, prepare
from db.settings import DatabaseSettings
from runtime.config import Config, load_sections

DSN_FILE: Final = "secrets/database.dsn"
"""Where a restored installation keeps the DSN that it was given."""
_SESSION: Final = "atlas/restore"
_PATIENCE: Final = 60.0
_HEAD = re.compile(r"^\s*\[.*$", re.MULTILINE)
_DATABASE = re.compile(r"^[ \t]*\[[ \t]*database[ \t]*\].*\n?", re.MULTILINE)
_DSN = re.compile(r"^[ \t]*dsn_file[ \t]*=.*\n?", re.MULTILINE)


@attrs.frozen
class Restored:
    """What was made."""

    config: Path
    data: Path
    """The directory of the embedded parts."""
    elsewhere: tuple[str, ...]
    """Files that were neither beside the configuration nor in the data directory: now below `outside`."""


async def restore(archive: Archive, found: Description, directory: Path, dsn: str | None) -> Restored:
    """Make `directory` an installation. `dsn` is an empty database of the operator's own; None: the embedded one.

    Raises RestoreRefused when something is there already, or does not fit; RestoreFailed when it could not be finished. What
    was begun is removed again then.
    """
    if dsn is not None:
        await _check_empty(dsn)
    name = found.files[0][1].path
    with begun(directory, name) as attempt:
        unnamed = directory / f".{name}"
        _write_installation(archive, found, directory, unnamed, dsn)
        config = load_sections(unnamed, DatabaseSettings, EmbeddedSettings)
        _check_dsn(config, dsn)
        settings = config.section(EmbeddedSettings)
        binaries = tools(settings)
        check_versions(found.database, found.pg_dump, binaries)
        home = layout_of(settings).home
        attempt.take(home)
        for member, one in found.files:
            if one.place == DATA:
                _put(archive, member, home / one.path)
        dump = directory / f".{DUMP}"
        _put(archive, DUMP, dump)
        if dsn is not None:
            await restore_dump(binaries, dsn, dump)
            await _free(dsn)
        else:
            cluster = await prepare(settings)
            async with run_for(cluster):
                await restore_dump(binaries, embedded_dsn(settings), dump)
                await _free(embedded_dsn(settings))
        dump.unlink()
        os.link(unnamed, directory / name)  # from here on it is an installation
        unnamed.unlink()
        _sync(directory)
        attempt.finish()
    return Restored(directory / name, home, tuple(one.path for _, one in found.files if one.place == OUTSIDE))


def with_database(text: str, dsn_file: str | None) -> str:
    """The configuration with this file for the DSN in its table `[database]`, or with none. What else it says stays."""
    head = _DATABASE.search(text)
    if head is None:
        return text if dsn_file is None else f'{text.rstrip()}\n\n[database]\ndsn_file = "{dsn_file}"\n'
    following = _HEAD.search(text, head.end())
    end = following.start() if following else len(text)
    body = _DSN.sub("", text[head.end() : end])
    line = "" if dsn_file is None else f'dsn_file = "{dsn_file}"\n'
    return f"{text[: head.end()].rstrip()}\n{line}{body}{text[end:]}"


def _write_installation(archive: Archive, found: Description, directory: Path, unnamed: Path, dsn: str | None) -> None:
    for number, (member, one) in enumerate(found.files):
        if number == 0:
            text = with_database(_text(archive, member), None if dsn is None else DSN_FILE)
            _put_pieces(unnamed, [text.encode()])
        elif one.place == INSTALLATION and one.path != DSN_FILE:
            _put(archive, member, directory / one.path)
        elif one.place == OUTSIDE:
            _put(archive, member, directory / OUTSIDE / one.path.lstrip("/"))
    if dsn is not None:
        _put_pieces(directory / DSN_FILE, [dsn.encode() + b"\n"])


def _text(archive: Archive, member: str) -> str:
    try:
        return archive.read(member).decode()
    except UnicodeDecodeError as error:
        raise ArchiveRefused("the backup is damaged: its configuration is no text; nothing was changed") from error


def _check_dsn(config: Config, dsn: str | None) -> None:
    """What the configuration leads to is what was asked for, whichever way it says so."""
    if config.section(DatabaseSettings).dsn.reveal() != (dsn or ""):
        raise RestoreRefused(
            "the restored configuration would lead to another database than the restored one: the environment says "
            "database.dsn (ATLAS__DATABASE__DSN), or the backup's configuration does in a form that this command does not "
            "change. Unset the variable. Nothing was changed"
        )


async def _free(dsn: str) -> None:
    async with open_session(dsn, _SESSION, within=_PATIENCE) as session:
        await session.run("free instances", free_instances, within=_PATIENCE)


async def _check_empty(dsn: str) -> None:
    async with open_session(dsn, _SESSION, within=_PATIENCE) as session:
        tables = await session.run("count tables", count_tables, within=_PATIENCE)
    if tables:
        raise RestoreRefused(
            f"the database of --dsn-file has {tables} tables or views, and a backup is restored into an empty one only: make a "
            "new one (createdb), or empty that one. Nothing was changed"
        )


def _put(archive: Archive, member: str, path: Path) -> None:
    _put_pieces(path, archive.pieces(member))


def _put_pieces(path: Path, pieces: Iterable[bytes]) -> None:
    """Write a new file of mode 0600, in directories of mode 0700. Raises OSError, and what the pieces raise."""
    for parent in reversed(path.parents):
        if not parent.exists():
            parent.mkdir(mode=0o700)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
