"""What the desk is made of: pages, and what can be done from them. Rooms add theirs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

import attrs
from starlette.requests import Request

from runtime.config.operators import Role
from runtime.desk.board import Source
from runtime.errors import AtlasError
from runtime.operators.identity import Identity
from runtime.wording import duration

if TYPE_CHECKING:
    from runtime.desk.desk import Desk


@attrs.frozen
class View:
    """One request for a page: who asks, in which language, for what."""

    desk: Desk
    who: Identity
    language: str
    request: Request

    def t(self, text: str) -> str:
        """The text in the viewer's language."""
        return self.desk.translate(text, self.language)

    def may(self, least: Role) -> bool:
        """Whether the viewer has at least this role."""
        return self.who.role is not None and self.who.role.includes(least)

    @property
    def query(self) -> Mapping[str, str]:
        """The parameters of the page's address."""
        return self.request.query_params


class NotFound(AtlasError):
    """There is no such thing to show; the text says what was looked for."""


@attrs.frozen
class Download:
    """A file that a browser keeps: its name, its media type such as `text/csv`, and what is in it."""

    name: str
    kind: str
    content: str


@attrs.frozen
class Page:
    """A page: `path` may have parameters, as Starlette writes them; `title` is English and is translated.

    `context(view)` gives what its template is rendered with, and may wait; it raises NotFound. `sources(view)` are the
    sources of the board that the page shows; it must not wait, and is asked again when the page's stream begins.
    """

    path: str
    title: str
    template: str
    least: Role = Role.VIEWER
    context: Callable[[View], Awaitable[Mapping[str, object]]] | None = None
    sources: Callable[[View], Sequence[Source]] | None = None
    is_in_menu: bool = True
    download: Callable[[View], Awaitable[Download]] | None = None
    """What is answered instead of a page; it may wait, and raises as `context` does."""


@attrs.frozen
class Field:
    """Something to fill in before an action."""

    name: str
    label: str
    kind: Literal["text", "number", "hidden"] = "text"
    value: str = ""
    hint: str = ""


@attrs.frozen
class Question:
    """What is asked before an action: what will happen, in a sentence, and what is to be filled in."""

    text: str
    fields: Sequence[Field] = ()


@attrs.frozen
class Action:
    """Something that can be done from a page. It asks first: `ask(view, given)` says what will happen, `act(view, given, why)`
    does it and returns what was done, in a sentence.

    `given` are the fields of the request. Both raise AtlasError or ControlError with what is wrong. The role is demanded,
    and who did what and why is told as an event, by the desk.
    """

    name: str
    label: str
    least: Role
    ask: Callable[[View, Mapping[str, str]], Awaitable[Question]]
    act: Callable[[View, Mapping[str, str], str], Awaitable[str]]
    is_dangerous: bool = False
    keeps_reason: bool = False
    """`act` writes to the audit trail itself, in the transaction that does it."""


@attrs.frozen
class Button:
    """A link to an action's question."""

    action: str
    label: str
    least: Role
    given: Mapping[str, str] = attrs.field(factory=dict)

    @property
    def href(self) -> str:
        """Where the question is."""
        pairs = "&".join(f"{quote(name)}={quote(value)}" for name, value in self.given.items())
        return f"/ask/{self.action}?{pairs}"


@attrs.frozen
class Need:
    """Something that needs a human: what it is about, what is wrong, since when, whom it hurts, and what can be done."""

    subject: str
    text: str
    is_urgent: bool = True
    """False: it can wait for the morning."""
    since: float | None = None
    """Seconds since the epoch."""
    hurt: str = ""
    href: str = ""
    buttons: Sequence[Button] = ()


@attrs.frozen
class Figure:
    """A figure with its course. `read()` gives it now; a `rate` is read from a counter and shown as growth a minute."""

    name: str
    title: str
    read: Callable[[], float | None]
    is_rate: bool = False
    show: Callable[[float], str] = attrs.field(default=lambda figure: f"{figure:.4g}")


@attrs.frozen
class Row:
    """A line of a card of facts."""

    label: str
    value: str
    is_wrong: bool = False
    href: str = ""


@attrs.frozen
class Addition:
    """What a room adds to the desk. `needs()` and `facts()` are asked at each rendering, and must not wait."""

    pages: Sequence[Page] = ()
    actions: Sequence[Action] = ()
    needs: Callable[[], Sequence[Need]] = lambda: ()
    facts: Callable[[], Sequence[Row]] = lambda: ()
    figures: Sequence[Figure] = ()
    templates: str = ""
    """The package with its `templates` folder; they are found below that package's name."""
    words: Mapping[str, str] = attrs.field(factory=dict)
    """Its texts in Russian, by the English ones."""


def seconds(value: object) -> str:
    """A duration in words; nothing for what is none."""
    return duration(float(value)) if isinstance(value, int | float) else ""
