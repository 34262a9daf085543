"""Where a key stands in a TOML text.

tomllib gives values without their places, and an error without a line is half an error. This scanner reads a text that
tomllib has already accepted, so it only needs to know where keys begin and where values end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

KeyPath = tuple[str | int, ...]

_WHITESPACE: Final = " \t\r\n"
_BARE_END: Final = " \t\r\n.=]#,}"


def key_lines(text: str) -> Mapping[KeyPath, int]:
    """Map every key, table and array element of a valid TOML text to its line, counted from 1.

    Keys of inline tables are included; an array of tables adds its index to the path. The text must already have been
    accepted by tomllib: on anything else the result is unspecified, but the scan ends.
    """
    return _Scanner(text).scan()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._lines: dict[KeyPath, int] = {}
        self._counted_to = 0
        self._line = 1
        self._table: KeyPath = ()
        self._arrays: dict[KeyPath, int] = {}

    def scan(self) -> Mapping[KeyPath, int]:
        while self._skip_blank():
            if self._peek() == "[":
                self._header()
            else:
                self._pair(self._table)
        return self._lines

    def _peek(self) -> str:
        return self._text[self._at] if self._at < len(self._text) else ""

    def _here(self) -> int:
        self._line += self._text.count("\n", self._counted_to, self._at)
        self._counted_to = self._at
        return self._line

    def _skip_blank(self) -> bool:
        """Skip white space and comments; False at the end of the text."""
        while self._at < len(self._text):
            character = self._text[self._at]
            if character == "#":
                end = self._text.find("\n", self._at)
                self._at = len(self._text) if end < 0 else end
            elif character in _WHITESPACE:
                self._at += 1
            else:
                return True
        return False

    def _note(self, path: KeyPath, line: int) -> None:
        self._lines.setdefault(path, line)

    def _header(self) -> None:
        line = self._here()
        is_array = self._text.startswith("[[", self._at)
        self._at += 2 if is_array else 1
        path = self._resolve(self._dotted_key())
        self._skip_blank()
        self._at += 2 if is_array else 1
        if is_array:
            index = self._arrays.get(path, -1) + 1
            self._arrays[path] = index
            self._note(path, line)
            path = (*path, index)
        self._note_with_parents((), path, line)
        self._table = path

    def _resolve(self, parts: tuple[str, ...]) -> KeyPath:
        """A header below an array of tables means its last element."""
        path: KeyPath = ()
        for number, part in enumerate(parts, start=1):
            path = (*path, part)
            if number < len(parts) and path in self._arrays:
                path = (*path, self._arrays[path])
        return path

    def _note_with_parents(self, base: KeyPath, path: KeyPath, line: int) -> None:
        for length in range(len(base) + 1, len(path) + 1):
            self._note(path[:length], line)

    def _dotted_key(self) -> tuple[str, ...]:
        parts: list[str] = []
        while self._skip_blank():
            parts.append(self._key_part())
            self._skip_blank()
            if self._peek() != ".":
                break
            self._at += 1
        return tuple(parts)

    def _key_part(self) -> str:
        if self._peek() in "\"'":
            return self._string()
        start = self._at
        while self._at < len(self._text) and self._text[self._at] not in _BARE_END:
            self._at += 1
        if self._at == start:  # not TOML after all: move on, or the scan would never end
            self._at += 1
        return self._text[start : self._at]

    def _string(self) -> str:
        """Step over a string of any of the four kinds and return its text (escapes only as far as keys need them)."""
        quote = self._text[self._at]
        fence = quote * 3 if self._text.startswith(quote * 3, self._at) else quote
        self._at += len(fence)
        start = self._at
        while self._at < len(self._text):
            if quote == '"' and self._text[self._at] == "\\":
                self._at += 2
            elif self._text.startswith(fence, self._at):
                break
            else:
                self._at += 1
        # a multi-line string may end in up to two quotes of its own before the fence
        while len(fence) == 3 and self._text.startswith(fence, self._at + 1):
            self._at += 1
        body = self._text[start : self._at]
        self._at += len(fence)
        return body.replace('\\"', '"').replace("\\\\", "\\") if quote == '"' else body

    def _pair(self, table: KeyPath) -> None:
        line = self._here()
        path = (*table, *self._dotted_key())
        self._note_with_parents(table, path, line)
        self._skip_blank()
        self._at += 1  # the equals sign
        self._skip_blank()
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        character = self._peek()
        if character and character in "\"'":
            self._string()
        elif character == "[":
            self._array(path)
        elif character == "{":
            self._inline_table(path)
        else:
            while self._at < len(self._text) and self._text[self._at] not in ",]}#\r\n":
                self._at += 1

    def _array(self, path: KeyPath) -> None:
        self._at += 1
        index = 0
        while self._skip_blank() and self._peek() != "]":
            if self._peek() == ",":
                self._at += 1
                continue
            before = self._at
            self._note((*path, index), self._here())
            self._value((*path, index))
            index += 1
            if self._at == before:
                self._at += 1
        self._at += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._at += 1
        while self._skip_blank() and self._peek() != "}":
            if self._peek() == ",":
                self._at += 1
                continue
            before = self._at
            self._pair(path)
            if self._at == before:
                self._at += 1
        self._at += 1
