"""A server for a simulator on a free port of the loopback interface."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from starlette.applications import Starlette

from runtime.http import ConnectionLimits, HttpServer, open_listener, url_of


@asynccontextmanager
async def serving(app: Starlette, limits: ConnectionLimits | None = None) -> AsyncIterator[str]:
    """Serve the app for the length of the block; the value is its URL. What the app raises is shown on standard error."""
    app.router.redirect_slashes = False  # as everything that listens here
    listener = open_listener("127.0.0.1", 0)
    server = HttpServer("simulator", app, limits or ConnectionLimits(), _show, grace=0.01)
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run, listener, stop)
        try:
            yield url_of(listener)
        finally:
            stop.set()


def _show(error: str) -> None:
    sys.stderr.write(f"simulator: {error}\n")
