"""A server for a simulator on a free port of the loopback interface."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import anycorn
import trio
from anycorn.typing import Framework
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send


def without_lifespan(app: Starlette) -> ASGIApp:
    """The app without start and end: being cancelled is no failure of it then."""

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        await send({"type": "lifespan.shutdown.complete"})

    return served


@asynccontextmanager
async def serving(app: Starlette) -> AsyncIterator[str]:
    """Serve the app for the length of the block; the value is its URL."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    port = listener.getsockname()[1]
    config = anycorn.Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.accesslog = None
    config.errorlog = None
    config.graceful_timeout = 0.01
    stop = trio.Event()
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            await anycorn.serve(cast("Framework", without_lifespan(app)), config, shutdown_trigger=stop.wait)

        nursery.start_soon(run)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            stop.set()
