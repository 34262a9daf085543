"""Text of others, made harmless for a terminal and for whoever reads line by line."""

from __future__ import annotations

# A newline or an escape sequence in somebody's name must not forge a line or paint the terminal; nor may a mark that makes
# the terminal show the rest from right to left.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {
    ord("\n"): "\\n",
    ord("\t"): " ",
    ord("\r"): "\\r",
    **{code: f"\\u{code:04x}" for code in (0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))},
}
_WITHIN_LINES = {code: text for code, text in _CONTROLS.items() if code != ord("\n")}
_IN_JSON = {code: f"\\u{code:04x}" for code in _CONTROLS if code >= 127}
"""JSON itself escapes those below."""


def one_line(text: str) -> str:
    """`text` on one line, with nothing in it that a terminal would obey: control characters are shown as escapes."""
    # Translating costs more than all the rest of a log line, and hardly any line needs it.
    return text if text.isprintable() else text.translate(_CONTROLS)


def some_lines(text: str) -> str:
    """As `one_line`, but line breaks stay."""
    return text if text.isprintable() else text.translate(_WITHIN_LINES)


def in_json(text: str) -> str:
    """A JSON document, of which no terminal obeys a character: it means the same."""
    return text if text.isprintable() else text.translate(_IN_JSON)
