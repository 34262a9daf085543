"""Payout destinations, sealed: authenticated encryption with a key that the database does not hold.

A sealed destination opens for its own withdrawal alone: moved to another row, or altered, it does not open. Pure; the key's
file is the caller's business.
"""

from __future__ import annotations

import hashlib
import os
import re
from typing import ClassVar, Final

import attrs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from db.tx import Tx
from runtime import AtlasError

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_HEX: Final = re.compile(r"[0-9a-fA-F]{64}")
_SETTING: Final = "withdrawals.key_file"


class SealError(AtlasError):
    """A destination cannot be sealed or opened: the key is missing, is another one, or may not be read."""

    exit_code: ClassVar[int] = 78

    def __init__(self, message: str, exit_code: int = 78) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # one error, several codes: the class only holds the default


@attrs.frozen
class SealedText:
    """What is stored of a destination."""

    sealed: bytes
    """The nonce, and the text encrypted and authenticated (AES-256-GCM)."""
    sealed_with: str
    """The fingerprint of the key."""


@attrs.frozen
class Seal:
    """The keys: the first one seals, each of them opens what it has sealed."""

    keys: tuple[bytes, ...] = attrs.field(repr=False)
    where: str
    """Where they come from, for errors."""

    @property
    def fingerprint(self) -> str:
        """The name of the key that seals; it tells nothing of the key."""
        return fingerprint(self.keys[0])

    def close(self, text: str, about: str) -> SealedText:
        """Seal a text so that it opens for `about` alone. Twice the same gives two different seals."""
        nonce = os.urandom(_NONCE_BYTES)
        return SealedText(nonce + AESGCM(self.keys[0]).encrypt(nonce, text.encode(), about.encode()), self.fingerprint)

    def open(self, found: SealedText, about: str) -> str:
        """The text. Raises SealError if none of the keys is the one, or if it was altered or belongs to something else."""
        for key in self.keys:
            if fingerprint(key) != found.sealed_with:
                continue
            try:
                plain = AESGCM(key).decrypt(found.sealed[:_NONCE_BYTES], found.sealed[_NONCE_BYTES:], about.encode())
            except (InvalidTag, ValueError) as error:
                raise SealError(
                    f"the sealed destination of {about} does not open with its own key {found.sealed_with}: it was altered, or "
                    "moved here from another one; ask the customer before anything is paid"
                ) from error
            return plain.decode()
        raise SealError(
            f"the destination of {about} was sealed with key {found.sealed_with}, and {self.where} holds "
            f"{', '.join(fingerprint(key) for key in self.keys)}; put the file back from the backup ({_SETTING} names it)"
        )


def fingerprint(key: bytes) -> str:
    """A name for a key: 16 hexadecimal digits that tell nothing of it."""
    return hashlib.sha256(b"ATLAS payout destination\0" + key).hexdigest()[:16]


def new_key_text() -> str:
    """The text of a new key file."""
    return (
        "# Opens the payout destinations of withdrawals. Keep it in the backup, apart from the database's.\n"
        f"{os.urandom(KEY_BYTES).hex()}\n"
    )


def read_seal(text: str, where: str) -> Seal:
    """The keys in a text of lines of 64 hexadecimal digits; empty lines and lines that begin with # are skipped.

    To rotate, put a new line before the old ones. Raises SealError, which names the line and never the key.
    """
    keys: list[bytes] = []
    for number, line in enumerate(text.splitlines(), 1):
        word = line.strip()
        if not word or word.startswith("#"):
            continue
        if not _HEX.fullmatch(word):
            raise SealError(
                f"{where}, line {number}: a key is {2 * KEY_BYTES} hexadecimal digits ({_SETTING} names the file)"
            )
        keys.append(bytes.fromhex(word))
    if not keys:
        raise SealError(f"{where} holds no key; put it back from the backup ({_SETTING} names the file)")
    if len(set(keys)) != len(keys):
        raise SealError(f"{where} holds a key twice ({_SETTING} names the file)")
    return Seal(tuple(keys), where)


async def register_key(tx: Tx, seal: Seal) -> None:
    """Note the key that seals, before it does. Raises SealError where the database knows keys that this seal lacks.

    So a machine with another file, or one that was made anew after a loss, is noticed before anything is sealed that
    the others cannot open.
    """
    known = {row["fingerprint"] for row in await tx.fetch("SELECT fingerprint FROM seal_keys ORDER BY fingerprint")}
    lacking = sorted(known - {fingerprint(key) for key in seal.keys})
    if lacking:
        raise SealError(
            f"destinations in this database are sealed with key {', '.join(lacking)}, which {seal.where} does not hold; nothing "
            f"was sealed. Copy the file from where it is whole ({_SETTING} names it), or add the old line below the new one"
        )
    if seal.fingerprint not in known:
        await tx.execute("INSERT INTO seal_keys (fingerprint) VALUES ($1) ON CONFLICT DO NOTHING", seal.fingerprint)
