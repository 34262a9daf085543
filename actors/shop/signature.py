"""Signatures of requests: which front end sent one, and that it was not changed on its way. Pure.

A front end signs each request with HMAC-SHA256, keyed with a secret that it shares with us, over

    timestamp LF nonce LF method LF path and query LF raw body

with the timestamp in Unix seconds, the nonce 16 to 64 characters of chance, and the method in capitals.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Final

import attrs

from runtime.config import Secret

WINDOW_SECONDS: Final = 300
"""A request older or younger than this is refused."""
SHORTEST_SECRET: Final = 32

KEY_HEADER: Final = "x-atlas-key"
TIMESTAMP_HEADER: Final = "x-atlas-timestamp"
NONCE_HEADER: Final = "x-atlas-nonce"
SIGNATURE_HEADER: Final = "x-atlas-signature"

_KEY_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")
_NONCE = re.compile(r"[A-Za-z0-9_-]{16,64}")


class SignatureRefused(Exception):
    """The request is not from a front end that we know, or not from now. The text may be shown to any sender."""


@attrs.frozen
class Signed:
    """A request that is what its sender made it."""

    key_id: str
    nonce: str


def sign_request(secret: Secret, timestamp: int, nonce: str, method: str, target: str, body: bytes) -> str:
    """The signature in lower-case hexadecimal. `target` is the path as sent, with its query."""
    head = f"{timestamp}\n{nonce}\n{method.upper()}\n{target}\n".encode()
    return hmac.new(secret.reveal().encode(), head + body, hashlib.sha256).hexdigest()


def verify_signature(
    keys: Mapping[str, Secret], headers: Mapping[str, str], method: str, target: str, body: bytes, *, now: float
) -> Signed:
    """Check a request against the keys by their names; every key that is there is accepted, which is how keys rotate.

    Takes as long for a wrong key as for a wrong signature. Raises SignatureRefused.
    """
    key_id = headers.get(KEY_HEADER, "")
    stamp = headers.get(TIMESTAMP_HEADER, "")
    nonce = headers.get(NONCE_HEADER, "")
    given = headers.get(SIGNATURE_HEADER, "")
    if not (_KEY_ID.fullmatch(key_id) and _TIMESTAMP.fullmatch(stamp) and _NONCE.fullmatch(nonce)):
        raise SignatureRefused(
            f"a request needs the headers {KEY_HEADER}, {TIMESTAMP_HEADER} (Unix seconds), {NONCE_HEADER} (16 to 64 of "
            f"A-Z a-z 0-9 _ -) and {SIGNATURE_HEADER}"
        )
    expected = sign_request(keys.get(key_id, Secret("nobody")), int(stamp), nonce, method, target, body)
    is_right = hmac.compare_digest(expected.encode(), given.encode())
    if not is_right or key_id not in keys:
        raise SignatureRefused("the signature does not fit the request")
    if abs(now - int(stamp)) > WINDOW_SECONDS:
        raise SignatureRefused(
            f"the timestamp is {abs(now - int(stamp)):.0f} s off; at most {WINDOW_SECONDS} s are allowed: set the clock"
        )
    return Signed(key_id, nonce)


def read_keys(text: str) -> dict[str, Secret]:
    """The keys in a text of lines `name secret`; empty lines and lines that begin with # are skipped.

    Raises ValueError, naming the line and never the secret, for a bad name, a secret of under 32 characters, or a name
    given twice.
    """
    keys: dict[str, Secret] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key_id, _, secret = line.strip().partition(" ")
        secret = secret.strip()
        if not _KEY_ID.fullmatch(key_id):
            raise ValueError(f"line {number}: a key's name is 1 to 32 of a-z 0-9 _ -, then a space, then its secret")
        if len(secret) < SHORTEST_SECRET:
            raise ValueError(f"line {number}: the secret of {key_id} has under {SHORTEST_SECRET} characters")
        if key_id in keys:
            raise ValueError(f"line {number}: {key_id} is there twice; a rotated key gets a name of its own")
        keys[key_id] = Secret(secret)
    return keys
