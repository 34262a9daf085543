"""Backups that only the holder of a key can read: the format of `age` (age-encryption.org/v1), by pyrage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import pyrage

from actors.backup.errors import ArchiveRefused

_HEAD: Final = b"age-encryption.org/"


def read_recipients(given: Sequence[str]) -> list[Any]:
    """Public keys such as `age1…`, as `age-keygen` prints them. Raises ValueError with the one that is none."""
    found = []
    for text in given:
        try:
            found.append(pyrage.x25519.Recipient.from_str(text))
        except pyrage.RecipientError as error:
            raise ValueError(f"{text[:80]!r} is no public key of age, such as age1…") from error
    return found


def encrypt(source: BinaryIO, target: BinaryIO, recipients: Sequence[Any]) -> None:
    """Write what `source` has, so that each of the recipients can read it. Raises OSError."""
    pyrage.encrypt_io(source, target, list(recipients))


def is_encrypted(file: BinaryIO) -> bool:
    """Whether this file begins as age's do; it is at its beginning afterwards."""
    file.seek(0)
    head = file.read(len(_HEAD))
    file.seek(0)
    return head == _HEAD


def decrypt(source: BinaryIO, target: BinaryIO, identity: Path) -> None:
    """Write the content in clear to `target`, with a key of the file `identity` (what `age-keygen` made).

    Raises ArchiveRefused: the file holds no key, no key of it fits, or the backup was cut short or changed.
    """
    try:
        lines = [line.strip() for line in identity.read_text(encoding="ascii").splitlines()]
        keys = [pyrage.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
    except (OSError, UnicodeDecodeError, pyrage.IdentityError) as error:
        why = error.strerror if isinstance(error, OSError) else "it holds no AGE-SECRET-KEY-1…"
        raise ArchiveRefused(f"the key file {identity} cannot be used: {why}") from error
    try:
        pyrage.decrypt_io(source, target, keys)
    except (pyrage.DecryptError, OSError) as error:
        raise ArchiveRefused(
            f"the backup cannot be decrypted: no key of {identity} fits, or it was cut short or changed"
        ) from error
