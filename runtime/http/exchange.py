"""One request and its answer, between the wire and an ASGI app."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote

import attrs
import h11
import trio
from starlette.types import ASGIApp, Message, Scope

from runtime.http.wire import ClientLost, Wire

_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}
_DISCONNECTED: Final[Message] = {"type": "http.disconnect"}

Peer = tuple[str, int]


@attrs.define(eq=False)
class Exchange:
    """A request and its answer, as an ASGI app sees them."""

    wire: Wire
    request: h11.Request
    app: ASGIApp
    client: Peer
    server: Peer
    crashed: Callable[[str], None]
    is_stopping: Callable[[], bool]
    _protocol: h11.Connection = attrs.field(init=False)
    _scope: trio.CancelScope = attrs.field(init=False, factory=trio.CancelScope)
    _body: bytearray = attrs.field(init=False, factory=bytearray)
    _body_ended: bool = attrs.field(init=False, default=False)
    _told_end: bool = attrs.field(init=False, default=False)
    _client_ended: bool = attrs.field(init=False, default=False)
    _head: h11.Response | None = attrs.field(init=False, default=None)
    _began: bool = attrs.field(init=False, default=False)
    _is_over: bool = attrs.field(init=False, default=False)
    _watch: trio.CancelScope = attrs.field(init=False, factory=trio.CancelScope)

    def __attrs_post_init__(self) -> None:
        self._protocol = self.wire.protocol

    async def run(self) -> None:
        """Have the app answer. Raises ClientLost if the client can get no whole answer any more."""
        with self._scope:
            try:
                await self.app(self._asgi_scope(), self.receive, self.send)
            except Exception as error:  # noqa: BLE001 - one request's defect ends that request
                self.crashed("".join(traceback.format_exception_only(error)).strip())
        if self._is_over:
            return
        if self._began or self._scope.cancelled_caught or self._client_ended:
            raise ClientLost
        self._head = None
        await self.wire.refuse(HTTPStatus.INTERNAL_SERVER_ERROR)

    def _asgi_scope(self) -> Scope:
        path, _, query = self.request.target.partition(b"?")
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": self.request.http_version.decode(),
            "method": self.request.method.decode().upper(),
            "scheme": "https" if isinstance(self.wire.stream, trio.SSLStream) else "http",
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": list(self.request.headers),
            "client": self.client,
            "server": self.server,
        }

    async def receive(self) -> Message:
        """The next part of the body; after its end, that the client has hung up, once it has."""
        if self._is_over:
            return _DISCONNECTED
        if self._told_end:
            await self._until_client_ends()
            return _DISCONNECTED
        try:
            while not self._take() and not self._body_ended:
                await self._read_more()
        except h11.RemoteProtocolError as error:
            await self._break_off(error.error_status_hint)
            return _DISCONNECTED
        except ClientLost:
            self._scope.cancel()
            await trio.lowlevel.checkpoint()
        part = bytes(self._body)
        self._body.clear()
        self._told_end = self._body_ended
        return {"type": "http.request", "body": part, "more_body": not self._body_ended}

    def _take(self) -> bool:
        """Take of the body what has arrived. Raises RemoteProtocolError."""
        while not self._body_ended:
            event = self._protocol.next_event()
            if isinstance(event, h11.Data):
                self._body += event.data
            elif isinstance(event, h11.EndOfMessage):
                self._body_ended = True
            else:
                break
        return bool(self._body)

    async def _read_more(self) -> None:
        if self._protocol.they_are_waiting_for_100_continue:
            go_on = self._protocol.send(h11.InformationalResponse(status_code=100, headers=[]))
            await self.wire.send(go_on or b"")
        with trio.move_on_after(self.wire.limits.patience) as patience:
            self._protocol.receive_data(await self.wire.receive())
        if patience.cancelled_caught:
            raise h11.RemoteProtocolError("the body stands still", error_status_hint=HTTPStatus.REQUEST_TIMEOUT)

    async def _break_off(self, status: int) -> None:
        """The rest of the request cannot be read: say so, if no answer has begun, and send nothing more."""
        self._end()
        with contextlib.suppress(ClientLost):
            await self.wire.refuse(status)

    async def _until_client_ends(self) -> None:
        """Wait until the client has hung up or the answer is complete. A request that comes meanwhile waits for its turn."""
        with trio.CancelScope() as self._watch:
            while not self._client_ended:
                if self._protocol.trailing_data[0]:
                    await trio.sleep_forever()
                try:
                    data = await self.wire.receive()
                except ClientLost:
                    data = b""
                self._client_ended = not data
                self._protocol.receive_data(data)

    async def send(self, message: Message) -> None:
        """Send a part of the answer. What comes after its end is dropped. If the client is gone, the app is cancelled."""
        if self._is_over:
            return
        if message["type"] == "http.response.start":
            self._head = self._response(message)
            return
        parts = []
        if not self._began:
            assert self._head is not None, "an answer starts with http.response.start"
            self._began = True
            parts.append(self._protocol.send(self._head))
        body = b"" if self.request.method == b"HEAD" else message.get("body", b"")
        if body:
            parts.append(self._protocol.send(h11.Data(data=body)))
        is_last = not message.get("more_body", False)
        if is_last:
            parts.append(self._protocol.send(h11.EndOfMessage()))
        try:
            await self.wire.send(b"".join(parts))
        except ClientLost:
            self._scope.cancel()
            await trio.lowlevel.checkpoint()
        if is_last:
            self._end()

    def _end(self) -> None:
        self._is_over = True
        self._watch.cancel()

    def _response(self, message: Message) -> h11.Response:
        headers = [*message.get("headers", ()), (b"date", formatdate(usegmt=True).encode())]
        if not self._is_reusable() and not any(name.lower() == b"connection" for name, _ in headers):
            headers.append((b"connection", b"close"))
        return h11.Response(status_code=message["status"], headers=headers)

    def _is_reusable(self) -> bool:
        """Whether another request can follow on this connection: not while a body is on its way that the app did not read."""
        with contextlib.suppress(h11.RemoteProtocolError):
            self._take()
        return self._body_ended and not self.is_stopping()
