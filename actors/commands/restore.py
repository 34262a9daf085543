"""`atlas restore`: a new installation from a backup."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import click
import trio

from actors.backup.archive import Archive, read_archive
from actors.backup.description import Description, read_description
from actors.backup.encryption import decrypt, is_encrypted
from actors.backup.errors import ArchiveRefused
from actors.backup.restoring import Restored
from actors.backup.restoring import restore as restore_into
from actors.commands.parameters import shown
from runtime import unwrap_group
from runtime.cli import FilePath, emit, json_option


@click.command()
@click.argument("file", type=FilePath())
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--identity", type=FilePath(), help="The key file of age, for a backup that was encrypted.")
@click.option(
    "--dsn-file", type=FilePath(), help="A file with the DSN of an empty database of your own to restore into."
)
@click.option("--embedded", is_flag=True, help="Restore into the embedded database, wherever the backup was made.")
@json_option
@click.pass_context
def restore(
    ctx: click.Context,
    file: Path,
    directory: Path,
    identity: Path | None,
    dsn_file: Path | None,
    *,
    embedded: bool,
    as_json: bool,
) -> None:
    """Make a new installation in DIRECTORY from the backup FILE.

    The whole backup is checked first; nothing is written if it was cut short or changed. DIRECTORY must be new or empty, and a
    database of your own empty. A restore that was killed is no installation; repeating the command removes what is left of
    it and begins anew. The schema stays that of the backup: `atlas run` brings it up to date. Exit codes: 0 done, 64 usage,
    65 the backup is not whole, 69 it could not be finished, 78 something is there already, or does not fit.
    """
    dsn = None if dsn_file is None else _read_dsn(dsn_file)
    if embedded and dsn is not None:
        raise click.UsageError("say --embedded or --dsn-file, not both", ctx)
    with _in_clear(file, identity, directory.absolute().parent) as opened:
        archive = read_archive(opened)
        found = read_description(archive)
        if not found.is_embedded and dsn is None and not embedded:
            raise click.UsageError(
                "the backup is of a database of your own: say where it is restored to, --dsn-file FILE or --embedded (never "
                "into the one that it came from)",
                ctx,
            )
        try:
            made = trio.run(restore_into, archive, found, directory, dsn)
        except BaseExceptionGroup as group:
            raise unwrap_group(group) from None
    emit(_as_data(archive, found, made), as_json, lambda: _told(directory, found, made))


def _read_dsn(file: Path) -> str:
    try:
        text = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"--dsn-file {file} cannot be read: {error}") from error
    if not text.startswith(("postgresql://", "postgres://")):
        raise click.UsageError(f"--dsn-file {file} holds no DSN such as postgresql://user@host/name")
    return text


@contextlib.contextmanager
def _in_clear(file: Path, identity: Path | None, beside: Path) -> Iterator[BinaryIO]:
    """The archive as it was before it was encrypted; what is decrypted has no name on the disk."""
    with contextlib.ExitStack() as opened:
        try:
            source = opened.enter_context(file.open("rb"))
            if not is_encrypted(source):
                yield source
                return
            if identity is None:
                raise click.UsageError(f"{file} is encrypted: --identity names the file with the key of age")
            beside.mkdir(parents=True, exist_ok=True)
            target = opened.enter_context(tempfile.TemporaryFile(dir=beside))
            decrypt(source, target, identity)
        except OSError as error:
            raise ArchiveRefused(
                f"the backup {file} cannot be read: {error.strerror or error}; nothing was changed"
            ) from error
        yield target


def _as_data(archive: Archive, found: Description, made: Restored) -> dict[str, object]:
    return {
        "config": shown(made.config),
        "data": shown(made.data),
        "made_at": found.made_at,
        "atlas": found.atlas,
        "schema": found.database.schema,
        "bytes": sum(one.size for one in archive.members.values()),
        "elsewhere": list(made.elsewhere),
        "not_inside": list(found.not_inside),
    }


def _told(directory: Path, found: Description, made: Restored) -> str:
    lines = [
        f"{shown(made.config)}: as it was at {found.made_at}, by ATLAS {found.atlas}, schema {found.database.schema:04}",
        f"data: {shown(made.data)}",
    ]
    if made.elsewhere:
        lines.append(f"these were elsewhere and are below {shown(directory / 'outside')} now; copy each to its place:")
        lines += [f"    {path}" for path in made.elsewhere]
    if found.not_inside:
        lines.append(f"these settings came from the environment and are to be set again: {', '.join(found.not_inside)}")
    lines.append("nodes elsewhere belong to the installation that was backed up: atlas node own NAME --take takes one")
    lines.append(f"next: cd {shown(directory)}; atlas check; atlas run; atlas verify --whole")
    return "\n".join(lines)
