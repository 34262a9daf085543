"""Errors on their way from a value to its place in the file."""

from __future__ import annotations

from collections.abc import Iterable

from runtime.config.location import KeyPath


class Invalid(ValueError):
    """One or more errors, each with the key path below the value that was being read."""

    def __init__(self, found: Iterable[tuple[KeyPath, str]]) -> None:
        self.found = list(found)
        super().__init__("; ".join(message for _, message in self.found))
