"""What a button carries: `1<screen>.<argument>…[~<nonce>]`, at most 64 bytes.

The digit is the scheme, so that data of another shape is recognised for as long as messages live. Nothing is signed: a client may
send any data for any message, and what it asks for is asked in its own name. Numbers are in base 36.
"""

from __future__ import annotations

import re
import secrets
from typing import Final

import attrs

from actors.telegram.methods import LONGEST_DATA

SCHEME: Final = "1"
_DATA = re.compile(r"1([a-z]{2})((?:\.[A-Za-z0-9_-]*)*)(?:~([A-Za-z0-9_-]{8}))?")
_ARGUMENT = re.compile(r"[A-Za-z0-9_-]*")
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_MOST: Final = 12
"""Digits of a number: as many as PostgreSQL's bigint has, and none that overflow it."""


@attrs.frozen
class Press:
    """What a button asks for."""

    screen: str
    args: tuple[str, ...] = ()
    nonce: str = ""
    """Names one intention: pressed twice, it is carried out once."""

    @property
    def data(self) -> str:
        """As a button carries it. Raises ValueError for an argument that it cannot carry, or too many of them."""
        bad = [argument for argument in self.args if not _ARGUMENT.fullmatch(argument)]
        if bad:
            raise ValueError(f"a button cannot carry {bad[0]!r}")
        data = ".".join((f"{SCHEME}{self.screen}", *self.args)) + (f"~{self.nonce}" if self.nonce else "")
        if len(data) > LONGEST_DATA:
            raise ValueError(f"the data of a button is {len(data)} bytes, and {LONGEST_DATA} are allowed")
        return data

    def text(self, position: int) -> str:
        """An argument, empty if there is none."""
        return self.args[position] if position < len(self.args) else ""

    def number(self, position: int) -> int | None:
        """An argument that is a number; None if it is none."""
        return read_number(self.text(position))


def read_press(data: str) -> Press | None:
    """What a button's data says; None for data that is not of this scheme."""
    found = _DATA.fullmatch(data) if len(data) <= LONGEST_DATA else None
    if found is None:
        return None
    return Press(found[1], tuple(found[2].split(".")[1:]), found[3] or "")


def base36(number: int) -> str:
    """A number of at least 0 in base 36."""
    if number < 0:
        raise ValueError(f"a button carries numbers of at least 0, not {number}")
    digits = ""
    while number or not digits:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits


def read_number(text: str) -> int | None:
    """A number in base 36; None if it is none, or larger than any of ours."""
    if not 0 < len(text) <= _MOST or any(digit not in _DIGITS for digit in text):
        return None
    return int(text, 36)


def new_nonce() -> str:
    """48 bits of chance, in 8 characters."""
    return secrets.token_urlsafe(6)
