"""gRPC calls to Xray over its Unix socket: many at once on one HTTP/2 connection, sent together.

By hand, because thousands of keys go through here: a general HTTP client takes several times the processor and four writes a
call, each of which hands the processor over to Xray.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote

import attrs
import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import H2Error
from h2.settings import SettingCodes

from runtime import refuse_if_leased
from vpn.errors import XrayCallFailed

LONGEST_MESSAGE: Final = 8192

_FRAME: Final = struct.Struct(">?I")
_WINDOW: Final = 1 << 24
"Bytes of an answer that Xray may send without waiting: a list of 50 000 users has four million."


@attrs.define(eq=False)
class _GrpcCall:
    """A call on its way, and what came of it so far."""

    status: str | None = None
    http_status: str = ""
    message: str = ""
    data: bytearray = attrs.field(factory=bytearray)
    is_over: bool = False
    failure: str = ""

    def note(self, headers: list[tuple[str, str]]) -> None:
        """Headers, or trailers."""
        for name, value in headers:
            if name == "grpc-status":
                self.status = value
            elif name == "grpc-message":
                self.message = unquote(value)
            elif name == ":status":
                self.http_status = value


class _Connection:
    """One HTTP/2 connection. Of the tasks that wait for answers, one at a time reads for all of them."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.is_broken = False
        self._stream = stream
        self._http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8", logger=None))
        self._calls: dict[int, _GrpcCall] = {}
        self._sending = trio.Lock()
        self._receiving = trio.Lock()
        self._http.initiate_connection()
        self._http.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW})
        self._http.increment_flow_control_window(_WINDOW)

    async def call_many(self, method: str, bodies: Sequence[bytes]) -> list[_GrpcCall]:
        """As many calls as there are bodies, sent together. Raises H2Error or trio.BrokenResourceError if the connection
        cannot be used."""
        calls: dict[int, _GrpcCall] = {}
        try:
            for body in bodies:
                while self._http.outbound_flow_control_window < len(body):
                    await self._flush()
                    await self._read_once(_GrpcCall())
                number = self._http.get_next_available_stream_id()
                self._calls[number] = calls[number] = _GrpcCall()
                self._http.send_headers(number, _headers(method))
                self._http.send_data(number, body, end_stream=True)
            for call in calls.values():
                while not call.is_over:
                    await self._flush()
                    await self._read_once(call)
        except BaseException:
            for number in calls:
                self._give_up(number)
            raise
        return list(calls.values())

    def _give_up(self, number: int) -> None:
        if self._calls.pop(number, None) is None or self.is_broken:
            return
        try:
            self._http.reset_stream(number, ErrorCodes.CANCEL)  # goes out with the next call
        except H2Error:
            self.is_broken = True

    async def _flush(self) -> None:
        # while one task sends, the frames of later ones queue up; the next in line sends them all together
        async with self._sending:
            data = self._http.data_to_send()
            if not data:
                return
            try:
                await self._stream.send_all(data)
            except BaseException:
                self.is_broken = True  # half a frame may be on its way
                raise

    async def _read_once(self, call: _GrpcCall) -> None:
        async with self._receiving:
            if call.is_over:
                return  # another task has read it
            if self.is_broken:
                raise trio.BrokenResourceError("the connection broke")
            await self._flush()  # what the last read calls for: without it Xray may be waiting for us
            data = await self._stream.receive_some(1 << 18)
            if not data:
                self._break("Xray closed the connection")
                return
            try:
                for event in self._http.receive_data(data):
                    self._take(event)
            except H2Error as error:
                self._break(f"Xray does not speak HTTP/2 ({type(error).__name__})")

    def _take(self, event: Event) -> None:
        if isinstance(event, ConnectionTerminated):
            self._break("Xray is ending")
            return
        number = getattr(event, "stream_id", None)
        call = None if number is None else self._calls.get(number)
        if isinstance(event, DataReceived):
            self._http.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
        if call is None:
            return  # given up, or about the connection
        if isinstance(event, ResponseReceived | TrailersReceived):
            call.note(event.headers)  # type: ignore[arg-type]  # decoded, because of header_encoding
        elif isinstance(event, DataReceived):
            call.data += event.data
        elif isinstance(event, StreamEnded | StreamReset):
            if isinstance(event, StreamReset):
                call.failure = "Xray broke the call off"
            call.is_over = True
            del self._calls[event.stream_id]

    def _break(self, why: str) -> None:
        self.is_broken = True
        for call in self._calls.values():
            call.failure, call.is_over = why, True
        self._calls.clear()

    async def aclose(self) -> None:
        """Close it; calls on their way fail."""
        self._break("the connection was closed")
        await trio.aclose_forcefully(self._stream)


