"""Types and values in words, for errors."""

from __future__ import annotations

import collections.abc
import enum
import types
import typing
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import attrs

from runtime.config.secret import Secret

_SHOWN = 60

_WORDS: dict[object, str] = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a string",
    Path: "a path",
    Secret: "a secret",
    type(None): "nothing",
    list: "a list",
    dict: "a table",
}


_PLURALS: dict[object, str] = {
    int: "integers",
    float: "numbers",
    bool: "true or false",
    str: "strings",
    Path: "paths",
    Secret: "secrets",
    object: "values",
    Any: "values",
}


def describe_type(wanted: Any) -> str:
    """What a value of this type looks like in the file: `an integer`, `one of "a", "b"`, `a list of a string`."""
    if wanted in _WORDS:
        return _WORDS[wanted]
    origin = get_origin(wanted)
    if origin is Literal:
        return one_of(get_args(wanted))
    if is_union(wanted):
        return " or ".join(describe_type(part) for part in get_args(wanted) if part is not type(None))
    if isinstance(wanted, type) and issubclass(wanted, enum.Enum):
        return one_of(enum_words(wanted))
    if origin in (list, tuple, collections.abc.Sequence, set, frozenset):
        parts = [part for part in get_args(wanted) if part is not Ellipsis]
        return f"a list of {_plural(parts[0])}" if parts else "a list"
    if origin in (dict, collections.abc.Mapping):
        return f"a table of {_plural(get_args(wanted)[1])}"
    if isinstance(wanted, type) and attrs.has(wanted):
        return f"a table with {', '.join(field.alias for field in attrs.fields(wanted) if field.init)}"
    return getattr(wanted, "__name__", str(wanted))


def _plural(wanted: Any) -> str:
    return _PLURALS.get(wanted) or f"values, each {describe_type(wanted)}"


def describe_value(value: object) -> str:
    """The value as it stands in the file, with its kind: `a string ("abc")`. Long ones are cut."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        shown = value if len(value) <= _SHOWN else value[:_SHOWN] + "…"
        return f'a string ("{shown}")'
    if isinstance(value, int):
        return f"an integer ({value})"
    if isinstance(value, float):
        return f"a number ({value})"
    if isinstance(value, collections.abc.Mapping):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    return f"a {type(value).__name__} ({value})"


def one_of(choices: typing.Iterable[object]) -> str:
    """`one of "a", "b"`."""
    return "one of " + ", ".join(f'"{choice}"' if isinstance(choice, str) else str(choice) for choice in choices)


def enum_words(cls: type[enum.Enum]) -> list[str]:
    """How an enum's members are written in the file: by value where that is a string, else by name in lower case."""
    return [member.value if isinstance(member.value, str) else member.name.lower() for member in cls]


def is_union(wanted: Any) -> bool:
    """Whether this is `A | B` or `Optional[A]`."""
    return get_origin(wanted) in (typing.Union, types.UnionType)
