"""What all viewers look at: parts of pages with a version each, rendered once for everybody.

A viewer holds one number and gets every part that is newer, in one message. There is no queue for a viewer: one that reads
slowly skips what lies between, and costs nothing meanwhile.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import attrs
import trio

from runtime.error_text import error_text
from runtime.log.logs import get_logger

QUIET: Final = 0.1
"""Seconds between two renderings, at least."""
SHARE: Final = 10
"""Times as long as a rendering took, the board rests after it: it takes at most a tenth of the loop, however large the tree."""
TICK: Final = 1.0
"""Seconds after which everything that is watched is rendered again: not all that is shown is told by an event."""

_log = get_logger("desk")

Parts = Mapping[str, str]
"""HTML by the id of its outermost element."""


@attrs.frozen
class Source:
    """What renders some parts, in one language. `render(language)` must not wait, and runs on the loop."""

    name: str
    render: Callable[[str], Parts]


@attrs.define(eq=False)
class _Rendered:
    source: Source
    language: str
    parts: dict[str, tuple[int, str]] = attrs.field(factory=dict)
    watchers: int = 0
    failure: str = ""


class Board:
    """Renders sources that somebody watches, when something happened and at each tick.

    A source that raises is logged, and its parts stay as they were.
    """

    def __init__(self) -> None:
        self.epoch: str = secrets.token_hex(4)
        """Tells the numbers of this board from those of another process's."""
        self.version = 0
        self._rendered: dict[tuple[str, str], _Rendered] = {}
        self._touched = trio.Event()
        self._changed = trio.Event()
        self._watchers = 0

    @property
    def watchers(self) -> int:
        """Open streams."""
        return self._watchers

    def touch(self) -> None:
        """Something happened: what is watched is rendered soon."""
        if self._watchers:
            self._touched.set()

    async def run(self) -> None:
        """Render until cancelled."""
        while True:
            with trio.move_on_after(TICK):
                await self._touched.wait()
            self._touched = trio.Event()
            began = trio.current_time()
            self._render_watched()
            took = trio.current_time() - began
            await trio.sleep(max(QUIET, took * SHARE))

    def parts(self, source: Source, language: str) -> Parts:
        """All parts of a source as they are now."""
        rendered = self._find(source, language)
        self._render(rendered)
        return {name: html for name, (_, html) in rendered.parts.items()}

    @contextmanager
    def watch(self, sources: Iterable[Source], language: str) -> Iterator[Watch]:
        """Have these sources rendered for as long as the block lasts."""
        watched = [self._find(source, language) for source in sources]
        self._watchers += 1
        for one in watched:
            one.watchers += 1
            self._render(one)
        try:
            yield Watch(self, watched)
        finally:
            self._watchers -= 1
            for one in watched:
                one.watchers -= 1

    async def changed(self) -> None:
        """Wait until any part is newer."""
        await self._changed.wait()

    def _find(self, source: Source, language: str) -> _Rendered:
        key = (source.name, language)
        found = self._rendered.get(key)
        if found is None:
            found = self._rendered[key] = _Rendered(source, language)
            if len(self._rendered) > _KEPT:
                self._forget()
        return found

    def _forget(self) -> None:
        for key in [key for key, one in self._rendered.items() if not one.watchers][:-1]:
            del self._rendered[key]

    def _render_watched(self) -> None:
        for one in tuple(self._rendered.values()):
            if one.watchers:
                self._render(one)

    def _render(self, one: _Rendered) -> None:
        try:
            parts = one.source.render(one.language)
        except Exception as error:  # noqa: BLE001  # a page's defect must not end the board of all pages
            if (what := error_text(error)) != one.failure:  # once, not at every tick
                one.failure = what
                _log.error("a part of the desk cannot be shown", part=one.source.name, what=what)
            return
        one.failure = ""
        before = self.version
        for name, html in parts.items():
            if (known := one.parts.get(name)) is None or known[1] != html:
                self.version = before + 1
                one.parts[name] = (self.version, html)
        for name in one.parts.keys() - parts.keys():
            del one.parts[name]
        if self.version != before:
            self._changed.set()
            self._changed = trio.Event()


@attrs.define(eq=False)
class Watch:
    """What one viewer watches."""

    board: Board
    _watched: list[_Rendered]

    def newer(self, version: int) -> Parts:
        """The parts that are newer than `version`."""
        return {name: html for one in self._watched for name, (at, html) in one.parts.items() if at > version}


_KEPT: Final = 200
"""Renderings that nobody watches, kept until so many are there."""
