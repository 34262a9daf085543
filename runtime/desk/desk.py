"""The desk: pages about a running system, for its operators, on a listener that somebody else opens."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib import resources
from itertools import count
from typing import Any, Final
from weakref import WeakKeyDictionary

import jinja2
import trio
from markupsafe import Markup

from runtime.control.command import OperableSystem
from runtime.desk import charts
from runtime.desk.bands import Bands
from runtime.desk.board import Board, Parts, Source
from runtime.desk.history import History
from runtime.desk.page import Action, Addition, Button, Need, Page, Row, View, seconds
from runtime.desk.russian import WORDS
from runtime.desk.session import Sessions, Tries
from runtime.operators.identity import Operators
from runtime.redaction import one_line, redact

LANGUAGES: Final = ("en", "ru")
STREAMS: Final = 48
"""Pages that are live at a time."""
STREAMS_OF_ONE: Final = 8
"""Of one operator."""
_SAID: Final = 100

_histories: WeakKeyDictionary[object, tuple[History, Bands]] = WeakKeyDictionary()


class Desk:
    """Everything that the desk's pages share. `additions` make what rooms add.

    `operators()` gives those who are declared now; `session_key` is the secret of its cookies, empty for one that ends with
    the process; `is_https` says that browsers reach it over TLS.
    """

    def __init__(
        self,
        system: OperableSystem,
        operators: Callable[[], Operators],
        *,
        additions: Sequence[Callable[[Desk], Addition]] = (),
        session_key: bytes = b"",
        is_https: bool = False,
    ) -> None:
        # These build pages, and so know the desk.
        from runtime.desk import actor_pages, event_pages, overview

        self.system = system
        self.board = Board()
        self.operators = operators
        self.sessions = Sessions(operators, session_key)
        self.tries = Tries()
        self.is_https = is_https
        self.closing = trio.Event()
        self.streams: Counter[str] = Counter()
        first, last = [overview.addition(self), actor_pages.addition(self)], event_pages.addition(self)
        self.additions: Sequence[Addition] = [*first, *(add(self) for add in additions), last]
        self.pages: list[Page] = [page for one in self.additions for page in one.pages]
        self.actions: dict[str, Action] = {action.name: action for one in self.additions for action in one.actions}
        self._russian = {**WORDS}
        for one in self.additions:
            self._russian.update(one.words)
        self._env = self._environment()
        self._modules: dict[tuple[str, str], Any] = {}
        self.history, self.bands = _histories.setdefault(system, (History(), Bands()))
        self.history.look = lambda: self.bands.look(actor_pages.words_of(self))
        self.history.follow([figure for one in self.additions for figure in one.figures])
        self._said: dict[str, str] = {}
        self._numbers = count(1)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the board and the courses of figures up to date for as long as the block lasts."""
        unsubscribe = self.system.services.events.subscribe(lambda _event: self.board.touch())
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.board.run)
                nursery.start_soon(self.history.run)
                yield
                self.closing.set()
                nursery.cancel_scope.cancel(reason="the desk closes")
        finally:
            unsubscribe()

    # --- what pages are made with

    def translate(self, text: str, language: str) -> str:
        """The text in a language; itself where there is no other."""
        return self._russian.get(text, text) if language == "ru" else text

    def render(self, template: str, language: str, **context: object) -> Markup:
        """A template with what all have: `t`, and the charts."""
        made = self._env.get_template(template)
        return Markup(  # noqa: S704  # templates escape what they are given
            made.render(t=lambda text: self.translate(text, language), language=language, **context)
        )

    def macros(self, template: str, language: str) -> Any:
        """The macros of a template, for what is rendered often."""
        key = (template, language)
        if key not in self._modules:
            self._modules[key] = self._env.get_template(template).make_module(
                {"t": lambda text: self.translate(text, language), "language": language}
            )
        return self._modules[key]

    def module(self, template: str, language: str) -> Callable[..., Markup]:
        """The macro `part` of a template, for what is rendered once for each of many."""
        part: Callable[..., Markup] = self.macros(template, language).part
        return part

    def parts_of(self, source: Source, language: str) -> Parts:
        """What a source shows now, as a page includes it."""
        found = self.board.parts(source, language)
        return {name: Markup(html) for name, html in found.items()}  # noqa: S704  # rendered by templates

    def needs(self) -> list[Need]:
        """Everything that needs a human, the urgent first, and the longest of these first."""
        now = time.time()
        found = [need for one in self.additions for need in one.needs()]
        return sorted(found, key=lambda need: (not need.is_urgent, need.since or now))

    def facts(self) -> list[Row]:
        """What rooms say of their parts."""
        return [row for one in self.additions for row in one.facts()]

    def say(self, text: str) -> str:
        """Keep a sentence for the next page; returns its number."""
        number = f"{self.board.epoch}-{next(self._numbers)}"
        self._said[number] = one_line(redact(text))
        if len(self._said) > _SAID:
            del self._said[next(iter(self._said))]
        return number

    def said(self, number: str) -> str:
        """The sentence of this number, once."""
        return self._said.pop(number, "")

    def _environment(self) -> jinja2.Environment:
        packages = {one.templates: jinja2.PackageLoader(one.templates) for one in self.additions if one.templates}
        loader = jinja2.ChoiceLoader(
            [jinja2.PackageLoader("runtime.desk"), jinja2.PrefixLoader({**packages}, delimiter=":")]
        )
        env = jinja2.Environment(
            loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        env.globals.update(
            line=charts.line,
            histogram=charts.histogram,
            meter=charts.meter,
            seconds=seconds,
            Button=Button,
            clock=_clock,
            asset=asset,
        )
        return env


def _clock(moment: float) -> str:
    """The time of day, UTC."""
    return time.strftime("%H:%M:%S", time.gmtime(moment))


STATIC: Final = {"desk.css": "text/css", "desk.js": "text/javascript", "desk.svg": "image/svg+xml"}
_content: dict[str, bytes] = {}


def content(name: str) -> bytes:
    """A file that pages load."""
    if name not in _content:
        _content[name] = resources.files("runtime.desk").joinpath("static", name).read_bytes()
    return _content[name]


def asset(name: str) -> str:
    """The address of a file that pages load; another one when it has changed, so that it may be kept for ever."""
    return f"/static/{hashlib.sha256(content(name)).hexdigest()[:12]}/{name}"


def page_context(desk: Desk, view: View, page: Page | None, extra: Mapping[str, Any]) -> dict[str, Any]:
    """What every page's frame needs."""
    return {"view": view, "desk": desk, "page": page, "now": time.time(), **extra}
