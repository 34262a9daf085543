"""What every request to the agent passes first: the TLS handshake (failed ones are counted, not logged), the bearer
token, and limits.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Final

import trio
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime import get_logger
from runtime.config import Secret
from runtime.http import ConnectionLimits, has_controls, head_size, reason_of
from vpn.agent.config.metrics import HANDSHAKES_FAILED, REQUESTS
from vpn.agent.state.owner import Ownership
from vpn.protocol import CAN_EXTEND_HEADER, OWNER_HEADER, TIME_HEADER

log = get_logger(__name__)


def count_failed_handshake(error: Exception) -> None:
    """Count it; the reason is in the log at level debug."""
    HANDSHAKES_FAILED.inc()
    log.debug("a TLS handshake failed", reason=reason_of(error))


_CAN_EXTEND: Final = CAN_EXTEND_HEADER.encode()
_TIME: Final = TIME_HEADER.encode()
_OWNER: Final = OWNER_HEADER.encode()
_FOR_ALL: Final = ("/v1/owner", "/v1/clock")
"Changes that are not the owner's alone: becoming it, and the clock of a demonstration."
_NOT_BEFORE: Final = 1.0e9
"No backend lives in 2001: a time before is not one."
_NOT_AFTER: Final = 1.0e11
_BODY_UNREAD: Final = ("unauthorized", "not_owner", "busy", "too_slow", "too_large", "http")


def error_response(status: int, code: str, message: str, **facts: object) -> JSONResponse:
    """An error as the agent reports all of them."""
    headers = {"www-authenticate": "Bearer"} if status == 401 else {}
    if code in _BODY_UNREAD:
        # what is left of the body ends the connection, and a client that knows does not try to use it again
        headers["connection"] = "close"
    return JSONResponse({"error": {"code": code, "message": message, **facts}}, status, headers)


class Gate:
    """Lets only requests with the right token through, at most `limits.max_requests` at once (503 above), each for at most
    `limits.request_seconds` (504).

    The comparison takes the same time for every wrong token. Nothing of the body is read before it, and requests without
    the token take no place from those with it. `note_backend_contact` is called for every admitted request that says it
    comes from a backend which can extend keys (`vpn.protocol.CAN_EXTEND_HEADER`), with the time that it says.
    With an `ownership`, changes are let through to its owner alone (409 `not_owner`), and only the owner's contact counts.
    """

    def __init__(
        self,
        app: ASGIApp,
        token: Secret,
        limits: ConnectionLimits,
        note_backend_contact: Callable[[float | None], None],
        ownership: Ownership | None = None,
    ) -> None:
        self._app = app
        self._limits = limits
        self._note_backend_contact = note_backend_contact
        self._ownership = ownership
        self._expected = hashlib.sha256(token.reveal().encode()).digest()
        self._inside = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        began = time.perf_counter()
        status = 0

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            with trio.move_on_after(self._limits.request_seconds) as limit:
                await self._serve(scope, receive, note)
            if limit.cancelled_caught and not status:
                seconds = self._limits.request_seconds
                late = error_response(
                    504, "too_slow", f"not done within {seconds:g} s; what was begun goes on, read it back"
                )
                await late(scope, receive, note)
        finally:
            REQUESTS.labels(_method(scope), str(status or 500)).observe(time.perf_counter() - began)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._authorized(scope):
            refusal = error_response(401, "unauthorized", "this node wants: Authorization: Bearer TOKEN")
            await refusal(scope, receive, send)
        elif head_size(scope) > self._limits.max_header:
            large = error_response(431, "too_large", f"the head is larger than {self._limits.max_header} bytes")
            await large(scope, receive, send)
        elif has_controls(scope):
            wrong = error_response(400, "invalid", "the path or the query has characters of control")
            await wrong(scope, receive, send)
        elif self._inside >= self._limits.max_requests:
            most = self._limits.max_requests
            busy = error_response(503, "busy", f"more than {most} requests at once; try again in a moment")
            await busy(scope, receive, send)
        elif not (rules := self._rules(scope)) and scope["method"] != "GET" and scope["path"] not in _FOR_ALL:
            assert self._ownership is not None
            found = self._ownership.refusal()
            foreign = error_response(409, "not_owner", str(found), **found.facts)
            await foreign(scope, receive, send)
        else:
            self._inside += 1
            if rules and (_CAN_EXTEND, b"1") in scope["headers"]:
                self._note_backend_contact(_time(scope))
            try:
                await self._app(scope, receive, send)
            finally:
                self._inside -= 1

    def _rules(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name == _OWNER), b"")
        return self._ownership is None or self._ownership.admits(given.decode("latin-1"))

    def _authorized(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        kind, _, token = (given[0] if len(given) == 1 else b"").partition(b" ")
        # hashed, so that neither its length nor its beginning shows in the time
        matches = hmac.compare_digest(hashlib.sha256(token.strip()).digest(), self._expected)
        return matches and kind.lower() == b"bearer"


def _time(scope: Scope) -> float | None:
    for name, value in scope["headers"]:
        if name == _TIME:
            try:
                said = float(value)
            except ValueError:
                return None
            return said if _NOT_BEFORE < said < _NOT_AFTER else None
    return None


def _method(scope: Scope) -> str:
    method = scope["method"]
    return method if method in ("GET", "PUT", "POST", "DELETE") else "other"
