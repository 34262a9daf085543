"""One connection: requests of HTTP/1.1 one after the other, each served by an ASGI app.

There is no HTTP/2 here and no upgrade to anything: an offer of one is answered in HTTP/1.1 (RFC 9110, 7.8), a WebSocket with 400.
"""

from __future__ import annotations

from collections.abc import Callable, MutableSet
from http import HTTPStatus
from typing import Final

import attrs
import h11
import trio
from starlette.types import ASGIApp

from runtime.http.exchange import Exchange, Peer
from runtime.http.wire import Wire

_VERSIONS: Final = (b"1.0", b"1.1")


@attrs.define(eq=False)
class HttpConnection:
    """Serves one client until it hangs up, breaks the protocol, or `is_stopping()` and its request is answered.

    `crashed(text)` is told what an app let out; its client gets a 500, or no end of its answer. While it waits for the head of a
    request its scope is in `idle`, so that a stop can end it at once.
    """

    wire: Wire
    app: ASGIApp
    client: Peer
    server: Peer
    crashed: Callable[[str], None]
    is_stopping: Callable[[], bool]
    idle: MutableSet[trio.CancelScope]

    async def run(self) -> None:
        """Serve requests until there are no more. Raises ClientLost."""
        wire = self.wire
        while True:
            try:
                request = await self._read_head()
            except h11.RemoteProtocolError as error:
                await wire.refuse(error.error_status_hint)
                return
            if request is None:
                await wire.linger()
                return
            refused = _refusal_of(request)
            if refused is not None:
                await wire.refuse(refused)
                return
            await Exchange(wire, request, self.app, self.client, self.server, self.crashed, self.is_stopping).run()
            if wire.protocol.our_state is not h11.DONE or wire.protocol.their_state is not h11.DONE:
                await wire.linger()
                return
            wire.protocol.start_next_cycle()

    async def _read_head(self) -> h11.Request | None:
        """The next request's head; None if none came in time, or the client has hung up."""
        with trio.move_on_after(0.0 if self.is_stopping() else self.wire.limits.head_seconds) as patience:
            self.idle.add(patience)
            try:
                while True:
                    event = self.wire.protocol.next_event()
                    if event is h11.NEED_DATA:
                        self.wire.protocol.receive_data(await self.wire.receive())
                    else:
                        return event if isinstance(event, h11.Request) else None
            finally:
                self.idle.discard(patience)
        return None


def _refusal_of(request: h11.Request) -> int | None:
    """The status for a head that no app is asked about."""
    if request.http_version not in _VERSIONS:
        return HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
    names = [name for name, _ in request.headers]
    # Whoever stands before us may believe the other one (RFC 9112, 6.1).
    if b"content-length" in names and b"transfer-encoding" in names:
        return HTTPStatus.BAD_REQUEST
    if any(name == b"upgrade" and value.lower() == b"websocket" for name, value in request.headers):
        return HTTPStatus.BAD_REQUEST
    if not request.target.startswith(b"/") or request.method == b"CONNECT":
        return HTTPStatus.BAD_REQUEST
    return None
