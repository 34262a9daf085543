"""An ASGI layer that holds requests to a listener's limits, and lets nothing out of an app but answers."""

from __future__ import annotations

import math
import traceback
from collections.abc import Awaitable, Callable, Mapping

import trio
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime.errors import Killed
from runtime.http.limits import LIMITED, REQUESTS, Buckets, RequestLimits, has_controls, head_size
from runtime.http.sources import SOURCE, find_source

Refusal = Callable[[str, int, str, Mapping[str, str]], Response]
"Makes the answer to a request that is refused: from its path, the status, why, and headers."


def plain_refusal(_path: str, status: int, why: str, headers: Mapping[str, str]) -> Response:
    """The refusal of a listener that has no form of its own."""
    return JSONResponse({"error": why}, status, headers)


class LimitedApp:
    """An ASGI app that answers 400, 408, 413, 429, 431 and 503 by itself.

    It reads the whole body before the app sees anything of it. `name` is the listener's, in metrics and in refusals.
    `refusal` makes the answers. `crashed(text)` is told of an exception that the app let out; its client gets a 500.
    `killed` gets what a failpoint raised, and does not return: no answer is sent, as after a real crash. Raises ValueError
    for `trusted_proxies` that are no networks.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: RequestLimits,
        *,
        name: str,
        crashed: Callable[[str], None],
        killed: Callable[[Killed], Awaitable[None]] | None = None,
        refusal: Refusal = plain_refusal,
    ) -> None:
        self._app = app
        self._limits = limits
        self._name = name
        self._trusted = limits.networks()
        self._refusal = refusal
        self._crashed = crashed
        self._killed = killed
        self._buckets = Buckets(limits.rate, limits.burst)
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        source = find_source(scope, self._trusted)
        wait = self._buckets.take(source, trio.current_time())
        if head_size(scope) > self._limits.max_header:
            await self._refuse("head", 431, scope, receive, send, {"connection": "close"})
        elif wait:
            await self._refuse("rate", 429, scope, receive, send, {"retry-after": str(int(wait) + 1)})
        elif has_controls(scope):
            await self._say(400, "the path or the query has characters of control", scope, receive, send, {})
        elif self._running >= self._limits.max_requests:
            await self._refuse("at_once", 503, scope, receive, send, {"retry-after": "1"})
        else:
            self._running += 1
            try:
                await self._serve({**scope, SOURCE: source}, receive, send)
            finally:
                self._running -= 1

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        body: bytes | None = None
        with trio.move_on_after(self._limits.request_seconds) as patience:
            answer = _Answer(send, patience)
            try:
                body = await self._body(scope, receive)
            except _TooLarge:
                await self._refuse("body", 413, scope, receive, send, {"connection": "close"})
                return
            except _Gone:
                return
            try:
                await self._app(scope, _replay(body, receive), answer)
            except Exception as error:  # noqa: BLE001 - one request's defect ends that request
                if isinstance(error, Killed) and self._killed is not None:
                    await self._killed(error)
                self._crashed("".join(traceback.format_exception_only(error)).strip())
                if not answer.began:
                    await self._say(500, "our mistake; it was noted", scope, receive, answer, {})
        if patience.cancelled_caught and not answer.began:
            status = 408 if body is None else 503
            await self._refuse("seconds", status, scope, receive, send, {"connection": "close", "retry-after": "10"})
        else:
            REQUESTS.labels(self._name, str(answer.status)).inc()

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        for name, value in scope["headers"]:
            # A length is announced before anything is read: the connection has checked that it is a number.
            if name == b"content-length" and int(value) > self._limits.max_body:
                raise _TooLarge
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._limits.max_body:
                raise _TooLarge
            if not message.get("more_body", False):
                return b"".join(parts)

    async def _refuse(
        self, limit: str, status: int, scope: Scope, receive: Receive, send: Send, headers: dict[str, str]
    ) -> None:
        LIMITED.labels(self._name, limit).inc()
        REQUESTS.labels(self._name, str(status)).inc()
        await self._say(status, f"a limit of the {self._name}: {limit}", scope, receive, send, headers)

    async def _say(
        self, status: int, why: str, scope: Scope, receive: Receive, send: Send, headers: Mapping[str, str]
    ) -> None:
        await self._refusal(scope["path"], status, why, headers)(scope, receive, send)


def _replay(body: bytes, receive: Receive) -> Receive:
    is_read = False

    async def replayed() -> Message:
        nonlocal is_read
        if is_read:
            return await receive()
        is_read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


class _Answer:
    """Remembers whether an answer has begun, and its status. One that streams is under no deadline from there on: the
    connection sees to it that its client reads."""

    def __init__(self, send: Send, patience: trio.CancelScope) -> None:
        self._send = send
        self._patience = patience
        self.status = 0

    @property
    def began(self) -> bool:
        return bool(self.status)

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message.get("more_body", False):
            self._patience.deadline = math.inf
        await self._send(message)


class _TooLarge(Exception):
    """The body is, or will be, larger than allowed."""


class _Gone(Exception):
    """The client went away before its request was complete."""
