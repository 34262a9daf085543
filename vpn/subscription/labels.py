"""What the entries of a list are called: programs need a name for each, and no two the same."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Final

from vpn.link import VlessLink

GROUP: Final = "ATLAS"
AUTO: Final = "ATLAS auto"
_MAX: Final = 64
# What a configuration calls itself or its built-in outbounds.
_TAKEN: Final = frozenset({GROUP, AUTO, "DIRECT", "REJECT", "GLOBAL", "direct", "PASS", "COMPATIBLE", "REJECT-DROP"})


def labels(links: Sequence[VlessLink]) -> list[str]:
    """A label for each link, in their order: its name on one line, at most 64 characters, else host and port.

    Equal ones get a number, and none is a word that a configuration uses for itself.
    """
    found: list[str] = []
    used = set(_TAKEN)
    for link in links:
        wanted = _one_line(link.name)[:_MAX].strip() or f"{link.host}:{link.port}"
        label, number = wanted, 1
        while label in used:
            number += 1
            label = f"{wanted} {number}"
        used.add(label)
        found.append(label)
    return found


def _one_line(text: str) -> str:
    spaced = (" " if unicodedata.category(character) in ("Cc", "Zl", "Zp") else character for character in text)
    return " ".join("".join(spaced).split())
