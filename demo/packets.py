"""Real packets: a customer's VPN client, a page behind the node, and a connection that stays open."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import attrs
import trio

from vpn.errors import TunnelError
from vpn.link import parse_link
from vpn.xray.tunnel import Tunnel, open_tunnel

_PAGE: Final = b"packets pass\n"
_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n"
_PATIENCE: Final = 15.0


@attrs.frozen
class Site:
    """A page, and an echo that never ends by itself, on the loopback interface."""

    port: int


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    """Serve it for the length of the block."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, _serve, listeners)
        yield Site(listeners[0].socket.getsockname()[1])
        nursery.cancel_scope.cancel()


@attrs.define(eq=False)
class Visitor:
    """A customer whose VPN program is running, with one connection that is kept open."""

    telegram_id: int
    tunnel: Tunnel
    site: Site
    _open: trio.SocketStream

    async def passes(self) -> bool:
        """Whether a new connection brings the page."""
        try:
            page = await self.tunnel.fetch(f"http://127.0.0.1:{self.site.port}/page", within=_PATIENCE)
        except TunnelError:
            return False
        return page.status == 200 and page.body == _PAGE

    async def is_still_open(self) -> bool:
        """Whether the connection that was opened long ago still carries bytes both ways."""
        try:
            await self._open.send_all(b"?")
            return await self._open.receive_some(1) == b"?"
        except trio.BrokenResourceError:
            return False

    async def is_cut(self) -> bool:
        """Whether that connection ends, as it must when the access has ended."""
        with trio.move_on_after(_PATIENCE):
            try:
                return await self._open.receive_some(1) == b""
            except trio.BrokenResourceError:
                return True
        return False


@asynccontextmanager
async def visitor(telegram_id: int, link: str, at: Site) -> AsyncIterator[Visitor]:
    """Start the customer's VPN program with the link. Raises TunnelError if nothing passes."""
    async with contextlib.AsyncExitStack() as stack:
        tunnel = await stack.enter_async_context(open_tunnel(parse_link(link)))
        stream = await tunnel.connect("127.0.0.1", at.port)
        await stack.enter_async_context(stream)
        await stream.send_all(b"GET /echo HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            part = await stream.receive_some(1)
            if not part:
                raise TunnelError("no echo came through the tunnel")
            head += part
        yield Visitor(telegram_id, tunnel, at, stream)


async def _serve(stream: trio.SocketStream) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        async with stream:
            head = b""
            while b"\r\n\r\n" not in head:
                part = await stream.receive_some()
                if not part:
                    return
                head += part
            if head.startswith(b"GET /echo"):
                await stream.send_all(_HEAD + b"\r\n")
                async for said in stream:
                    await stream.send_all(said)
            else:
                await stream.send_all(_HEAD + b"content-length: %d\r\n\r\n" % len(_PAGE) + _PAGE)
