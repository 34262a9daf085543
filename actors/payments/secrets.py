"""Comparing what was sent with what only the provider and we know, in constant time, with rotation."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from runtime.config.secret import Secret


def in_use(*secrets: Secret) -> tuple[Secret, ...]:
    """The secrets that are set: the current one and, during a rotation, the previous one."""
    return tuple(secret for secret in secrets if secret)


def equals_any(given: str, secrets: Iterable[Secret]) -> bool:
    """Whether `given` is one of the secrets. How long it takes tells nothing about them."""
    found = False
    for secret in secrets:
        found |= hmac.compare_digest(given.encode(), secret.reveal().encode())
    return found


def signs(key: bytes, message: bytes, given: str) -> bool:
    """Whether `given` is the hexadecimal HMAC-SHA256 of `message`, compared in constant time."""
    expected = hmac.new(key, message, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), given.encode())
