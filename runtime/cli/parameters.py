"""Kinds of parameters that commands share. What they let through is safe to send on; the rest is a usage error (64)."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import click


class Text(click.ParamType[str]):
    """Words of an operator: at most `longest` characters, nothing that is no text (NUL, broken UTF-8), and, unless said
    otherwise, not empty."""

    name = "text"

    def __init__(self, longest: int = 200, *, may_be_empty: bool = False) -> None:
        self.longest = longest
        self.may_be_empty = may_be_empty

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if not text.strip() and not self.may_be_empty:
            self.fail("it is empty", param, ctx)
        if "\0" in text or not _is_unicode(text):
            self.fail("it holds characters that are no text", param, ctx)
        if len(text) > self.longest:
            self.fail(f"it has {len(text)} characters; at most {self.longest} are kept", param, ctx)
        return text


class Word(Text):
    """A text of a certain form; `form` describes it in an error."""

    name = "word"

    def __init__(self, pattern: re.Pattern[str], form: str) -> None:
        super().__init__()
        self._pattern = pattern
        self._form = form

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = super().convert(value, param, ctx)
        if self._pattern.fullmatch(text) is None:
            self.fail(f"{text!r} is not {self._form}", param, ctx)
        return text


class FilePath(click.Path):
    """A path that can be a file's: not empty, and no directory. Given to the command as a `pathlib.Path`."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, dir_okay=False, readable=False)

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        if not os.fspath(value):
            self.fail("it is empty", param, ctx)
        return super().convert(value, param, ctx)


class Seconds(click.FloatRange):
    """A finite time from `least` to `most` seconds; unlike click's own range it lets no `nan` through."""

    name = "seconds"

    def __init__(self, least: float, most: float = 86_400.0) -> None:
        super().__init__(least, most)

    def convert(self, value: float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value} is no number of seconds", param, ctx)
        return seconds


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
