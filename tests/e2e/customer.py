"""A customer as the outside world sees one: a VLESS client process that knows nothing but the printed link."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from runtime.child_process import lines
from tests.e2e.stack import Stack
from tests.fork_server import shared_fork_server


@asynccontextmanager
async def client(stack: Stack, link: str) -> AsyncIterator[int]:
    """Run a client for the link; yields the port of its SOCKS proxy on loopback."""
    process = shared_fork_server("runtime.cli.main").fork(["tunnel", link], env=stack.env, cwd=stack.home)
    assert process.stdout is not None
    try:
        with trio.fail_after(90):
            announced = await anext(lines(process.stdout))
        yield int(json.loads(announced)["socks"].rpartition(":")[2])
    finally:
        with trio.CancelScope(shield=True):
            await process.stop(signal.SIGTERM, grace=30)
            await process.close()
