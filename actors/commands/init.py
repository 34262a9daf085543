"""`atlas init`: the configuration of a new installation, with an owner and with the secrets in files of their own."""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import secrets
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final

import click

from actors.commands.parameters import shown
from runtime import AtlasError
from runtime.cli import FilePath, Word, emit, json_option
from runtime.exit_codes import CONFIG, NO_PERMISSION

CONFIG_FILE: Final = "supervisor.toml"
SECRETS: Final = "secrets"
_NAME = Word(
    re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}"), "an operator's name: letters, digits, - and _, such as anna"
)
_UNIX_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}")
_OPERATORS_NOTE = re.compile(r"^# \[operators\.anna\].*\n", re.MULTILINE)


class InitRefused(AtlasError):
    """The installation cannot be begun there; nothing was written."""

    exit_code: ClassVar[int] = CONFIG


def shipped_configuration() -> str:
    """The configuration that ATLAS is shipped with: beside this module in a wheel, in the root of a checkout."""
    beside = Path(__file__).with_name(CONFIG_FILE)
    return (beside if beside.is_file() else Path(__file__).parents[2] / CONFIG_FILE).read_text(encoding="utf-8")


def new_configuration(owner: str, unix_user: str, token: str, *, has_dsn: bool = False) -> str:
    """The shipped configuration with this owner and with the places of the secrets; no secret is in it."""
    lines = [
        "# Who may do what; see docs/reference/operators.md. Another one: atlas operators add NAME --role ROLE",
        f"[operators.{owner}]",
        'role = "owner"',
        f'token_sha256 = "{hashlib.sha256(token.encode()).hexdigest()}"',
    ]
    if _UNIX_NAME.fullmatch(unix_user):
        lines.append(f'unix_user = "{unix_user}"       # whose commands on this machine need no token')
    text, found = _OPERATORS_NOTE.subn(lambda _: "\n".join(lines) + "\n", shipped_configuration())
    assert found == 1, "the shipped configuration says where operators are declared"
    text = _begin_table(text, "admin", f'session_key_file = "{SECRETS}/admin.session_key"')
    if has_dsn:
        text = _begin_table(text, "database", f'dsn_file = "{SECRETS}/database.dsn"')
    return text


def _begin_table(text: str, name: str, line: str) -> str:
    head = f"[{name}]\n"
    assert text.count(f"\n{head}") == 1, f"the shipped configuration has one table [{name}]"
    return text.replace(f"\n{head}", f"\n{head}{line}\n")


@click.command()
@click.argument("directory", default=".", type=click.Path(path_type=Path, file_okay=False))
@click.option("--operator", type=_NAME, default=None, help="Name of the owner. Default: that of the present account.")
@click.option(
    "--dsn-file", type=FilePath(), default=None, help='A file with the DSN of a database of your own; "-": stdin.'
)
@json_option
def init(directory: Path, operator: str | None, dsn_file: Path | None, *, as_json: bool) -> None:
    """Begin an installation in DIRECTORY: a configuration, an owner, and a folder with the secrets.

    Writes supervisor.toml (mode 0600) and secrets/ (0700, its files 0600) and nothing else; what is there already is never
    replaced. The owner is the present account, and whoever has the token in secrets/. Exit codes: 0 done, 64 usage, 77
    the directory may not be written, 78 something is there already.
    """
    account = _account()
    owner = operator or (account if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", account) else "owner")
    token = secrets.token_urlsafe(32)
    kept = {f"operator.{owner}": token, "admin.session_key": secrets.token_hex(32)}
    if dsn_file is not None:
        kept["database.dsn"] = _read_dsn(dsn_file)
    text = new_configuration(owner, account, token, has_dsn=dsn_file is not None)
    try:
        _write(directory, text, kept)
    except OSError as error:
        code = NO_PERMISSION if isinstance(error, PermissionError) else CONFIG
        refused = InitRefused(
            f"the installation cannot be begun in {directory}: {error.strerror} on {error.filename or directory}"
        )
        refused.exit_code = code  # type: ignore[misc]  # one error, two codes
        raise refused from error
    written = [directory / CONFIG_FILE, *(directory / SECRETS / name for name in kept)]
    token_file = directory / SECRETS / f"operator.{owner}"
    steps = ([] if directory == Path() else [f"cd {shown(directory)}"]) + ["atlas check", "atlas run"]
    emit(
        {"files": [shown(path) for path in written], "operator": owner, "token_file": shown(token_file)},
        as_json,
        lambda: "\n".join(
            [
                *(shown(path) for path in written),
                f"the owner is {owner}; the desk asks for the token in {shown(token_file)}",
                f"next: {'; '.join(steps)}",
            ]
        ),
    )


def _account() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container may run as a number that nobody has
        return ""


def _read_dsn(file: Path) -> str:
    try:
        text = (sys.stdin.read(65536) if str(file) == "-" else file.read_text()).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"--dsn-file {file} cannot be read: {error}") from error
    if not text.startswith(("postgresql://", "postgres://")):
        raise click.UsageError(f"--dsn-file {file} holds no DSN such as postgresql://user@host/name")
    return text


def _write(directory: Path, text: str, kept: Mapping[str, str]) -> None:
    """All or nothing that counts: the configuration comes last, and there is no installation without it."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in (CONFIG_FILE, SECRETS):
        if os.path.lexists(directory / name):
            raise InitRefused(
                f"{directory / name} exists already, and nothing was written: use it, or name another directory"
            )
    unfinished = directory / f".{SECRETS}.{secrets.token_hex(4)}"
    unfinished.mkdir(mode=0o700)
    try:
        for name, secret in kept.items():
            write_private(unfinished / name, (secret + "\n").encode())
        write_private(unfinished / CONFIG_FILE, text.encode())
        unfinished.rename(directory / SECRETS)
        beside = directory / SECRETS / CONFIG_FILE
        try:
            os.link(beside, directory / CONFIG_FILE)  # unlike a rename, never over another one
        except OSError:
            shutil.rmtree(directory / SECRETS, ignore_errors=True)
            raise
        beside.unlink()
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def write_private(path: Path, content: bytes) -> None:
    """Write a new file with mode 0600, durably. Raises OSError, also when it is there already."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
