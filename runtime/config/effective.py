"""Every setting as it holds: its value, where that came from, and the class that declares it."""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import attrs

from runtime.config.config_file import RawConfig, dotted, read_raw_config
from runtime.config.environment import apply_environment
from runtime.config.key_lines import KeyPath
from runtime.config.loader import load
from runtime.config.secret import Secret
from runtime.config.section import section_of
from runtime.config.tree import ChildPlan
from runtime.core.actor import Actor
from runtime.redaction import redact_value


@attrs.frozen
class EffectiveSetting:
    """A setting that holds."""

    key: str
    """The dotted path, as one writes it in the file."""
    value: object
    """Plain; of a secret only whether there is one."""
    origin: str
    """`default`, the file and line, or the environment variable."""
    is_secret: bool = False
    actor: type[Actor] | None = None
    """Of an argument: the class of the actor."""


def effective_settings(path: Path, env: Mapping[str, str] | None = None) -> list[EffectiveSetting]:
    """All settings of a configuration, in the order of their keys. Raises ConfigErrors as `load` does."""
    env = os.environ if env is None else env
    config = load(path, env)
    source = read_raw_config(path)
    apply_environment(source, env)
    found: dict[str, EffectiveSetting] = {}
    for cls, value in config._sections.items():
        mark = section_of(cls)
        if mark is None:
            continue
        if mark.keyed:
            for name, entry in cast("Mapping[str, object]", value).items():
                found |= {one.key: one for one in _table(source, (mark.name, name), entry)}
        else:
            found |= {one.key: one for one in _table(source, (mark.name,), value)}
    for plan in config.children:
        found |= {one.key: one for one in _actor(source, plan)}
    return [found[key] for key in sorted(found)]


def _actor(source: RawConfig, plan: ChildPlan) -> Iterator[EffectiveSetting]:
    table: KeyPath = ("actor", plan.declared)
    for one in _table(source, table, plan.table):
        if not one.key.startswith(dotted((*table, "args"))):
            yield one
    actor = plan.make_actor()
    for field in _fields(actor):
        if not field.init or _key(field).startswith("_"):
            continue
        value = getattr(actor, field.name)
        if _is_injected(value):
            continue
        for one in _value(source, (*table, "args", _key(field)), value):
            yield attrs.evolve(one, actor=plan.actor)


def _is_injected(value: object) -> bool:
    """Whether it is a section of its own, or the entries of one: shown there."""
    if isinstance(value, Mapping):
        return any(_is_injected(entry) for entry in value.values())
    return section_of(type(value)) is not None


def _table(source: RawConfig, path: KeyPath, value: object) -> Iterator[EffectiveSetting]:
    for field in _fields(value):
        if field.init:
            yield from _value(source, (*path, _key(field)), getattr(value, field.name))


def _fields(value: object) -> tuple[attrs.Attribute[Any], ...]:
    return cast("tuple[attrs.Attribute[Any], ...]", attrs.fields(cast("Any", type(value))))


def _key(field: attrs.Attribute[Any]) -> str:
    return field.alias or field.name


def _value(source: RawConfig, path: KeyPath, value: object) -> Iterator[EffectiveSetting]:
    if isinstance(value, Secret):
        file = (*path[:-1], f"{path[-1]}_file")
        origin = _origin(source, file)
        if origin == "default":
            origin = _origin(source, path)
        if origin == "default" and value:
            origin = "credentials directory"
        yield EffectiveSetting(dotted(path), "(set)" if value else "(not set)", origin, is_secret=True)
    elif attrs.has(type(value)):
        yield from _table(source, path, value)
    elif isinstance(value, Mapping) and value:
        for key, entry in value.items():
            yield from _value(source, (*path, str(key)), entry)
    else:
        yield EffectiveSetting(dotted(path), _plain(str(path[-1]), value), _origin(source, path))


def _origin(source: RawConfig, path: KeyPath) -> str:
    at: Any = source.data
    for part in path:
        if not isinstance(at, dict) or part not in at:
            return "default"
        at = at[part]
    place = source.place(path)
    if place.variable is not None:
        return place.variable
    return f"{source.path.name}:{place.line}" if place.line is not None else source.path.name


def _plain(name: str, value: object) -> object:
    if isinstance(value, enum.Enum):
        value = value.value if isinstance(value.value, str) else value.name.lower()
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(name, entry) for entry in value]
    return redact_value(name, str(value))
