"""`atlas backup`: the whole installation as one file, taken while it runs."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import os
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import click
import trio

from actors.backup.archive import Source, write_archive
from actors.backup.contents import KeptFile, collect, not_inside
from actors.backup.database import DatabaseFacts, dump, read_facts, tools
from actors.backup.description import DUMP, describe, member
from actors.backup.encryption import encrypt, read_recipients
from actors.backup.errors import BackupFailed
from actors.commands.database import in_transaction
from actors.commands.parameters import shown
from actors.sealing import key_path
from db.embedded import EmbeddedSettings, embedded_dsn, layout_of
from db.settings import DatabaseSettings, WithdrawalSettings
from db.tx import Tx
from db.work.audit import record_audit
from runtime.cli import FilePath, Text, acting_operator, config_option, emit, json_option, load_sections
from runtime.config import Config


@click.command()
@click.argument("file", type=FilePath())
@click.option(
    "--recipient",
    "recipients",
    type=Text(),
    multiple=True,
    metavar="AGE1…",
    help="Encrypt for the holder of this public key of age. May be repeated.",
)
@click.option("--include", "more", type=FilePath(), multiple=True, help="One more file to keep, such as a credential.")
@config_option
@json_option
@click.pass_context
def backup(
    ctx: click.Context, file: Path, recipients: tuple[str, ...], more: tuple[Path, ...], *, as_json: bool
) -> None:
    """Write the whole installation to FILE (mode 0600): database, secrets, operators, and what makes its nodes the same nodes.

    The service goes on meanwhile: the database's part is one snapshot. FILE appears when it is whole, and must not be there
    before. It has every secret of the installation: keep it as you keep those, or name a --recipient. Nodes on other hosts keep
    their identity there. Exit codes: 0 done, 64 usage, 69 it could not be made, 77 not an owner.
    """
    try:
        keys = read_recipients(recipients)
    except ValueError as error:
        raise click.UsageError(f"--recipient: {error}", ctx) from error
    if os.path.lexists(file):
        raise click.UsageError(f"{file} exists already, and nothing was written", ctx)
    config = load_sections(ctx, DatabaseSettings, EmbeddedSettings, WithdrawalSettings)
    embedded = config.section(EmbeddedSettings)
    binaries = tools(embedded)
    assert config.path is not None, "a configuration that commands use was read from a file"
    facts = in_transaction(ctx, "backup", _note, acting_operator(ctx).actor)
    with _whole_or_not_at_all(file) as (target, scratch):
        payout_key = key_path(config.section(WithdrawalSettings), embedded)
        kept = collect(config.path, layout_of(embedded).home, payout_key, os.environ, more)
        dumped = scratch()
        trio.run(dump, binaries, _dsn(config), dumped)
        dumped.seek(0)
        left_out = not_inside(os.environ)
        described = describe(
            kept,
            facts,
            is_embedded=not config.section(DatabaseSettings).dsn,
            pg_dump=binaries.version,
            atlas=importlib.metadata.version("atlas"),
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            not_inside=left_out,
        )
        _write(target, scratch, described, _sources(kept, dumped), keys)
    size = file.stat().st_size
    result = {
        "file": shown(file),
        "bytes": size,
        "encrypted": bool(keys),
        "not_inside": left_out,
        **_brief(facts, kept),
    }
    emit(result, as_json, lambda: _told(file, size, facts, kept, left_out, is_encrypted=bool(keys)))


async def _note(tx: Tx, actor: str) -> DatabaseFacts:
    await record_audit(tx, actor, "backup")
    return await read_facts(tx)


def _dsn(config: Config) -> str:
    own: str = config.section(DatabaseSettings).dsn.reveal()
    return own or embedded_dsn(config.section(EmbeddedSettings))


def _sources(kept: Sequence[KeptFile], dumped: BinaryIO) -> list[Source]:
    files = [Source(member(number), one.content) for number, one in enumerate(kept)]
    return [*files, Source(DUMP, dumped)]


def _write(
    target: BinaryIO, scratch: Any, described: dict[str, object], sources: Sequence[Source], keys: Sequence[Any]
) -> None:
    if not keys:
        write_archive(target, described, sources)
        return
    in_clear = scratch()
    write_archive(in_clear, described, sources)
    in_clear.seek(0)
    encrypt(in_clear, target, keys)


@contextlib.contextmanager
def _whole_or_not_at_all(file: Path) -> Iterator[tuple[BinaryIO, Any]]:
    """A file that gets its name when the block ends well, and a function that gives files without a name beside it."""
    unfinished = file.with_name(f".{file.name}.unfinished")
    with contextlib.ExitStack() as opened:
        try:
            descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            target = opened.enter_context(os.fdopen(descriptor, "w+b"))
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # of a backup that was killed nobody holds it
        except BlockingIOError as error:
            raise BackupFailed(
                f"another backup to {file} is being made; no second one was begun ({unfinished})"
            ) from error
        except OSError as error:
            raise _unwritable(file, error) from error
        opened.callback(unfinished.unlink, missing_ok=True)

        def scratch() -> BinaryIO:
            made: BinaryIO = opened.enter_context(tempfile.TemporaryFile(dir=file.absolute().parent))
            return made

        try:
            target.truncate()
            os.fchmod(descriptor, 0o600)
            yield target, scratch
            target.flush()
            os.fsync(descriptor)
            os.link(unfinished, file)  # never over another file
            directory = os.open(file.absolute().parent, os.O_RDONLY | os.O_DIRECTORY)
            opened.callback(os.close, directory)
            os.fsync(directory)
        except OSError as error:
            raise _unwritable(file, error) from error


def _unwritable(file: Path, error: OSError) -> BackupFailed:
    return BackupFailed(f"{file} cannot be written: {error.strerror or error}; no backup was made")


def _brief(facts: DatabaseFacts, kept: Sequence[KeptFile]) -> dict[str, object]:
    nodes = sorted({one.path.split("/")[1] for one in kept if one.path.startswith("node/")})
    return {"schema": facts.schema, "nodes": nodes, "files": len(kept)}


def _told(
    file: Path,
    size: int,
    facts: DatabaseFacts,
    kept: Sequence[KeptFile],
    left_out: Sequence[str],
    *,
    is_encrypted: bool,
) -> str:
    nodes = ", ".join(str(name) for name in _brief(facts, kept)["nodes"]) or "none"  # type: ignore[attr-defined]  # a list
    lines = [
        f"{shown(file)}: {size} bytes, mode 0600, {'encrypted' if is_encrypted else 'in clear, with every secret'}",
        f"database at schema {facts.schema:04}, {len(kept)} files, embedded nodes: {nodes}",
    ]
    if left_out:
        lines.append(f"not inside, because the environment says it: {', '.join(left_out)}")
    lines.append(f"to restore it into a new directory: atlas restore {shown(file)} DIRECTORY")
    return "\n".join(lines)
