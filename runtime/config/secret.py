"""A value that must never be printed."""

from __future__ import annotations

from typing import NoReturn, final


@final
class Secret:
    """A password, token or key out of the configuration.

    `repr`, `str` and formatting show `***`; only `reveal()` gives the text, so that a search for it finds every place
    where a secret leaves its wrapping. An empty secret is false, equality compares the texts, and pickling is refused.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def reveal(self) -> str:
        """The secret itself. Never pass it to a log, a metric or an error."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __repr__(self) -> str:
        return "***" if self._text else "Secret()"

    def __str__(self) -> str:
        return repr(self)

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __reduce__(self) -> NoReturn:
        msg = "a Secret is not pickled: it would leave the process readable"
        raise TypeError(msg)
