"""The customer's side of a tunnel: one TCP connection through a SOCKS5 proxy (RFC 1928, no authentication)."""

from __future__ import annotations

import ipaddress
import struct

import trio


class Refused(Exception):
    """The connection through the proxy was not opened, or was closed before an answer came."""


async def connect(proxy_port: int, host: str, port: int) -> trio.SocketStream:
    """Open a connection to `host:port` through the proxy. Raises `Refused`."""
    try:
        stream = await trio.open_tcp_stream("127.0.0.1", proxy_port)
    except OSError as error:
        raise Refused(str(error)) from error
    try:
        await _greet(stream, host, port)
    except BaseException as error:
        with trio.CancelScope(shield=True):
            await stream.aclose()
        if isinstance(error, trio.BrokenResourceError):
            raise Refused(str(error)) from error
        raise
    return stream


async def _greet(stream: trio.SocketStream, host: str, port: int) -> None:
    await stream.send_all(b"\x05\x01\x00")
    await _expect(stream, 2)
    await stream.send_all(b"\x05\x01\x00\x01" + ipaddress.IPv4Address(host).packed + struct.pack("!H", port))
    answer = await _expect(stream, 10)
    if answer[1] != 0:
        raise Refused(f"the proxy answered {answer[1]}")


async def fetch(proxy_port: int, url_port: int, path: str = "/page") -> bytes:
    """GET a page of a loopback server through the proxy and return its body. Raises `Refused`."""
    stream = await connect(proxy_port, "127.0.0.1", url_port)
    try:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n".encode())
        answer = b"".join([part async for part in stream])
    except trio.BrokenResourceError as error:
        raise Refused(str(error)) from error
    finally:
        await stream.aclose()
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise Refused(f"no answer came through: {head[:60]!r}")
    return body


async def _expect(stream: trio.SocketStream, count: int) -> bytes:
    received = b""
    while len(received) < count:
        part = await stream.receive_some(count - len(received))
        if not part:
            raise Refused("the proxy closed the connection")
        received += part
    return received
