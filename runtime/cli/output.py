"""What commands print: JSON for machines, tables for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence

import click

from runtime.control.protocol import encode


def emit(data: object, as_json: bool, render: Callable[[], str] | None = None) -> None:  # the flag --json
    """Print `data` as one JSON document with `as_json`, else what `render` gives (or the JSON, if there is none)."""
    if render is not None and not as_json:
        text = render()
        if text:
            click.echo(text)
        return
    plain = json.loads(encode({"data": data}))["data"]
    click.echo(json.dumps(plain, indent=2, ensure_ascii=False))


def emit_line(data: object) -> None:
    """Print one JSON object on a line of its own, at once: for streams."""
    click.echo(encode({"data": data})[len(b'{"data": ') : -2].decode(), nl=True)
    sys.stdout.flush()


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns as wide as they need to be, two spaces between; empty text when there are no rows."""
    cells = [[_one_line(cell) for cell in row] for row in rows]
    if not cells:
        return ""
    widths = [max(len(row[column]) for row in [list(headers), *cells]) for column in range(len(headers))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [headers, *cells]]
    return "\n".join(line.rstrip() for line in lines)


def _one_line(cell: object) -> str:
    text = "" if cell is None else str(cell)
    return "".join(character if character.isprintable() else "·" for character in text)
