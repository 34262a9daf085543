"""A VLESS client made from a link alone: Xray as a child process, SOCKS and HTTP on loopback."""

from __future__ import annotations

import contextlib
import io
import ipaddress
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from http.client import HTTPException, parse_headers
from typing import Final
from urllib.parse import urlsplit

import attrs
import trio

from runtime import refuse_if_leased, unwrap_group
from vpn.errors import TunnelError, XrayCannotListen
from vpn.link import VlessLink
from vpn.ports import choose_passing
from vpn.xray.config import client_config
from vpn.xray.process import XrayProcess

MAX_PAGE: Final = 64 * 1024 * 1024
_HEAD_LIMIT: Final = 64 * 1024
_PORT_TRIES: Final = 3


@attrs.frozen
class TunnelResponse:
    """A page that came back through a tunnel."""

    status: int
    body: bytes = attrs.field(repr=False)


@attrs.frozen
class Tunnel:
    """An open tunnel: SOCKS5 and HTTP proxy on 127.0.0.1:`port`. Raises LeaseHeldAcrossCall when used under a lease."""

    port: int

    async def connect(self, host: str, port: int) -> trio.SocketStream:
        """A TCP connection through the tunnel. It opens before the node has accepted the key: a refusal shows as end of
        file at the first read. Raises TunnelError if the client itself refuses."""
        refuse_if_leased(f"tunnel to {host}:{port}")
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        try:
            await _socks_connect(stream, host, port)
        except (TunnelError, trio.BrokenResourceError) as error:
            await stream.aclose()
            raise TunnelError(f"the tunnel's client refused a connection to {host}:{port}: {error}") from error
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream

    async def fetch(self, url: str, *, within: float = 15.0) -> TunnelResponse:
        """GET one http or https page through the tunnel, at most 64 MiB, not following redirects.

        Raises TunnelError with the reason if nothing, or not all of it, came back within `within` seconds.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise TunnelError(f"{url!r} is not an http or https address")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            with trio.fail_after(within):
                stream: trio.abc.Stream = await self.connect(parts.hostname, port)
                async with stream:
                    if parts.scheme == "https":
                        stream = trio.SSLStream(
                            stream, ssl.create_default_context(), server_hostname=parts.hostname, https_compatible=True
                        )
                    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                    return await _get(stream, parts.netloc.rpartition("@")[2], path)
        except trio.TooSlowError:
            raise TunnelError(
                f"no complete answer from {parts.netloc} through the tunnel within {within:g} s"
            ) from None
        except (trio.BrokenResourceError, ssl.SSLError, OSError) as error:
            reason = error.__cause__ or error
            raise TunnelError(f"the connection to {parts.netloc} broke inside the tunnel: {reason}") from error


@contextlib.asynccontextmanager
async def open_tunnel(link: VlessLink, *, port: int = 0, mux: int = 0, within: float = 15.0) -> AsyncIterator[Tunnel]:
    """A tunnel for as long as the block lasts. `port` 0 chooses one; `mux` > 0 carries streams in shared connections.

    Opening does not talk to the node: a wrong or removed key shows at the first use. Raises XrayConfigRefused for a
    link this client cannot use, XrayCannotListen if `port` is taken, TunnelError if the client dies meanwhile.
    """
    async with tunnel_of_client(lambda nursery: _start(nursery, link, port, mux, within)) as tunnel:
        yield tunnel


@contextlib.asynccontextmanager
async def tunnel_of_client(start: Callable[[trio.Nursery], Awaitable[int]]) -> AsyncIterator[Tunnel]:
    """The tunnel of a client that `start` starts in the nursery given and whose port it returns; the client ends with the block.

    Raises by itself what the client died of; what the block raises goes on as it is, in no group.
    """
    body_error: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            port = await start(nursery)
            try:
                yield Tunnel(port)
            except Exception as error:  # noqa: BLE001  # carried past the nursery, which would wrap it in a group
                body_error = error
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise unwrap_group(group) from None
    if body_error is not None:
        raise body_error


async def _start(nursery: trio.Nursery, link: VlessLink, port: int, mux: int, within: float) -> int:
    for attempt in range(1, _PORT_TRIES + 1):
        chosen = port or choose_passing()
        xray = XrayProcess(
            name="tunnel",
            config=client_config(link, chosen, mux=mux),
            listening_on=f"127.0.0.1:{chosen}",
            started_within=within,
        )
        try:
            await nursery.start(_until_end, xray)
        except XrayCannotListen:
            # the port was taken between choosing and listening
            if port or attempt == _PORT_TRIES:
                raise
            continue
        return chosen
    raise AssertionError("unreachable")


async def _until_end(xray: XrayProcess, *, task_status: trio.TaskStatus[None]) -> None:
    status = await xray.run(task_status=task_status)
    raise TunnelError(f"the tunnel's client ended with status {status}")


async def _socks_connect(stream: trio.SocketStream, host: str, port: int) -> None:
    await stream.send_all(b"\x05\x01\x00")
    if await _exactly(stream, 2) != b"\x05\x00":
        raise TunnelError("it is not a SOCKS5 proxy without password")
    await stream.send_all(b"\x05\x01\x00" + _socks_address(host) + struct.pack(">H", port))
    reply = await _exactly(stream, 4)
    if reply[1] != 0:
        raise TunnelError(f"SOCKS5 reply {reply[1]}")
    sizes = {1: 4, 4: 16}
    await _exactly(stream, (sizes[reply[3]] if reply[3] in sizes else (await _exactly(stream, 1))[0]) + 2)


def _socks_address(host: str) -> bytes:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.encode("idna")
        return b"\x03" + bytes([len(name)]) + name
    return (b"\x01" if address.version == 4 else b"\x04") + address.packed


async def _exactly(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = await stream.receive_some(size - len(data))
        if not part:
            raise TunnelError("it closed the connection")
        data += part
    return data


async def _get(stream: trio.abc.Stream, host: str, path: str) -> TunnelResponse:
    # HTTP/1.0: the answer cannot be chunked, so it ends with its length or with the connection
    request = (
        f"GET {path} HTTP/1.0\r\nHost: {host}\r\nUser-Agent: atlas-tunnel\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
    await stream.send_all(request.encode("ascii", "strict"))
    data = bytearray()
    while (head_end := data.find(b"\r\n\r\n")) < 0:
        part = await stream.receive_some()
        if not part:
            raise TunnelError(
                "the connection was closed before an answer came: the node refused the key, or cannot reach the address"
                if not data
                else "the connection was closed in the middle of the answer's head"
            )
        data += part
        if len(data) > _HEAD_LIMIT:
            raise TunnelError("the answer's head is too long")
    status_line, _, rest = bytes(data[: head_end + 4]).partition(b"\r\n")
    try:
        status = int(status_line.split(None, 2)[1])
        length = parse_headers(io.BytesIO(rest)).get("content-length")
        wanted = None if length is None else int(length)
    except (ValueError, IndexError, HTTPException) as error:
        raise TunnelError("the answer is not HTTP") from error
    body = bytearray(data[head_end + 4 :])
    while wanted is None or len(body) < wanted:
        part = await stream.receive_some()
        if not part:
            break
        body += part
        if len(body) > MAX_PAGE:
            raise TunnelError(f"the page is larger than {MAX_PAGE >> 20} MiB")
    if wanted is not None and len(body) < wanted:
        raise TunnelError(f"the connection was cut after {len(body)} of {wanted} bytes")
    return TunnelResponse(status, bytes(body))
