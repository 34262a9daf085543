"""The stream of a page: every part that is newer than what its viewer has, in one message."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Final

import trio
from starlette.types import Receive, Scope, Send

from runtime.desk.board import Board, Source

_SILENCE: Final = 15.0
"""Seconds after which a comment shows proxies that the stream lives."""
_RETRY: Final = 1000
_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class PartsStream:
    """An ASGI response. `since` is what the viewer has, `epoch-version`, of a page or of a stream before.

    It ends when the client hangs up, when `is_allowed()` is no longer true, and when `closing` is set.
    """

    def __init__(
        self,
        board: Board,
        sources: Sequence[Source],
        language: str,
        since: str,
        is_allowed: Callable[[], bool],
        closing: trio.Event,
    ) -> None:
        self._board = board
        self._sources = sources
        self._language = language
        epoch, _, version = since.partition("-")
        is_known = epoch == board.epoch and version.isascii() and version.isdigit() and len(version) < 18
        self._version = int(version) if is_known else 0
        self._is_allowed = is_allowed
        self._closing = closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the end."""
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        async with trio.open_nursery() as nursery:

            async def until_gone() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                nursery.cancel_scope.cancel(reason="the viewer has gone")

            async def until_closing() -> None:
                await self._closing.wait()
                nursery.cancel_scope.cancel(reason="the desk closes")

            nursery.start_soon(until_gone)
            nursery.start_soon(until_closing)
            await self._send_parts(send)
            nursery.cancel_scope.cancel(reason="the session has ended")
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_parts(self, send: Send) -> None:
        async def say(text: str) -> None:
            await send({"type": "http.response.body", "body": text.encode(), "more_body": True})

        await say(f"retry: {_RETRY}\n\n")
        with self._board.watch(self._sources, self._language) as watch:
            while self._is_allowed():
                newer = watch.newer(self._version)
                self._version = self._board.version
                if newer:
                    data = json.dumps(newer, ensure_ascii=False, separators=(",", ":"))
                    await say(f"id: {self._board.epoch}-{self._version}\ndata: {data}\n\n")
                    continue  # while it was sent, there may have come more
                with trio.move_on_after(_SILENCE) as silence:
                    await self._board.changed()
                if silence.cancelled_caught:
                    await say(":\n\n")
