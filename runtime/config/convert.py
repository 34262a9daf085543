"""From TOML values to typed ones, strictly, collecting every error with the path of its key.

cattrs dispatches by type; the hooks here replace its lenient ones (it would read 3.7 as the integer 3 and the string
"no" as true). A value that came from the environment is text and is read as the wanted type says.
"""

from __future__ import annotations

import collections.abc
import enum
import functools
import math
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, cast, get_args, get_origin

import attrs
import cattrs

from runtime.config.describe import describe_type, describe_value, enum_words, is_union
from runtime.config.errors import Invalid
from runtime.config.key_lines import KeyPath
from runtime.config.secret import Secret
from runtime.config.table import read_table
from runtime.wording import nearest

T = TypeVar("T")

_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})
_SEQUENCES: Final = (list, tuple, set, frozenset, collections.abc.Sequence)
_MAPPINGS: Final = (dict, collections.abc.Mapping)


class EnvText(str):
    """A value out of the environment: text whose meaning the wanted type decides."""

    __slots__ = ()


def convert(value: object, wanted: type[T]) -> T:
    """Read `value` as `wanted`; raises Invalid with every error in it. Validators of attrs fields are applied."""
    try:
        return _converter().structure(value, wanted)
    except Invalid:
        raise
    except (ValueError, TypeError, cattrs.errors.StructureHandlerNotFoundError) as error:
        raise Invalid([((), f"expected {describe_type(wanted)}: {error}")]) from error


@functools.cache
def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=False)

    def hook(wanted: Callable[[Any], bool], read: Callable[[Any, Any], Any]) -> None:
        converter.register_structure_hook_func(wanted, read)

    # cattrs asks the hooks in reverse order of registration
    hook(lambda wanted: wanted in (object, Any), lambda value, _: value)
    hook(_is_attrs, _read_attrs)
    hook(lambda wanted: get_origin(wanted) in _SEQUENCES or wanted in _SEQUENCES, _read_sequence)
    hook(lambda wanted: get_origin(wanted) in _MAPPINGS or wanted in _MAPPINGS, _read_mapping)
    hook(lambda wanted: isinstance(wanted, type) and issubclass(wanted, enum.Enum), _read_enum)
    hook(lambda wanted: get_origin(wanted) is Literal, _read_literal)
    hook(is_union, _read_union)
    for plain, read in (
        (int, _read_int),
        (float, _read_float),
        (bool, _read_bool),
        (str, _read_str),
        (Path, _read_path),
        (Secret, _read_secret),
    ):
        converter.register_structure_hook(plain, functools.partial(_read_plain, plain, read))
    return converter


def _read_plain(plain: type, read: Callable[[Any, Any], Any], value: Any, wanted: Any) -> Any:
    """cattrs finds the hook of `str` also for its subclasses, among them string enums."""
    if wanted is plain:
        return read(value, plain)
    return _read_enum(value, wanted) if issubclass(wanted, enum.Enum) else wanted(read(value, plain))


def _is_attrs(wanted: Any) -> bool:
    return isinstance(wanted, type) and attrs.has(wanted)


def _refuse(value: object, wanted: Any) -> Any:
    raise Invalid([((), f"expected {describe_type(wanted)}, got {describe_value(value)}")])


def _read_int(value: Any, wanted: Any) -> int:
    if isinstance(value, EnvText):
        try:
            return int(value.replace("_", ""))
        except ValueError:
            return cast("int", _refuse(value, wanted))
    return value if isinstance(value, int) and not isinstance(value, bool) else cast("int", _refuse(value, wanted))


def _read_float(value: Any, wanted: Any) -> float:
    if isinstance(value, EnvText):
        try:
            value = float(value)
        except ValueError:
            return cast("float", _refuse(value, wanted))
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return cast("float", _refuse(value, wanted))
    return float(value)


def _read_bool(value: Any, wanted: Any) -> bool:
    if isinstance(value, EnvText) and value.lower() in _TRUE | _FALSE:
        return value.lower() in _TRUE
    return value if isinstance(value, bool) else cast("bool", _refuse(value, wanted))


