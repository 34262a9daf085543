"""Reading what a request carries (body, lines, parameters, each within a limit), and how its failure is told: one table
for whole requests and for the single changes of a batch.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Final

import attrs
import trio
from starlette.requests import Request

from vpn.agent.state.desired import Conflict, UuidTaken
from vpn.agent.state.owner import NotOwner
from vpn.agent.xray.node import UnknownInbound
from vpn.errors import StoreFailed, XrayCallFailed, XrayDown
from vpn.node.wire import WireError
from vpn.protocol import KEY_ID


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
    NotOwner,
    XrayDown,
    XrayCallFailed,
    StoreFailed,
)
"Exceptions that `failure_of` knows."


def failure_of(error: Exception) -> Failure:
    """What an exception of EXPECTED means to a client: its status, code and message."""
    text = str(error)
    match error:
        case BadRequest():
            return Failure(error.status, error.code, text)
        case UnknownInbound():
            return Failure(422, "unknown_inbound", text)
        case Conflict():
            return Failure(409, "conflict", text, {"generation": error.generation})
        case NotOwner():
            return Failure(409, "not_owner", text, error.facts)
        case UuidTaken():
            return Failure(422, "uuid_taken", text, {"key_id": error.key_id})
        case XrayDown() | XrayCallFailed():
            return Failure(503, "not_applied", f"written down, not applied yet: {text}")
        case StoreFailed():
            return Failure(507, "store_failed", text)
        case _:
            return Failure(422, "invalid", text)


MAX_BODY: Final = 64 * 1024
MAX_SYNC: Final = 256 * 1024 * 1024
MAX_LINE: Final = 8 * 1024
SLOW_BODY: Final = 20.0


def key_id_of(request: Request) -> str:
    """The key id in the address. Raises BadRequest."""
    key_id: str = request.path_params["key_id"]
    if KEY_ID.fullmatch(key_id) is None:
        raise BadRequest(422, "invalid", "key_id: 1 to 64 lower-case letters, digits, dots, dashes or underscores")
    return key_id


def integer_of(request: Request, name: str, default: int | None, low: int, high: int) -> int:
    """A whole number among the parameters; `default` None: it must be there. Raises BadRequest."""
    text = request.query_params.get(name)
    if text is None and default is not None:
        return default
    if text is None or not text.isascii() or not text.isdecimal() or len(text) > 16 or not low <= int(text) <= high:
        raise BadRequest(422, "invalid", f"{name}: expected a whole number from {low} to {high}")
    return int(text)


def parse_json(data: bytes) -> object:
    """The JSON in these bytes. Raises BadRequest."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise BadRequest(400, "not_json", "the body is not JSON") from None


async def read_body(request: Request, limit: int = MAX_BODY) -> bytes:
    """The whole body, at most `limit` bytes within 20 seconds. Raises BadRequest."""
    body = bytearray()
    with trio.move_on_after(SLOW_BODY) as patience:
        async with contextlib.aclosing(request.stream()) as stream:
            async for chunk in stream:
                body += chunk
                if len(body) > limit:
                    raise BadRequest(413, "too_large", f"the body is larger than {limit} bytes")
    if patience.cancelled_caught:
        raise BadRequest(408, "too_slow", f"the body did not arrive within {SLOW_BODY:g} s")
    return bytes(body)


async def read_lines(request: Request) -> AsyncGenerator[bytes, None]:
    """The body line by line, without empty ones; close it if it is left before its end. It may take its time, but not stand
    still for 20 seconds. Raises BadRequest."""
    pending, total = b"", 0
    async with contextlib.aclosing(request.stream()) as stream:
        while True:
            with trio.move_on_after(SLOW_BODY) as patience:
                chunk = await anext(stream, None)
            if patience.cancelled_caught:
                raise BadRequest(408, "too_slow", f"nothing more of the body arrived within {SLOW_BODY:g} s")
            if chunk is None:
                break
            total += len(chunk)
            if total > MAX_SYNC:
                raise BadRequest(413, "too_large", f"the body is larger than {MAX_SYNC >> 20} MiB")
            *lines, pending = (pending + chunk).split(b"\n")
            if max(map(len, (*lines, pending))) > MAX_LINE:
                raise BadRequest(413, "too_large", f"a line is longer than {MAX_LINE} bytes")
            for line in lines:
                if line.strip():
                    yield line
    if pending.strip():
        yield pending
