"""The entries of a configuration: a name for each, no two the same; and what a configuration cannot say, which is
refused, because a half-said link would look well and never work.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Final

from vpn.errors import LinkError
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


_PLAIN_HEADER: Final = frozenset({"", "none"})


def refuse_unsupported(links: Sequence[VlessLink], program: str, *, encryption: bool) -> None:
    """Raise LinkError for a link with another transport than TCP, a disguised header, or an encryption that the program
    has not. The text names the program and the part, never the link."""
    for link in links:
        extra = dict(link.extra)
        if link.network != "tcp":
            raise LinkError(f"a {program} configuration is written for type=tcp only; a link says type={link.network}")
        if extra.get("headerType", "") not in _PLAIN_HEADER:
            raise LinkError(f"a {program} configuration is written without headerType; a link has one")
        if link.encryption != "none" and not encryption:
            raise LinkError(f"{program} has no VLESS encryption, which a link asks for")


def alpn_of(link: VlessLink) -> list[str]:
    """The application protocols that the link offers in its handshake; empty: the program's own."""
    return [part for part in dict(link.extra).get("alpn", "").split(",") if part]
