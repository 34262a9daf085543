"""The inline bridge: the lease holder's own trio task reads the socket of its asyncpg connection.

asyncio's reader is paused; the holder steps the asyncpg operation, waits for the socket with trio and calls the
transport's own read callback: one task step, one epoll_wait, one send and one recv for a query, where the textbook
bridge needs seven epoll_waits and eight steps. A cancellation returns at once.

Everything private of asyncpg and asyncio that we depend on is in this file. `self_test` proves it at start, together with
the exact versions for which it was measured; when it fails, `db.driver.bridge_plain` takes over.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Coroutine, Generator
from importlib.metadata import version
from typing import Any

import asyncpg
import trio

from db.driver.begin import EXTENDED_ANSWER, DeferredBegin, with_begin
from db.driver.bridge import Bridge, DriverConnection, LoopView, await_task
from db.driver.stepping import step
from db.errors import ConnectionLost, ForeignAwait

VERSIONS = {"asyncpg": "0.32.0", "trio": "0.35.0", "trio-asyncio": "0.16.0"}
"""The versions whose private parts are stepped here."""
PYTHONS = ((3, 11), (3, 12), (3, 13))
"""The interpreters whose asyncio transports are stepped here."""

_READ_BUFFER = 65536
"""Bytes read at once. asyncio's 256 KiB makes the allocator map and unmap memory for each packet (cpython#85451)."""

_PEEK = int(socket.MSG_PEEK | socket.MSG_DONTWAIT)

_PENDING, _RESULT, _ERROR, _CANCELLED = range(4)


class BridgeUnfit(Exception):
    """The inline bridge cannot be used with what is installed; the text says what differs."""


class InlineFuture:
    """A future of one connection: like asyncio's, but its callbacks run when it is resolved, not a loop turn later.

    Callbacks that asyncio's own tasks add (they bring a context) still go through the loop.
    """

    __slots__ = ("_asyncio_future_blocking", "_callbacks", "_state", "_value", "view")

    def __init__(self, view: InlineView) -> None:
        self.view = view
        self._state = _PENDING
        self._value: Any = None
        self._callbacks: list[tuple[Callable[[Any], object], Any]] | None = None
        self._asyncio_future_blocking = False

    def done(self) -> bool:
        return self._state != _PENDING

    def cancelled(self) -> bool:
        return self._state == _CANCELLED

    def result(self) -> Any:
        if self._state == _RESULT:
            return self._value
        if self._state == _ERROR:
            raise self._value
        if self._state == _CANCELLED:
            raise asyncio.CancelledError
        raise asyncio.InvalidStateError("the result is not there yet")

    def exception(self) -> BaseException | None:
        if self._state == _CANCELLED:
            raise asyncio.CancelledError
        if self._state == _PENDING:
            raise asyncio.InvalidStateError("the result is not there yet")
        return self._value if self._state == _ERROR else None

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self.view.loop

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Any = None) -> None:
        if self._state != _PENDING:
            self.view.loop.call_soon(callback, self, context=context)
        elif self._callbacks is None:
            self._callbacks = [(callback, context)]
        else:
            self._callbacks.append((callback, context))

    def remove_done_callback(self, callback: Callable[[Any], object]) -> int:
        kept = [entry for entry in self._callbacks or () if entry[0] != callback]
        removed = len(self._callbacks or ()) - len(kept)
        self._callbacks = kept
        return removed

    def set_result(self, value: Any) -> None:
        self._finish(_RESULT, value)

    def set_exception(self, error: Any) -> None:
        self._finish(_ERROR, error() if isinstance(error, type) else error)

    def cancel(self, msg: object = None) -> bool:
        if self._state != _PENDING:
            return False
        self._finish(_CANCELLED, None)
        return True

    def _finish(self, state: int, value: Any) -> None:
        if self._state != _PENDING:
            raise asyncio.InvalidStateError("the future is resolved already")
        self._state = state
        self._value = value
        callbacks, self._callbacks = self._callbacks, None
        if callbacks is not None:
            for callback, context in callbacks:
                if context is None:
                    callback(self)
                else:
                    self.view.loop.call_soon(callback, self, context=context)
        if self.view.parked is not None:
            # Resolved by somebody else than the task that waits for the socket: the connection was cut.
            trio.lowlevel.notify_closing(self.view.parked)

    def __await__(self) -> Generator[Any, None, Any]:
        if self._state == _PENDING:
            self._asyncio_future_blocking = True
            yield self
        return self.result()

    __iter__ = __await__


