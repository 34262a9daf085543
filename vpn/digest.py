"""One small number for a whole set of keys: equal digests mean equal sets, so the sets need not be sent to be compared."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from datetime import datetime

from vpn.protocol import KeySpec


def expiry_seconds(expires_at: datetime | None) -> int | None:
    """An expiry in whole Unix seconds, rounded up: the resolution in which nodes keep it."""
    return None if expires_at is None else math.ceil(expires_at.timestamp())


def key_digest(spec: KeySpec) -> int:
    """The contribution of one key: SHA-256 over its inbounds, id, UUID, flow and expiry. The generation is left out: it
    orders changes and has no effect of its own."""
    parts = (
        ",".join(sorted(spec.inbounds)),
        spec.key_id,
        spec.uuid.hex,
        spec.flow,
        str(expiry_seconds(spec.expires_at)),
    )
    return int.from_bytes(hashlib.sha256("\0".join(parts).encode()).digest(), "big")


def digest_text(value: int) -> str:
    """A digest as 64 hexadecimal digits."""
    return f"{value:064x}"


def digest(specs: Iterable[KeySpec]) -> str:
    """The digest of a set of keys, to compare with `NodeState.digest`. Independent of order."""
    value = 0
    for spec in specs:
        value ^= key_digest(spec)
    return digest_text(value)
