"""What is wrong with a configuration, and where: on its way from a value to its place in the file, and as the operator
reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

import attrs

from runtime.config.key_lines import KeyPath
from runtime.errors import ConfigError


class Invalid(ValueError):
    """One or more errors, each with the key path below the value that was being read."""

    def __init__(self, found: Iterable[tuple[KeyPath, str]]) -> None:
        self.found = list(found)
        super().__init__("; ".join(message for _, message in self.found))


@attrs.frozen
class Place:
    """A line of the file, or the environment variable that gave the value instead."""

    file: Path | None = None
    line: int | None = None
    variable: str | None = None

    def __str__(self) -> str:
        if self.variable is not None:
            return f"environment variable {self.variable}"
        if self.line is None:
            return str(self.file)
        return f"{self.file}:{self.line}"


@attrs.frozen
class Problem:
    """One error: where it stands, the key as one would write it, and a sentence with the legal values."""

    place: Place
    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.key}: {self.message}" if self.key else f"{self.place}: {self.message}"


class ConfigErrors(ConfigError):
    """Everything that is wrong with a configuration, in file order. Exit code 78.

    `problems` is never empty; the text has one line for each.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(
            sorted(set(problems), key=lambda p: (p.place.line is None, p.place.line or 0, str(p.place), p.key))
        )
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ConfigUnreadable(ConfigErrors):
    """The file is there and this user may not read it. Exit code 77."""

    exit_code: ClassVar[int] = 77