class InlineView(LoopView):
    """The loop as a connection of the inline bridge sees it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.parked: socket.socket | None = None
        """The socket that the holder's task waits for at this moment."""

    def create_future(self) -> InlineFuture:
        self.last = waiter = InlineFuture(self)
        return waiter


class InlineConnection(DriverConnection):
    """A connection whose socket is read by the task that uses it."""

    view: InlineView

    def __init__(self, connection: Any, view: InlineView) -> None:
        super().__init__(connection, view)
        transport = connection._transport
        # Under TLS the socket belongs to the transport below the TLS protocol.
        self._transport = transport if hasattr(transport, "_read_ready") else transport._ssl_protocol._transport
        self._transport.max_size = _READ_BUFFER
        self._socket: socket.socket = self._transport._sock
        self._transport.pause_reading()
        self._close_socket = self._transport._call_connection_lost
        self._transport._call_connection_lost = self._closing
        self._begin = DeferredBegin(transport, self._not_begun)

    async def begin(self) -> None:
        self._begin.arm()

    def unbegun(self) -> bool:
        return self._begin.disarm()

    def _not_begun(self) -> None:
        # Whatever the function does next would be committed at once, statement by statement.
        self.tainted = True

    def owns(self, awaited: object) -> bool:
        return type(awaited) is InlineFuture and awaited.view is self.view

    async def wait(self, pending: InlineFuture) -> None:
        view = self.view
        transport = self._transport
        while pending._state == _PENDING:
            view.parked = self._socket
            try:
                await trio.lowlevel.wait_readable(self._socket)
            except trio.ClosedResourceError:
                pass  # woken: the connection was cut, or another of its futures was resolved
            except (OSError, ValueError):
                self._lost(pending)
            finally:
                view.parked = None
            transport._read_ready()
            if transport.is_closing() and pending._state == _PENDING:
                # asyncio would tell the protocol a loop turn later; the server's last words have been read by now.
                self._lost(pending)

    def _closing(self, error: Exception | None) -> None:
        # Under TLS the protocol hears of the loss only after the socket was closed, and a closed socket wakes nobody.
        if self.view.parked is not None:
            trio.lowlevel.notify_closing(self.view.parked)
        self._close_socket(error)

    def _lost(self, pending: InlineFuture) -> None:
        if pending._state != _PENDING:
            return
        self.terminate()
        if pending._state == _PENDING:
            pending.set_exception(ConnectionLost("the connection was closed while a statement was running"))

    @property
    def socket(self) -> Any:
        return self._transport.get_extra_info("socket")

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def statement(self, command: str) -> Coroutine[Any, Any, str]:
        protocol = self.raw._protocol
        if protocol is None:
            return super().statement(command)
        sending: Coroutine[Any, Any, str] = protocol.query(command, None)
        return sending

    def is_cancelling(self) -> bool:
        protocol = self.raw._protocol
        cancelling: bool = protocol is not None and protocol._is_cancelling()
        return cancelling

    def probe(self) -> bool:
        # Cutting a connection closes its transport in the same call, so that this one look is enough.
        while not self._transport.is_closing():
            try:
                first = self._socket.recv(1, _PEEK)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if first in (b"", b"E"):
                return False
            # A changed parameter, a record of TLS, or the notice of a server that stops at once, with the end right behind
            # it: let the protocol read it, and look again.
            self._transport._read_ready()
        return False


