"""The merged raw configuration and where each of its values came from."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from runtime.config.errors import ConfigErrors, ConfigUnreadable, Place, Problem
from runtime.config.key_lines import KeyPath, key_lines
from runtime.config.secret import Secret

_BARE = re.compile(r"[A-Za-z0-9_-]+")


@attrs.define
class RawConfig:
    """The file's tables with the environment laid over them; `problems` collects everything that is wrong on the way."""

    path: Path
    data: dict[str, Any]
    lines: Mapping[KeyPath, int] = attrs.field(factory=dict)
    variables: dict[KeyPath, str] = attrs.field(factory=dict)
    """Keys that an environment variable gave, with its name."""
    problems: list[Problem] = attrs.field(factory=list)
    warnings: list[str] = attrs.field(factory=list)
    """What is legal but unwise, as lines for people."""
    secrets: dict[str, Secret] = attrs.field(factory=dict)
    """Every secret that was found, by the dotted path of its key."""

    def place(self, path: KeyPath) -> Place:
        """Where the value at `path` came from; for a key that stands nowhere, the nearest table around it."""
        if path not in self.lines:
            for set_path, name in self.variables.items():
                if set_path[: len(path)] == path:
                    return Place(self.path, variable=name)
        for length in range(len(path), 0, -1):
            prefix = path[:length]
            if prefix in self.variables:
                return Place(self.path, variable=self.variables[prefix])
            if prefix in self.lines:
                return Place(self.path, self.lines[prefix])
        return Place(self.path)

    def blame(self, path: KeyPath, message: str) -> None:
        """Note that the value at `path` is wrong."""
        self.problems.append(Problem(self.place(path), dotted(path), message))

    def table(self, path: KeyPath) -> dict[str, Any]:
        """The table at `path`; empty when it is missing. Something else than a table there is blamed and read as empty."""
        at: Any = self.data
        for part in path:
            at = at.get(part, {}) if isinstance(at, dict) else {}
        if isinstance(at, dict):
            return at
        self.blame(path, "expected a table")
        return {}

    @property
    def data_dir(self) -> Path:
        """The installation's directory: the `data_dir` of whichever table has one, else `.atlas`; relative to the file.

        Which of the rooms keeps data there is none of the runtime's business; two of them agree by the name of the key.
        """
        tables = [table for table in self.data.values() if isinstance(table, dict)]
        named = next((table["data_dir"] for table in tables if isinstance(table.get("data_dir"), str)), ".atlas")
        return (self.path.parent / (named or ".atlas")).absolute()

    def flat(self) -> dict[str, object]:
        """Every value that is not a table, by its dotted path."""
        found: dict[str, object] = {}

        def walk(table: Mapping[str, Any], path: KeyPath) -> None:
            for key, value in table.items():
                if isinstance(value, dict):
                    walk(value, (*path, key))
                else:
                    found[dotted((*path, key))] = value

        walk(self.data, ())
        return found


def dotted(path: KeyPath) -> str:
    """The path as one writes it in the file: `actor."pool.main".args.size`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            shown = part if _BARE.fullmatch(part) else '"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"'
            text += f".{shown}" if text else shown
    return text


def parse_dotted(text: str) -> KeyPath | None:
    """The reverse of `dotted`, or None when the text is not a dotted key."""
    try:
        at: Any = tomllib.loads(f"{text} = 0")
    except tomllib.TOMLDecodeError:
        return None
    path: KeyPath = ()
    while isinstance(at, dict):
        if len(at) != 1:
            return None
        key, at = next(iter(at.items()))
        path = (*path, key)
    return path if at == 0 else None


def read_raw_config(path: Path) -> RawConfig:
    """Read and parse the file alone. Raises ConfigErrors when it cannot be read (ConfigUnreadable when this user may not), is
    no UTF-8 or is no TOML."""
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        refusal = ConfigUnreadable if isinstance(error, PermissionError) else ConfigErrors
        raise refusal([Problem(Place(path), "", f"cannot be read: {error.strerror or error}")]) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigErrors([Problem(Place(path, line), "", "is not UTF-8 text")]) from error
    return parse_raw_config(text, path)


def parse_raw_config(text: str, path: Path) -> RawConfig:
    """Like `read_raw_config`, for a text that is already at hand; `path` is only named in errors."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        match = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", message)
        line = int(match[1]) if match and match[1] else text.count("\n") + 1
        column = f" (column {match[2]})" if match and match[2] else ""
        reason = message[: match.start()] if match else message
        raise ConfigErrors([Problem(Place(path, line), "", f"is not valid TOML: {reason}{column}")]) from error
    return RawConfig(path, data, key_lines(text.replace("\r\n", "\n")))