@attrs.define(eq=False)
class GrpcChannel:
    """A connection to one gRPC server on a Unix socket, made anew when it breaks. Use one per Xray process, and `aclose` it
    after.

    Calls may be made by many tasks at once. A call is over within `within` seconds (default 5) or raises XrayCallFailed.
    """

    path: str
    within: float = 5.0
    _connection: _Connection | None = attrs.field(init=False, default=None, repr=False)
    _connecting: trio.Lock = attrs.field(init=False, factory=trio.Lock, repr=False)

    async def call(self, method: str, message: bytes) -> bytes:
        """Call `/package.Service/Method` and return the answer's message.

        Raises XrayCallFailed with the server's own words and status, or with code -1 if no whole answer came: an
        absent status or an incomplete message is a failure, never an empty answer. ValueError for a message of more than
        8 KiB: nothing that is asked here is as long.
        """
        (answer,) = await self.call_many(method, [message])
        if isinstance(answer, XrayCallFailed):
            raise answer
        return answer

    async def call_many(self, method: str, messages: Sequence[bytes]) -> list[bytes | XrayCallFailed]:
        """The same call with each of these messages, all sent together: a fraction of the cost of as many tasks. What each
        would have returned or raised, in order. Raises XrayCallFailed if not all were answered in time."""
        refuse_if_leased(f"gRPC to {self.path}")
        if max(map(len, messages), default=0) > LONGEST_MESSAGE:
            raise ValueError(f"a message of {max(map(len, messages))} bytes is refused: at most {LONGEST_MESSAGE}")
        name = method.rpartition("/")[2]
        bodies = [_FRAME.pack(False, len(message)) + message for message in messages]
        try:
            with trio.fail_after(self.within):
                calls = await (await self._connected()).call_many(method, bodies)
        except (OSError, H2Error, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as error:
            raise XrayCallFailed(f"{name}: no answer from Xray ({type(error).__name__})") from error
        return [_answer(name, call) for call in calls]

    async def aclose(self) -> None:
        """Close the connection; calls on their way fail."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()

    async def _connected(self) -> _Connection:
        async with self._connecting:
            if self._connection is not None and self._connection.is_broken:
                await self.aclose()
            if self._connection is None:
                self._connection = _Connection(await trio.open_unix_socket(self.path))
            return self._connection


def _headers(method: str) -> list[tuple[str, str]]:
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", "xray"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]


def _answer(name: str, call: _GrpcCall) -> bytes | XrayCallFailed:
    if call.failure:
        return XrayCallFailed(f"{name}: no answer from Xray ({call.failure})")
    if call.status is None:
        return XrayCallFailed(f"{name}: an answer from Xray without a status (HTTP {call.http_status or 'none'})")
    if call.status != "0":
        return XrayCallFailed(
            f"{name}: {call.message or 'no reason given'}", int(call.status) if call.status.isdecimal() else 2
        )
    data = bytes(call.data)
    if len(data) < _FRAME.size:
        return XrayCallFailed(f"{name}: an incomplete answer from Xray ({len(data)} bytes)")
    compressed, size = _FRAME.unpack_from(data)
    if compressed or len(data) != _FRAME.size + size:
        return XrayCallFailed(f"{name}: an answer from Xray that cannot be read ({len(data)} bytes)")
    return data[_FRAME.size :]
