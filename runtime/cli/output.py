"""What commands print: JSON for machines, text for people.

Text is made safe as a whole before it is printed, so that no command can forget it: nothing in a customer's name or a
provider's answer is obeyed by the terminal. Colour is added after that, on a terminal alone.
"""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal

import attrs
import click

from runtime.control.protocol import encode
from runtime.redaction import in_json, some_lines

Style = Literal["good", "late", "wrong", "quiet", "strong"]

_END: Final = "\ue00f"
_MARKS: Final[dict[Style, tuple[str, str]]] = {
    "good": ("\ue001", "\x1b[32m"),
    "late": ("\ue002", "\x1b[33m"),
    "wrong": ("\ue003", "\x1b[1;31m"),
    "quiet": ("\ue004", "\x1b[2m"),
    "strong": ("\ue005", "\x1b[1m"),
}
"""Each style: the mark in text that is not yet safe to colour, and what a terminal is told in its place."""
_ANY_MARK: Final = re.compile("[\ue001-\ue005\ue00f]")
_LEAST_WIDTH: Final = 20
_LEAST_COLUMN: Final = 8
_LEAST_NOTES: Final = 36
"""Columns below which the last column of a table goes below its rows."""
_INDENT: Final = "    "


@attrs.frozen
class Styled:
    """A cell of a table, and how it looks on a terminal."""

    text: str
    style: Style


def emit(data: object, as_json: bool, render: Callable[[], str] | None = None) -> None:  # the flag --json
    """Print `data` as one JSON document with `as_json`, else what `render` gives (or the JSON, if there is none)."""
    if render is not None and not as_json:
        text = render()
        if text:
            say(text)
        return
    plain = json.loads(encode({"data": data}))["data"]
    click.echo(in_json(json.dumps(plain, indent=2, ensure_ascii=False)))


def emit_line(data: object) -> None:
    """Print one JSON object on a line of its own, at once: for streams."""
    click.echo(encode({"data": data})[len(b'{"data": ') : -2].decode(), nl=True)
    sys.stdout.flush()


def say(text: str) -> None:
    """Print text for people: control characters in it as escapes, its styles as colours if stdout is a terminal."""
    click.echo(coloured(some_lines(text), colours=uses_colour()))


def styled(text: object, style: Style) -> str:
    """`text` in a style, for what `emit` and `say` print."""
    return f"{_MARKS[style][0]}{_ANY_MARK.sub('·', str(text))}{_END}"


def coloured(text: str, *, colours: bool) -> str:
    """The text with its styles as terminals are told them, or without."""
    if not colours:
        return _ANY_MARK.sub("", text)
    for mark, told in _MARKS.values():
        text = text.replace(mark, told)
    return text.replace(_END, "\x1b[0m")


def uses_colour() -> bool:
    """Whether stdout is a terminal that shows colours, and nobody asked for none (`NO_COLOR`)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def output_width() -> int | None:
    """The columns that output may fill: of `COLUMNS`, else of the terminal; None where it goes to a file or a pipe."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdecimal() and int(columns) > 0:
        return max(int(columns), _LEAST_WIDTH)
    try:
        return max(os.get_terminal_size(sys.stdout.fileno()).columns, _LEAST_WIDTH)
    except (OSError, ValueError):
        return None


def wrapped(text: str, indent: str = "") -> str:
    """The text in lines no longer than the output is wide; further lines of one begin with `indent`."""
    width = output_width()
    if width is None:
        return text
    return "\n".join(
        "\n".join(_fold(line, width, indent)) if display_width(line) > width else line for line in text.split("\n")
    )


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, notes: bool = False) -> str:
    """Columns as wide as they need to be, two spaces between; empty text when there are no rows.

    Where that is wider than the terminal, the widest columns are folded into several lines; with `notes` the last one, if it
    would be left too narrow to be read, goes below each row. Into a file or a pipe every row is one line.
    """
    cells = [[_cell(cell) for cell in row] for row in rows]
    if not cells:
        return ""
    width, below = output_width(), notes and len(headers) > 1
    shown, head = cells, list(headers)
    widths = _natural(head, shown)
    if width is not None and below and sum(widths) + 2 * (len(widths) - 1) > width:
        fixed = sum(widths[:-1]) + 2 * (len(widths) - 1)
        below = width - fixed < min(_LEAST_NOTES, widths[-1])
    else:
        below = False
    if below:
        shown, head = [row[:-1] for row in cells], head[:-1]
        widths = _natural(head, shown)
    if width is not None:
        _narrow(widths, width)
    lines = _lines([_Cell(text, _PLAIN) for text in head], widths)
    for row, whole in zip(shown, cells, strict=True):
        lines += _lines(row, widths)
        if below and width is not None and whole[-1].text:
            lines += [_mark(_INDENT + text, whole[-1].style) for text in _fold(whole[-1].text, width - len(_INDENT))]
    return "\n".join(lines)


_PLAIN: Final = "plain"


@attrs.frozen
class _Cell:
    text: str
    style: str


def _cell(cell: object) -> _Cell:
    if isinstance(cell, Styled):
        return _Cell(_one_line(cell.text), cell.style)
    return _Cell(_one_line(cell), _PLAIN)


def _mark(text: str, style: str) -> str:
    mark = next((marks[0] for name, marks in _MARKS.items() if name == style), None)
    return text if mark is None or not text else f"{mark}{text}{_END}"


def _natural(headers: Sequence[str], rows: Sequence[Sequence[_Cell]]) -> list[int]:
    return [
        max(display_width(header), *(display_width(row[number].text) for row in rows))
        for number, header in enumerate(headers)
    ]


def _narrow(widths: list[int], width: int) -> None:
    """Take from the widest columns until all fit; from the first one, which says what a row is about, last."""
    room = width - 2 * (len(widths) - 1)
    for least, columns in ((_LEAST_COLUMN, range(1, len(widths))), (1, range(len(widths)))):
        while sum(widths) > room:
            widest = max(columns, key=lambda number: widths[number], default=0)
            if widths[widest] <= least:
                break
            widths[widest] -= 1


def _lines(row: Sequence[_Cell], widths: Sequence[int]) -> list[str]:
    folded = [_fold(cell.text, width) for cell, width in zip(row, widths, strict=True)]
    lines = []
    for number in range(max(map(len, folded))):
        parts, gap = [], ""
        for cell, texts, width in zip(row, folded, widths, strict=True):
            text = texts[number] if number < len(texts) else ""
            if text:
                parts.append(gap + _mark(text, cell.style))
                gap = ""
            gap += " " * (width - display_width(text) + 2)
        lines.append("".join(parts))
    return lines


def _fold(text: str, width: int, indent: str = "") -> list[str]:
    if display_width(text) <= width:
        return [text]
    lines: list[str] = []
    # By characters first; those that take two columns are then folded by columns.
    for line in textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False) or [""]:
        rest = line
        while display_width(rest) > width:
            fits = next(n for n in range(len(rest), 0, -1) if display_width(rest[:n]) <= width or n == 1)
            lines.append(rest[:fits])
            rest = rest[fits:]
        lines.append(rest)
    return lines


def display_width(text: str) -> int:
    """Columns of a terminal that the text takes: wide characters two, combining ones none."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # hardly any text needs it

    return cell_len(text)


def _one_line(cell: object) -> str:
    text = "" if cell is None else str(cell)
    return "".join(character if character.isprintable() else "·" for character in text)
