"""BEGIN that travels with the first statement of its transaction instead of a round trip of its own.

The order is kept by the server: the two are one unit of the protocol, so that a BEGIN that fails (a cancellation that
arrives early) takes the statement with it. A function that swallows such an error is refused its next statement, so that
nothing ever runs outside the transaction. The driver knows nothing of it: BEGIN is put in front of the bytes that it
writes, and the server's answer to it is taken out of the bytes that it reads.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

_HEADER = struct.Struct("!cI")
_QUERY = b"Q"


def _message(kind: bytes, body: bytes) -> bytes:
    return _HEADER.pack(kind, len(body) + 4) + body


EXTENDED = (
    _message(b"P", b"\x00BEGIN\x00\x00\x00")  # parse, without a name or parameters
    + _message(b"B", b"\x00\x00\x00\x00\x00\x00\x00\x00")  # bind
    + _message(b"E", b"\x00\x00\x00\x00\x00")  # execute; the statement's own sync ends the unit
)
"""BEGIN in front of a prepared statement."""
DONE = _message(b"C", b"BEGIN\x00")
EXTENDED_ANSWER = _message(b"1", b"") + _message(b"2", b"") + DONE
"""What the server says to EXTENDED."""


def with_begin(data: bytes) -> tuple[bytes, bytes]:
    """The bytes to write instead, and the answer to take out of what comes back."""
    if data[:1] == _QUERY:
        # A simple query would be skipped, not answered, after a failed EXTENDED; as one string the two fail together.
        return _message(_QUERY, b"BEGIN;" + data[5:]), DONE
    return EXTENDED + data, EXTENDED_ANSWER


class AnswerFilter:
    """Takes the expected messages, in order, out of a stream; others in between (notices, parameters) pass.

    An error in their place ends the filtering: it is the answer to the whole unit.
    """

    def __init__(self, expected: bytes) -> None:
        self._expected = expected
        self._buffer = b""
        self.finished = False
        self.refused = False
        """Whether an error came instead: there is no transaction."""

    def feed(self, data: bytes) -> bytes:
        """Bytes came in; returns those that are the driver's."""
        if not self._buffer and data.startswith(self._expected):
            self.finished = True
            return data[len(self._expected) :]
        data = self._buffer + data
        passed = []
        while len(data) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(data)
            if len(data) <= length:
                break
            message, data = data[: length + 1], data[length + 1 :]
            if self._expected.startswith(message):
                self._expected = self._expected[len(message) :]
            else:
                passed.append(message)
            if kind == b"E" or not self._expected:
                self.finished = True
                self.refused = bool(self._expected)
                passed.append(data)
                data = b""
                break
        self._buffer = data
        return b"".join(passed)


class DeferredBegin:
    """Arms a transport so that the next write brings BEGIN along, and stands before the driver's protocol until answered."""

    def __init__(self, transport: Any, refused: Callable[[], None]) -> None:
        """`refused` is called when the server began no transaction, before the driver hears of the error."""
        self._transport = transport
        self._refused = refused
        self._protocol: Any = transport.get_protocol()
        self._filter = AnswerFilter(b"")
        self.is_pending = False
        """Whether BEGIN waits for a first statement."""

    def begin(self) -> None:
        """Put BEGIN in front of the next write."""
        self.is_pending = True
        self._transport.write = self._write

    def forget(self) -> bool:
        """Forget a BEGIN that was not sent; returns whether there was one."""
        was_pending = self.is_pending
        if was_pending:
            self.is_pending = False
            del self._transport.write
        return was_pending

    def _write(self, data: Any) -> None:
        self.forget()
        sent, answer = with_begin(bytes(data))
        self._filter = AnswerFilter(answer)
        self._transport.set_protocol(self)
        self._transport.write(sent)

    def data_received(self, data: bytes) -> None:
        """asyncio's callback; all others go straight to the driver's protocol."""
        rest = self._filter.feed(data)
        if self._filter.finished:
            self._transport.set_protocol(self._protocol)
            if self._filter.refused:
                self._refused()
        if rest:
            self._protocol.data_received(rest)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._protocol, name)
