"""What the forms that spell a link out cannot say: refused, because a half-said link would look well and never work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from vpn.errors import LinkError
from vpn.link import VlessLink

_PLAIN_HEADER: Final = frozenset({"", "none"})


def refuse_unsaid(links: Sequence[VlessLink], program: str, *, encryption: bool) -> None:
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
