"""What a node says, made fit for logs and the database."""

from __future__ import annotations

from typing import Final

LONGEST: Final = 300


def readable(value: object) -> str:
    """The first 300 characters of a text, with what cannot be printed replaced; empty for what is not a text."""
    text = value if isinstance(value, str) else ""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text[:LONGEST])
