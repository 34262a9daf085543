"""Who rules this node: one database, known by the last nonce that it gave.

A copied database has the same identity as the one that it was copied from. What tells them apart is the nonce: it is changed
again and again, and a new one is taken only from who knows the one before.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
import time
from pathlib import Path
from typing import Final

import attrs

from runtime import get_logger
from vpn.agent.state import files
from vpn.agent.state.records import Damaged, decode_line, encode_line
from vpn.errors import StoreCorrupt, StoreFailed, StoreUnreadable

log = get_logger(__name__)

OPEN_SECONDS: Final = 3600.0
"Seconds after it was installed in which a node takes the first owner that comes."
_NAME: Final = "owner.json"
_UNOWNED: Final = (
    "no installation rules this node, and it takes none without a one-time code (the first hour is over, or it was "
    "disowned): run "
    "`atlas node disown` on its host, and give the code to `atlas node own NAME --code CODE`"
)


def digest_of(secret: str) -> str:
    """What may be shown of a nonce or kept of a code: it proves nothing to who sees it."""
    return hashlib.sha256(secret.encode()).hexdigest()


@attrs.frozen
class Owner:
    """Who rules the node. `database_id` "": no database does, and who comes first is taken until `open_until` (Unix seconds
    of the host's clock), or whoever has the one-time code with this digest. `since` is when the database was taken first.
    """

    database_id: str = ""
    nonce: str = attrs.field(default="", repr=False)
    since: float = 0.0
    open_until: float = 0.0
    code_digest: str = attrs.field(default="", repr=False)


class NotOwner(Exception):
    """Another database rules the node, or none does and the time for the first one is over. `facts` say what may be known of
    it."""

    def __init__(self, message: str, facts: dict[str, object]) -> None:
        super().__init__(message)
        self.facts = facts


@attrs.define(eq=False)
class Ownership:
    """The owner, in memory and in the file `owner.json` of the data directory.

    `is_private` says that whoever reaches the agent has more than its token: it listens on loopback, or asks for a client
    certificate. Only then may an owner be replaced from afar. Raises StoreUnreadable as it is made.
    """

    directory: Path
    is_private: bool
    owner: Owner = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        try:
            found = self._read()
        except StoreCorrupt as error:
            # customers are served all the same; nobody knows this nonce
            log.error("who rules this node cannot be told", reason=str(error))  # noqa: TRY400  # the reason says all
            found = Owner("unreadable", secrets.token_hex(16))
        if found is None:
            found = Owner(open_until=time.time() + OPEN_SECONDS)
            try:
                files.replace(self._path, encode_line(attrs.asdict(found)))
            except OSError as error:
                raise StoreUnreadable(f"cannot write {self._path}: {error.strerror}; {files.remedy(error)}") from error
        self.owner = found

    def admits(self, nonce: str) -> bool:
        """Whether who has this nonce may change the node: its owner, or, as before there were owners, anybody until there is
        one. A node that was disowned waits for its next owner alone."""
        if not self.owner.database_id:
            return not self.owner.code_digest
        return hmac.compare_digest(nonce, self.owner.nonce)

    def refusal(self) -> NotOwner:
        """Why a claim or a change is refused."""
        owner = self.owner
        if not owner.database_id:
            return NotOwner(_UNOWNED, {"takes_changes": not owner.code_digest})
        since = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(owner.since))
        return NotOwner(
            f"another installation rules this node (database {owner.database_id[:8]}, since {since}): reading is free, "
            f"changes are "
            "not. To move it here, deliberately: atlas node own NAME --take",
            {"database_id": owner.database_id, "since": owner.since, "nonce_digest": digest_of(owner.nonce)},
        )

    def claim(self, database_id: str, previous: str, nonce: str, *, take: bool, code: str) -> None:
        """Take this nonce. Saying the same again is harmless. Raises NotOwner, or StoreFailed if it cannot be written down."""
        with contextlib.suppress(StoreCorrupt):
            self.owner = self._read() or self.owner  # `atlas node disown` may have changed the file
        owner = self.owner
        if not owner.database_id:
            if not self._is_open(owner, code):
                raise self.refusal()
            log.info("this node is ruled by a database from now on", database=database_id[:8])
        elif hmac.compare_digest(nonce, owner.nonce):
            return
        elif take and self.is_private:
            log.warning(
                "another database rules this node from now on", database=database_id[:8], before=owner.database_id[:8]
            )
        elif take:
            raise NotOwner(
                "this node is reached beyond loopback without a client certificate, where the token alone takes no node "
                "away: set "
                "tls.client_ca, or run `atlas node disown` on its host and give the code to `atlas node own NAME --code CODE`",
                {},
            )
        elif database_id != owner.database_id or not hmac.compare_digest(previous, owner.nonce):
            raise self.refusal()
        since = owner.since if database_id == owner.database_id and not take else time.time()
        taken = Owner(database_id, nonce, since)
        try:
            files.replace(self._path, encode_line(attrs.asdict(taken)))
        except OSError as error:
            raise StoreFailed(f"cannot write {self._path}: {error.strerror}; free space or mend the disk") from error
        self.owner = taken

    def _is_open(self, owner: Owner, code: str) -> bool:
        if owner.code_digest:
            return hmac.compare_digest(digest_of(code), owner.code_digest)
        return 0 <= owner.open_until - time.time() <= OPEN_SECONDS

    @property
    def _path(self) -> Path:
        return self.directory / _NAME

    def _read(self) -> Owner | None:
        content = files.read(self._path)
        if content is None:
            return None
        try:
            return _owner(content)
        except Damaged as error:
            raise StoreCorrupt(
                f"{self._path} is damaged: {error}. It says which database rules this node: run `atlas node disown` on this "
                "host, then `atlas node own NAME --code CODE` where the backend runs"
            ) from error


def _owner(content: bytes) -> Owner:
    data = decode_line(content.removesuffix(b"\n"))
    for field in attrs.fields(Owner):
        if not isinstance(data.get(field.name), int | float if field.name in ("since", "open_until") else str):
            raise Damaged(f"{field.name} is missing")
    return Owner(**data)  # type: ignore[arg-type]  # checked field by field above


def disown(directory: Path) -> str:
    """Let no database rule the node of this data directory; returns the one-time code that the next one needs. A running
    agent goes by it at the next claim. Raises StoreUnreadable.
    """
    code = "-".join(secrets.token_hex(3) for _ in range(4))
    try:
        files.replace(directory / _NAME, encode_line(attrs.asdict(Owner(code_digest=digest_of(code)))))
    except OSError as error:
        raise StoreUnreadable(
            f"cannot write {directory / _NAME}: {error.strerror}; run it as root on the node's host"
        ) from error
    return code


def nonce_of(directory: Path) -> str:
    """The nonce of the node of this data directory, for who works on its host; "" if no database rules it."""
    content = files.read(directory / _NAME)
    return "" if content is None else str(decode_line(content.removesuffix(b"\n")).get("nonce", ""))
