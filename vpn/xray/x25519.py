"""X25519 (RFC 7748), for making REALITY key pairs where no cryptography library is installed.

Used to make a key pair once per node, on the node itself; it is not constant-time and must not serve anything else.
"""

from __future__ import annotations

import base64
import os
from typing import Final

import attrs

_P: Final = 2**255 - 19
_A24: Final = 121665
_BASE: Final = (9).to_bytes(32, "little")


def multiply(scalar: bytes, point: bytes) -> bytes:
    """The function X25519 of the RFC on 32-byte strings."""
    k = int.from_bytes(scalar, "little") & ~7 & ((1 << 255) - 1) | (1 << 254)
    x1 = int.from_bytes(point, "little") & ((1 << 255) - 1)
    x2, z2, x3, z3, swap = 1, 0, x1, 1, 0
    for bit in range(254, -1, -1):
        bit_value = k >> bit & 1
        if swap ^ bit_value:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit_value
        a, b = (x2 + z2) % _P, (x2 - z2) % _P
        aa, bb = a * a % _P, b * b % _P
        e = (aa - bb) % _P
        da, cb = (x3 - z3) * a % _P, (x3 + z3) * b % _P
        x3, z3 = (da + cb) ** 2 % _P, x1 * (da - cb) ** 2 % _P
        x2, z2 = aa * bb % _P, e * (aa + _A24 * e) % _P
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, _P - 2, _P) % _P).to_bytes(32, "little")


@attrs.frozen
class RealityKeys:
    """A REALITY key pair in the form that Xray reads: base64url without padding."""

    private: str = attrs.field(repr=False)
    public: str


def encode(key: bytes) -> str:
    """32 bytes as Xray writes a key: base64url without padding."""
    return base64.urlsafe_b64encode(key).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """The 32 bytes of a key that Xray wrote. Raises ValueError."""
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:  # binascii.Error too
        key = b""
    if len(key) != 32:
        raise ValueError("a REALITY key is 32 bytes in base64url, 43 characters without padding")
    return key


def generate() -> RealityKeys:
    """A fresh key pair from the system's randomness."""
    private = os.urandom(32)
    return RealityKeys(encode(private), encode(multiply(private, _BASE)))


def public_of(private: str) -> str:
    """The public key of a private one. Raises ValueError if it is malformed."""
    return encode(multiply(decode(private), _BASE))
