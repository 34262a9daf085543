"""From a table of the file to an attrs class, reporting everything that is wrong with it at once."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast

import attrs
from attrs import validators

from runtime.config.describe import describe_type
from runtime.config.errors import Invalid
from runtime.config.key_lines import KeyPath
from runtime.wording import did_you_mean

T = TypeVar("T")

Reader = typing.Callable[[object, Any], Any]
"""Reads one value as a type or raises Invalid: `convert`, handed in because it needs this module for nested tables."""


def read_table(table: Mapping[str, Any], cls: type[T], read: Reader) -> T:
    """Read a table as an attrs class; raises Invalid with all unknown and missing keys, wrong types and bad values."""
    arguments, found = read_arguments(table, cls, read, injected={})
    if found:
        raise Invalid(found + bad_values(cls, arguments))
    return build(cls, arguments, table)


def read_arguments(
    table: Mapping[str, Any], cls: type, read: Reader, *, injected: Mapping[str, object]
) -> tuple[dict[str, object], list[tuple[KeyPath, str]]]:
    """The constructor's arguments out of a table, with all errors beside them instead of raised.

    `injected` are arguments that come from elsewhere and may not stand in the table.
    """
    wanted = field_types(cls)
    known = [alias for alias in wanted if alias not in injected]
    found: list[tuple[KeyPath, str]] = [((key,), unknown_key(key, known)) for key in table if key not in known]
    arguments: dict[str, object] = dict(injected)
    for field in attrs.fields(cast("Any", cls)):
        alias = field.alias
        if not field.init or alias in injected:
            continue
        if alias in table:
            try:
                arguments[alias] = read(table[alias], wanted[alias])
            except Invalid as error:
                found.extend(((alias, *path), message) for path, message in error.found)
        elif field.default is attrs.NOTHING:
            found.append(((), f'missing key "{alias}": {describe_type(wanted[alias])}'))
    return arguments, found


def build(cls: type[T], arguments: Mapping[str, object], given: Iterable[str]) -> T:
    """Construct an attrs class, then run its validators one by one, so that one bad value does not hide the next.

    Raises Invalid; `given` are the keys that stand in the table and can be blamed (a bad default blames the table).
    """
    present = set(given)
    found: list[tuple[KeyPath, str]] = []
    with validators.disabled():
        try:
            instance = cls(**arguments)
        except Exception as error:
            # whatever a class refuses, however it says so, is an error of the file and never a traceback
            raise Invalid([((), str(error) or type(error).__name__)]) from error
    for field in attrs.fields(cast("Any", cls)):
        if not field.init:
            continue
        message = _refusal(field, instance, getattr(instance, field.name))
        if message is not None:
            found.append(((field.alias,), message) if field.alias in present else ((), f"{field.alias} {message}"))
    if found:
        raise Invalid(found)
    return instance


def bad_values(cls: type, arguments: Mapping[str, object]) -> list[tuple[KeyPath, str]]:
    """What the validators say to those arguments that could be read, when others could not and there is no instance."""
    found: list[tuple[KeyPath, str]] = []
    for field in attrs.fields(cast("Any", cls)):
        if field.init and field.alias in arguments:
            try:
                message = _refusal(field, None, arguments[field.alias])
            except AttributeError:  # a validator that compares fields; it has its say when the others are right
                continue
            if message is not None:
                found.append(((field.alias,), message))
    return found


def _refusal(field: attrs.Attribute[Any], instance: object, value: object) -> str | None:
    if field.validator is None:
        return None
    try:
        field.validator(instance, field, value)
    except (ValueError, TypeError) as error:
        return _plain(str(error.args[0] if error.args else error), field.name, value)
    return None


def _plain(message: str, name: str, value: object) -> str:
    """attrs says `'size' must be >= 1: 0`; the key stands in front already and the value belongs at the end."""
    match = re.fullmatch(rf"'{re.escape(name)}' (must .*?):? \(?(got )?{re.escape(repr(value))}\)?", message, re.DOTALL)
    if match is None:
        return message.removeprefix(f"'{name}' ")
    return f"{match[1]}, got {value}"


def field_types(cls: type) -> dict[str, Any]:
    """The types of the init fields of an attrs class by alias, with postponed annotations evaluated where they stand.

    Raises Invalid for an annotation that cannot be evaluated.
    """
    types_found: dict[str, Any] = {}
    wrong: list[tuple[KeyPath, str]] = []
    for field in attrs.fields(cast("Any", cls)):
        if not field.init:
            continue
        wanted: Any = field.type
        if isinstance(wanted, str):
            try:
                wanted = _evaluate(cls, field.name, wanted)
            except (NameError, AttributeError, TypeError, SyntaxError) as error:
                wrong.append(((), f"the type of {cls.__name__}.{field.name} cannot be read: {error}"))
                continue
        types_found[field.alias] = wanted
    if wrong:
        raise Invalid(wrong)
    return types_found


def _evaluate(cls: type, name: str, annotation: str) -> Any:
    owner = next((base for base in cls.__mro__ if name in inspect.get_annotations(base)), cls)
    # one field at a time: get_type_hints of the class would fail on fields that are none of our business
    holder = type("holder", (), {"__annotations__": {name: annotation}, "__module__": owner.__module__})
    return typing.get_type_hints(holder, localns=dict(vars(owner)))[name]


def unknown_key(key: str, known: Iterable[str]) -> str:
    """The message for a key that nothing reads."""
    return f"unknown key{did_you_mean(key, known)}"
