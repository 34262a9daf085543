"""Secrets: out of files, the environment and the credentials directory, never out of the configuration file itself."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import attrs

from runtime.config.config_file import RawConfig, dotted
from runtime.config.convert import EnvText
from runtime.config.describe import describe_value, is_union
from runtime.config.environment import variable_for
from runtime.config.key_lines import KeyPath
from runtime.config.secret import Secret
from runtime.config.table import field_types

CREDENTIALS = "CREDENTIALS_DIRECTORY"
"""The variable that systemd sets for `LoadCredential=`."""


def resolve_secrets(
    source: RawConfig, path: KeyPath, table: Mapping[str, Any], cls: type, env: Mapping[str, str]
) -> Any:
    """A copy of `table` in which every `Secret` field of `cls`, at any depth, is resolved and its `…_file` key gone.

    For `[section]` key `x`, in this order: the variable `ATLAS__SECTION__X`, the file named by `x_file` (relative to the
    configuration file), the file `section.x` in `$CREDENTIALS_DIRECTORY`. Problems are noted in `source`.
    """
    resolved = dict(table)
    for key, wanted in field_types(cls).items():
        alternatives = get_args(wanted) if is_union(wanted) else (wanted,)
        if Secret in alternatives:
            _resolve(source, (*path, key), resolved, env)
            if isinstance(found := resolved.get(key), Secret):
                source.secrets[dotted((*path, key))] = found
        for nested in alternatives:
            if isinstance(nested, type) and attrs.has(nested) and isinstance(resolved.get(key), dict):
                resolved[key] = resolve_secrets(source, (*path, key), resolved[key], nested, env)
    return resolved


def _resolve(source: RawConfig, path: KeyPath, table: dict[str, Any], env: Mapping[str, str]) -> None:
    key = str(path[-1])
    name = f"{key}_file"
    value = table.pop(key, None)
    file = table.pop(name, None)
    if isinstance(value, EnvText):
        table[key] = Secret(value)
        return
    if value is not None:
        source.blame(
            path,
            f'is a secret and never written in this file: use {name} = "path", the environment variable '
            f'{variable_for(path)}, or the credential "{_credential(path)}"',
        )
        table[key] = Secret()  # the key is not missing as well: one error is enough
        return
    at = (*path[:-1], name)
    if isinstance(file, str):
        base = Path() if isinstance(file, EnvText) else source.path.parent
        _read(source, at, base / Path(file).expanduser(), table, key)
    elif file is not None:
        source.blame(at, f"expected a path, got {describe_value(file)}")
    elif env.get(CREDENTIALS):
        credential = Path(env[CREDENTIALS]) / _credential(path)
        if credential.exists():
            _read(source, path, credential, table, key)


def _credential(path: KeyPath) -> str:
    return ".".join(str(part) for part in path)


def _read(source: RawConfig, at: KeyPath, file: Path, table: dict[str, Any], key: str) -> None:
    try:
        text = file.read_text().strip()
        mode = stat.S_IMODE(file.stat().st_mode)
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else "it is not text"
        source.blame(at, f"secret file {file} cannot be read: {reason}")
        table[key] = Secret()  # as above
        return
    if not text:
        source.blame(at, f"secret file {file} is empty")
    if mode & 0o077:
        source.warnings.append(f"{source.place(at)}: secret file {file} is open to others (mode {mode:04o}): chmod 600")
    table[key] = Secret(text)