def _read_str(value: Any, wanted: Any) -> str:
    return str(value) if isinstance(value, str) else cast("str", _refuse(value, wanted))


def _read_path(value: Any, wanted: Any) -> Path:
    return Path(value).expanduser() if isinstance(value, str) and value else cast("Path", _refuse(value, wanted))


def _read_secret(value: Any, wanted: Any) -> Any:
    return value if isinstance(value, Secret) else _refuse(value, wanted)


def _read_literal(value: Any, wanted: Any) -> Any:
    choices = get_args(wanted)
    for choice in choices:
        if type(value) is type(choice) and value == choice:
            return choice
        if isinstance(value, EnvText) and value == str(choice):
            return choice
    return _refuse_choice(value, wanted, [choice for choice in choices if isinstance(choice, str)])


def _read_enum(value: Any, wanted: Any) -> Any:
    if isinstance(value, str):
        for word, member in zip(enum_words(wanted), wanted, strict=True):
            if value == word:
                return member
    return _refuse_choice(value, wanted, enum_words(wanted))


def _refuse_choice(value: object, wanted: Any, words: list[str]) -> Any:
    meant = nearest(value, words) if isinstance(value, str) else None
    hint = f'; did you mean "{meant}"?' if meant else ""
    raise Invalid([((), f"expected {describe_type(wanted)}, got {describe_value(value)}{hint}")])


def _read_union(value: Any, wanted: Any) -> Any:
    """The first alternative that fits; with a single one besides None, its own errors are the best ones."""
    parts = [part for part in get_args(wanted) if part is not type(None)]
    if value is None and len(parts) < len(get_args(wanted)):
        return None
    errors: list[Invalid] = []
    for part in parts:
        try:
            return convert(value, part)
        except Invalid as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    return _refuse(value, wanted)


def _from_environment(value: Any) -> Any:
    """A list or table in the environment is written as in the file; a list may leave its brackets and quotes out."""
    if not isinstance(value, EnvText):
        return value
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        if value.lstrip()[:1] in ("[", "{"):
            return value
        return [EnvText(part.strip()) for part in value.split(",") if part.strip()]


def _read_sequence(value: Any, wanted: Any) -> Any:
    items = _from_environment(value)
    if not isinstance(items, list | tuple):
        return _refuse(value, wanted)
    origin = get_origin(wanted) or wanted
    arguments = get_args(wanted)
    if origin is tuple and arguments and Ellipsis not in arguments:
        if len(items) != len(arguments):
            raise Invalid([((), f"expected a list of {len(arguments)} values, got {len(items)}")])
        wanted_items: list[Any] = list(arguments)
    else:
        wanted_items = [arguments[0] if arguments else Any] * len(items)
    found: list[tuple[KeyPath, str]] = []
    read: list[Any] = []
    for index, (item, wanted_item) in enumerate(zip(items, wanted_items, strict=True)):
        try:
            read.append(convert(item, wanted_item))
        except Invalid as error:
            found.extend(((index, *path), message) for path, message in error.found)
    if found:
        raise Invalid(found)
    return read if origin is list else origin(read) if origin in (set, frozenset) else tuple(read)


def _read_mapping(value: Any, wanted: Any) -> Any:
    table = _from_environment(value)
    if not isinstance(table, Mapping):
        return _refuse(value, wanted)
    arguments = get_args(wanted)
    found: list[tuple[KeyPath, str]] = []
    read: dict[str, Any] = {}
    for key, item in table.items():
        try:
            read[key] = convert(item, arguments[1] if arguments else Any)
        except Invalid as error:
            found.extend(((key, *path), message) for path, message in error.found)
    if found:
        raise Invalid(found)
    return read


def _read_attrs(value: Any, wanted: Any) -> Any:
    table = _from_environment(value)
    return read_table(table, wanted, convert) if isinstance(table, Mapping) else _refuse(value, wanted)
