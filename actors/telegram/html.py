"""Text with Telegram's markup, in which nothing that a person wrote can become markup.

Telegram reads HTML with a few tags (https://core.telegram.org/bots/api#html-style). A plain `str` is escaped wherever it meets
`Html`; only `Html` is taken as it is.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from string import Formatter

import attrs

_FSI, _PDI = "\u2068", "\u2069"
_CONTROLS = re.compile("[\u0000-\u0008\u000b-\u001f\u007f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that turn the direction of what follows, that are none, or half of one."""
TAGS = frozenset({"b", "i", "u", "s", "code", "pre", "a", "blockquote"})
"""The tags that texts of ours may have."""


@attrs.frozen(repr=False)
class Html:
    """Text in Telegram's HTML. `+` joins; a `str` at either side is escaped."""

    source: str = ""

    def __add__(self, other: Html | str) -> Html:
        return Html(self.source + markup(other).source)

    def __radd__(self, other: str) -> Html:
        return Html(markup(other).source + self.source)

    def __str__(self) -> str:
        return self.source

    def __bool__(self) -> bool:
        return bool(self.source)

    @property
    def plain(self) -> str:
        """What is read when the markup is taken away."""
        reader = _Reader()
        reader.feed(self.source)
        reader.close()
        return "".join(reader.parts)

    @property
    def length(self) -> int:
        """How long Telegram counts it: in UTF-16, without the markup."""
        return utf16_length(self.plain)


def markup(text: Html | str) -> Html:
    """The text as it is, or escaped if it is plain."""
    return text if isinstance(text, Html) else Html(html.escape(text, quote=True))


def code(text: str) -> Html:
    """Text that is shown in a fixed width, and copied at a tap."""
    return Html(f"<code>{markup(text).source}</code>")


def joined(parts: list[Html | str], separator: str = "\n") -> Html:
    """The parts with the separator between them."""
    return Html(html.escape(separator).join(markup(part).source for part in parts))


def isolated(text: str) -> str:
    """What somebody else wrote, in a shell that its direction does not leave; controls of direction in it are taken out."""
    return f"{_FSI}{_CONTROLS.sub('', text)}{_PDI}"


def utf16_length(text: str) -> int:
    """Length as Telegram counts: characters beyond the basic plane are two."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def fill(template: str, values: Mapping[str, Html | str]) -> Html:
    """A template of ours, in HTML, with its `{placeholders}` filled: plain values are escaped.

    Raises KeyError for a placeholder without a value.
    """
    parts: list[str] = []
    for literal, name, _, _ in Formatter().parse(template):
        parts.append(literal)
        if name is not None:
            parts.append(markup(values[name]).source)
    return Html("".join(parts))


def placeholders(template: str) -> frozenset[str]:
    """The names of a template's placeholders. Raises ValueError for a template that cannot be read."""
    found = set()
    for _, name, form, conversion in Formatter().parse(template):
        if name is not None:
            if not name.isidentifier() or form or conversion:
                raise ValueError(f"{{{name}}} is no placeholder: it is a word in braces")
            found.add(name)
    return frozenset(found)


def markup_error(template: str) -> str:
    """What is wrong with a template's tags, in words; empty if nothing is."""
    checker = _Checker()
    checker.feed(template)
    checker.close()
    if not checker.error and checker.open:
        return f"<{checker.open[-1]}> is not closed"
    return checker.error


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


class _Checker(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.error = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in TAGS:
            self.error = self.error or f"<{tag}> is no tag that texts may have; they are {', '.join(sorted(TAGS))}"
        elif [name for name, _ in attrs] != (["href"] if tag == "a" else []):
            self.error = self.error or f"<{tag}> has attributes that texts may not have"
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.error = self.error or f"</{tag}> closes what is not open"
