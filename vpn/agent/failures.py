"""How failures are told: one table for whole requests and for the single changes of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from vpn.agent.desired import Conflict, UuidTaken
from vpn.agent.node import UnknownInbound
from vpn.errors import StoreFailed, XrayCallFailed, XrayDown
from vpn.wire import WireError


class BadRequest(Exception):
    """The request is not acceptable; `status` and `code` say how."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@attrs.frozen
class Failure:
    """A failure as clients read it."""

    status: int
    code: str
    message: str
    facts: Mapping[str, object] = attrs.field(factory=dict)

    def to_json(self) -> dict[str, object]:
        """Without the status, which is the answer's own."""
        return {"code": self.code, "message": self.message, **self.facts}


EXPECTED: Final = (
    BadRequest,
    WireError,
    UnknownInbound,
    Conflict,
    UuidTaken,
    XrayDown,
    XrayCallFailed,
    StoreFailed,
)
"Exceptions that `failure_of` knows."


def failure_of(error: Exception) -> Failure:
    """How an exception of EXPECTED is told."""
    text = str(error)
    match error:
        case BadRequest():
            return Failure(error.status, error.code, text)
        case UnknownInbound():
            return Failure(422, "unknown_inbound", text)
        case Conflict():
            return Failure(409, "conflict", text, {"generation": error.generation})
        case UuidTaken():
            return Failure(422, "uuid_taken", text, {"key_id": error.key_id})
        case XrayDown() | XrayCallFailed():
            return Failure(503, "not_applied", f"written down, not applied yet: {text}")
        case StoreFailed():
            return Failure(507, "store_failed", text)
        case _:
            return Failure(422, "invalid", text)
