"""The bytes of one connection: everything that waits for the client has a deadline, and nothing is shielded from cancellation."""

from __future__ import annotations

import contextlib
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

import attrs
import h11
import trio

from runtime.http.limits import ConnectionLimits

_READ: Final = 64 * 1024
_PIECE: Final = 64 * 1024
_LINGER_SECONDS: Final = 1.0
_LINGER_BYTES: Final = 1024 * 1024

ClientStream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


class ClientLost(Exception):
    """The client is gone, or does not take what it asked for."""


@attrs.define(eq=False)
class Wire:
    """A client's stream, and the parser of what comes over it."""

    stream: ClientStream
    limits: ConnectionLimits
    protocol: h11.Connection = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=self.limits.max_header)

    async def receive(self) -> bytes:
        """What the client sends next; nothing at its end. Raises ClientLost."""
        try:
            return bytes(await self.stream.receive_some(_READ))
        except trio.BrokenResourceError as error:
            raise ClientLost from error

    async def send(self, data: bytes) -> None:
        """Send bytes. Raises ClientLost if the client is gone, or takes nothing for too long."""
        view = memoryview(data)
        for begin in range(0, len(view), _PIECE):
            with trio.move_on_after(self.limits.patience) as patience:
                try:
                    await self.stream.send_all(view[begin : begin + _PIECE])
                except trio.BrokenResourceError as error:
                    raise ClientLost from error
            if patience.cancelled_caught:
                raise ClientLost

    async def refuse(self, status: int) -> None:
        """Answer what is no request, and let the client read it. Raises ClientLost."""
        if self.protocol.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        body = HTTPStatus(status).phrase.encode()
        headers = [
            ("content-type", "text/plain"),
            ("content-length", str(len(body))),
            ("date", formatdate(usegmt=True)),
            ("connection", "close"),
        ]
        parts = [
            self.protocol.send(h11.Response(status_code=status, headers=headers)),
            self.protocol.send(h11.Data(data=body)),
            self.protocol.send(h11.EndOfMessage()),
        ]
        await self.send(b"".join(parts))
        await self.linger()

    async def linger(self) -> None:
        """Say that nothing more comes, and read a little of what still does: closing over unread bytes would take the answer
        from the client (RFC 9112, 9.6)."""
        with trio.move_on_after(_LINGER_SECONDS), contextlib.suppress(trio.BrokenResourceError):
            if isinstance(self.stream, trio.SSLStream):
                plain = self.stream.transport_stream
                with contextlib.suppress(trio.BrokenResourceError):
                    await self.stream.unwrap()
            else:
                plain = self.stream
            await plain.send_eof()
            left = _LINGER_BYTES
            while left > 0 and (data := await plain.receive_some(_READ)):
                left -= len(data)