class InlineBridge(Bridge):
    """Opens connections that are read by the task that uses them."""

    name = "inline"

    def view(self) -> InlineView:
        return InlineView(self.loop)

    def adopt(self, connection: Any, view: LoopView) -> InlineConnection:
        assert isinstance(view, InlineView)
        return InlineConnection(connection, view)


class _Collector(asyncio.Protocol):
    def __init__(self) -> None:
        self.data = b""
        self.waiter: InlineFuture | None = None

    def data_received(self, data: bytes) -> None:
        self.data += data
        if self.waiter is not None:
            self.waiter.set_result(len(data))


class _TestWire(InlineConnection):
    """The self-test's connection: a transport without asyncpg on it."""

    def __init__(self, transport: Any, view: InlineView) -> None:
        class Stub:
            _transport = transport

            def terminate(self) -> None:
                transport.abort()

        super().__init__(Stub(), view)
        self.label = "self-test"


async def self_test(loop: asyncio.AbstractEventLoop) -> None:
    """Prove on a socket pair that the bridge works with what is installed; raises BridgeUnfit. About two milliseconds."""
    _check_versions()
    for owner, names in (
        (asyncpg.Connection, ("_transport", "_protocol", "terminate", "is_in_transaction", "is_closed")),
        (asyncpg.protocol.Protocol, ("_is_cancelling",)),
    ):
        for name in names:
            if not hasattr(owner, name) and name not in getattr(owner, "__slots__", ()):
                raise BridgeUnfit(f"{owner.__module__}.{owner.__qualname__} has no {name}")
    try:
        with trio.fail_after(5.0):
            await _exercise(loop)
    except BridgeUnfit:
        raise
    except Exception as error:
        raise BridgeUnfit(f"{type(error).__name__}: {error}") from error


def _check_versions() -> None:
    if sys.version_info[:2] not in PYTHONS:
        raise BridgeUnfit(f"Python {sys.version_info[0]}.{sys.version_info[1]} was not measured")
    for package, wanted in VERSIONS.items():
        if version(package) != wanted:
            raise BridgeUnfit(f"{package} is {version(package)}, measured was {wanted}")


async def _exercise(loop: asyncio.AbstractEventLoop) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    view = InlineView(loop)
    protocol = _Collector()
    opened: asyncio.Transport | None = None
    try:
        transport, _ = await await_task(loop, loop.create_connection(lambda: protocol, sock=ours))
        opened = transport
        wire = _TestWire(transport, view)

        async def read() -> int:
            protocol.waiter = view.create_future()
            theirs.send(b"abc")
            size: int = await protocol.waiter
            return size

        if await step(wire, read()) != len(b"abc") or protocol.data != b"abc":
            raise BridgeUnfit("a stepped read did not return what was sent")
        await wire.begin()
        transport.write(b"first")
        if theirs.recv(100) != with_begin(b"first")[0]:
            raise BridgeUnfit("BEGIN did not travel with the first write")
        theirs.send(EXTENDED_ANSWER)
        await step(wire, read())
        if protocol.data != b"abcabc" or transport.get_protocol() is not protocol:
            raise BridgeUnfit("the answer to BEGIN was not taken out")
        try:
            await step(wire, trio.sleep_forever())  # noqa: ASYNC105  it is stepped, and must be refused
        except ForeignAwait:
            pass
        else:
            raise BridgeUnfit("a foreign await was not refused")
        shared = view.create_future()

        async def in_a_task() -> object:
            return await shared

        loop.call_soon(shared.set_result, "shared")
        if await await_task(loop, in_a_task()) != "shared":
            raise BridgeUnfit("an asyncio task did not get a waiter's result")
    finally:
        if opened is None:
            ours.close()
        else:
            opened.abort()
        theirs.close()
