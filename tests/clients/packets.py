"""Packets of a phone: an origin that answers with the address that they came from, and the ways in which they are sent there."""

from __future__ import annotations

import contextlib
import enum
import ipaddress
import socket
import struct
from collections.abc import AsyncIterator
from typing import Final

import attrs
import trio

from tests.clients.network import ORIGIN, Network

ANSWERED: Final = 15.0
"""Seconds after which no answer comes any more."""
_TRY: Final = 5.0
_SEND_AGAIN: Final = 0.3
NOTHING: Final = 1.0
"""Seconds without an answer that count as none, where none must come."""


class Kind(enum.Enum):
    """How a packet travels to the origin."""

    TCP4 = "TCP 4"
    TCP6 = "TCP 6"
    UDP4 = "UDP 4"
    UDP6 = "UDP 6"

    @property
    def family(self) -> socket.AddressFamily:
        """Of the origin's address."""
        return socket.AF_INET if self.value.endswith("4") else socket.AF_INET6

    @property
    def host(self) -> str:
        """The origin's address."""
        return ORIGIN[self.family is socket.AF_INET6]

    @property
    def is_tcp(self) -> bool:
        """Whether it is a stream."""
        return self.value.startswith("TCP")


@attrs.frozen
class PublicOrigin:
    """Answers everything with the address that it came from. `arrived` has those addresses."""

    ports: dict[Kind, int] = attrs.field(factory=dict)
    arrived: list[str] = attrs.field(factory=list)

    async def serve(self, kind: Kind, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve one kind for ever."""
        with trio.socket.socket(kind.family, socket.SOCK_STREAM if kind.is_tcp else socket.SOCK_DGRAM) as own:
            await own.bind((kind.host, 0))
            self.ports[kind] = own.getsockname()[1]
            if not kind.is_tcp:
                task_status.started()
                while True:
                    _, source = await own.recvfrom(1500)
                    await own.sendto(self._note(source), source)
            own.listen()
            task_status.started()
            async with trio.open_nursery() as nursery:
                while True:
                    stream, source = await own.accept()
                    nursery.start_soon(self._answer, stream, source)

    async def _answer(self, stream: trio.socket.SocketType, source: tuple[str, int]) -> None:
        with stream, contextlib.suppress(OSError):
            if await stream.recv(100):
                await stream.send(self._note(source))

    def _note(self, source: tuple[str, int]) -> bytes:
        self.arrived.append(source[0])
        return source[0].encode()


@contextlib.asynccontextmanager
async def serving_origin() -> AsyncIterator[PublicOrigin]:
    """An origin of every kind, for as long as the block lasts."""
    origin = PublicOrigin()
    async with trio.open_nursery() as nursery:
        for kind in Kind:
            await nursery.start(origin.serve, kind)
        yield origin
        nursery.cancel_scope.cancel()


@attrs.frozen
class Phone:
    """Sends to the origin through a SOCKS proxy on the phone, or without a `proxy` as any program there does."""

    network: Network
    origin: PublicOrigin
    proxy: int = 0

    async def send(self, kind: Kind, within: float = ANSWERED) -> str | None:
        """The address that the origin saw, or None if nothing came back within so many seconds.

        What is refused or lost is sent again, as programs do: a client may listen a moment before it serves.
        """
        with trio.move_on_after(within):
            while True:
                with trio.move_on_after(_TRY), contextlib.suppress(OSError, EOFError):
                    answer = await (self._stream(kind) if kind.is_tcp else self._datagram(kind))
                    return answer.decode()
                await trio.sleep(0.02)  # rule-ok: a program that tries again
        return None

    async def send_all(self, within: float = ANSWERED) -> dict[Kind, str | None]:
        """The same of every kind, at once."""
        found: dict[Kind, str | None] = {}

        async def send(kind: Kind) -> None:
            found[kind] = await self.send(kind, within)

        async with trio.open_nursery() as nursery:
            for kind in Kind:
                nursery.start_soon(send, kind)
        return found

    async def _stream(self, kind: Kind) -> bytes:
        with self.network.socket_of_phone(socket.AF_INET if self.proxy else kind.family, socket.SOCK_STREAM) as own:
            if self.proxy:
                await self._socks(own, 1, kind)
            else:
                await own.connect((kind.host, self.origin.ports[kind]))
            await own.send(b"?")
            if not (answer := await own.recv(100)):
                raise EOFError
            return answer

    async def _datagram(self, kind: Kind) -> bytes:
        if not self.proxy:
            with self.network.socket_of_phone(kind.family, socket.SOCK_DGRAM) as own:
                return await _ask(own, b"?", (kind.host, self.origin.ports[kind]))
        with (
            self.network.socket_of_phone(socket.AF_INET, socket.SOCK_STREAM) as control,
            self.network.socket_of_phone(socket.AF_INET, socket.SOCK_DGRAM) as own,
        ):
            relay = await self._socks(control, 3, kind)
            packet = await _ask(own, b"\0\0\0" + self._address(kind) + b"?", ("127.0.0.1", relay))
            return packet[3 + (7 if packet[3] == 1 else 19) :]

    async def _socks(self, own: trio.socket.SocketType, command: int, kind: Kind) -> int:
        """Ask the proxy (RFC 1928); returns the port that it answers with."""
        await own.connect(("127.0.0.1", self.proxy))
        await own.send(b"\x05\x01\x00")
        await _exactly(own, 2)
        wanted = self._address(kind) if command == 1 else b"\x01" + bytes(6)
        await own.send(bytes([5, command, 0]) + wanted)
        head = await _exactly(own, 4)
        if head[1]:
            raise EOFError
        rest = await _exactly(own, 6 if head[3] == 1 else 18)
        port: int = struct.unpack(">H", rest[-2:])[0]
        return port

    def _address(self, kind: Kind) -> bytes:
        address = ipaddress.ip_address(kind.host)
        return bytes([1 if address.version == 4 else 4]) + address.packed + struct.pack(">H", self.origin.ports[kind])


async def _ask(own: trio.socket.SocketType, question: bytes, where: tuple[str, int]) -> bytes:
    """Send a datagram until one comes back: the first may be lost."""
    while True:
        await own.sendto(question, where)
        with trio.move_on_after(_SEND_AGAIN):
            return await own.recv(1500)


async def _exactly(own: trio.socket.SocketType, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = await own.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data
