"""Who is signed in: a cookie that nothing needs to be remembered for, and how often somebody may try."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Callable
from typing import Final

import attrs
import trio

from runtime.http.limits import Buckets
from runtime.http.sources import IpAddress, read_address
from runtime.operators.identity import Identity, Operators

LIFETIME: Final = 12 * 3600.0
"""Seconds that a session lasts."""
A_MINUTE: Final = 5
"""Tries to sign in a minute, of one source."""
A_MINUTE_IN_ALL: Final = 20
_EVERYBODY: Final = read_address("::1")
_OF_THIS_PROCESS: Final = secrets.token_bytes(32)
"""The key where none is configured: it outlives the actor, and not the process."""


@attrs.frozen
class Sessions:
    """Makes and reads session cookies: `name.issued.mac`.

    The MAC covers the digest of the operator's token, so that another token ends every session that the old one began.
    `operators()` gives those who are declared now; `key` is the secret, empty for one that ends with the process.
    """

    operators: Callable[[], Operators]
    key: bytes = b""
    clock: Callable[[], float] = time.time

    def sign_in(self, token: str) -> str:
        """The cookie's value for the holder of this token. Raises NotAllowed."""
        who = self.operators().identify(os.getuid(), token)
        return self._cookie(who.name, int(self.clock()))

    def identify(self, cookie: str) -> Identity | None:
        """Whose cookie this is, with the role of this moment; None if it is nobody's, or no longer."""
        name, _, rest = cookie.rpartition(".")
        name, _, issued = name.rpartition(".")
        if not rest or not issued.isascii() or not issued.isdigit() or len(issued) > 12:
            return None
        one = self.operators().declared.get(name)
        if one is None or one.token_sha256 is None:
            return None
        age = self.clock() - int(issued)
        is_ours = hmac.compare_digest(self._cookie(name, int(issued)).encode(), cookie.encode())
        return Identity("operator", name, one.role, "token") if is_ours and -60 <= age <= LIFETIME else None

    def _cookie(self, name: str, issued: int) -> str:
        one = self.operators().declared.get(name)
        digest = "" if one is None or one.token_sha256 is None else one.token_sha256.lower()
        said = f"{name}.{issued}"
        mac = hmac.new(self.key or _OF_THIS_PROCESS, f"{said}.{digest}".encode(), hashlib.sha256).hexdigest()
        return f"{said}.{mac}"


class Tries:
    """How often somebody may try to sign in."""

    def __init__(self) -> None:
        self._by_source = Buckets(A_MINUTE / 60, A_MINUTE)
        self._in_all = Buckets(A_MINUTE_IN_ALL / 60, A_MINUTE_IN_ALL)

    def wait(self, source: IpAddress) -> float:
        """Seconds until this source may try again; 0.0: now, and the try is counted."""
        now = trio.current_time()
        assert _EVERYBODY is not None
        return self._by_source.take(source, now) or self._in_all.take(_EVERYBODY, now)
