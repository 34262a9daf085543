"""Links as lines, plain or in Base64: what v2rayN, v2rayNG, Happ, Streisand and most others read."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from vpn.link import VlessLink


def plain_list(links: Sequence[VlessLink]) -> bytes:
    """One link a line, each line ended."""
    return "".join(f"{link.render()}\n" for link in links).encode()


def base64_list(links: Sequence[VlessLink]) -> bytes:
    """The links joined by newlines, in standard Base64 with padding, on one line."""
    return base64.b64encode("\n".join(link.render() for link in links).encode())
