"""Which bridge to use: the inline one if a self-test finds what it was measured with, else the plain one."""

from __future__ import annotations

import asyncio
import socket
import sys
from importlib.metadata import version
from typing import Any, Literal

import asyncpg
import trio

from db.driver.begin import EXTENDED_ANSWER, with_begin
from db.driver.bridge import Bridge, await_task
from db.driver.bridge_plain import PlainBridge
from db.driver.stepping import InlineBridge, InlineConnection, InlineFuture, InlineView, step
from db.errors import ForeignAwait

VERSIONS = {"asyncpg": "0.32.0", "trio": "0.35.0", "trio-asyncio": "0.16.0"}
"""The versions whose private parts are stepped in `db.driver.stepping`."""
PYTHONS = ((3, 11), (3, 12), (3, 13))
"""The interpreters whose asyncio transports are stepped in `db.driver.stepping`."""


class BridgeUnfit(Exception):
    """The inline bridge cannot be used with what is installed; the text says what differs."""


async def choose_bridge(
    wish: Literal["auto", "inline", "plain"], loop: asyncio.AbstractEventLoop
) -> tuple[Bridge, str]:
    """The bridge, and why it is not the fast one although it was wished for; the reason is empty if nothing is wrong.

    `inline` raises BridgeUnfit instead of falling back.
    """
    if wish == "plain":
        return PlainBridge(loop), ""
    try:
        await self_test(loop)
    except BridgeUnfit as unfit:
        if wish == "inline":
            raise
        return PlainBridge(loop), str(unfit)
    return InlineBridge(loop), ""


class _Collector(asyncio.Protocol):
    def __init__(self) -> None:
        self.data = b""
        self.waiter: InlineFuture | None = None

    def data_received(self, data: bytes) -> None:
        self.data += data
        if self.waiter is not None:
            self.waiter.set_result(len(data))


class _TestConnection(InlineConnection):
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
        connection = _TestConnection(transport, view)

        async def read() -> int:
            protocol.waiter = view.create_future()
            theirs.send(b"abc")
            size: int = await protocol.waiter
            return size

        if await step(connection, read()) != len(b"abc") or protocol.data != b"abc":
            raise BridgeUnfit("a stepped read did not return what was sent")
        await connection.begin()
        transport.write(b"first")
        if theirs.recv(100) != with_begin(b"first")[0]:
            raise BridgeUnfit("BEGIN did not travel with the first write")
        theirs.send(EXTENDED_ANSWER)
        await step(connection, read())
        if protocol.data != b"abcabc" or transport.get_protocol() is not protocol:
            raise BridgeUnfit("the answer to BEGIN was not taken out")
        try:
            await step(connection, trio.sleep_forever())  # noqa: ASYNC105  it is stepped, and must be refused
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
