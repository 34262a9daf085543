"""What an event quotes of others (an error's text, a remote's answer) leaves the process on one line and without secrets.

All event classes of all rooms are looked at, so that a new one cannot be forgotten.
"""

from __future__ import annotations

import enum
import importlib
import json
import logging
import pkgutil
import sys
import types
import typing
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

import actors
import db
import runtime
import vpn
from runtime import Event, EventRecord
from runtime.control import as_item, encode
from runtime.log import Record, as_json, as_text

UUID = "0f4cd2ab-1f8e-4f6a-9d25-7d3a2b1c0e9f"
HOSTILE = (
    f"cannot reach postgresql://atlas:hunter2@db/atlas\n2026-01-01 CRITICAL forged \x1b[31mred \x9b31m "
    f"vless://{UUID}@h:1 \u202e{UUID}"
)
SECRETS = ("hunter2", UUID, "vless://0f4c")
LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)


def _modules() -> Iterator[str]:
    for room in (runtime, actors, db, vpn):
        for found in pkgutil.walk_packages(room.__path__, room.__name__ + "."):
            if not found.name.endswith("__main__"):
                yield found.name


def _all(base: type[Event]) -> Iterator[type[Event]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _all(kind)


def event_classes() -> list[type[Event]]:
    """Every kind of event that the program can emit."""
    for name in _modules():
        importlib.import_module(name)
    # attrs makes a class with slots anew, and what it was made from lives on for a while.
    own = [kind for kind in _all(Event) if getattr(sys.modules[kind.__module__], kind.__name__, None) is kind]
    own = [kind for kind in own if not kind.__module__.startswith("tests.")]
    return sorted(set(own), key=lambda kind: (kind.__module__, kind.__qualname__))


_in_making: list[type[Any]] = []
"""The classes of which one is being made: what may hold one of its own kind, as a cause does, holds none."""


def hostile(wanted: Any) -> Any:
    """A value of this type, as bad as it can be."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin in (typing.Union, types.UnionType):
        kind = next(each for each in arguments if each is not type(None))
        return None if kind in _in_making and type(None) in arguments else hostile(kind)
    if origin is tuple and arguments[0] in _in_making:
        return ()
    if origin in (tuple, list, set, frozenset):
        return origin([hostile(arguments[0])])
    if origin is typing.Literal:
        return arguments[0]
    if origin is not None and issubclass(origin, typing.Mapping):
        return {hostile(arguments[0]): hostile(arguments[1])}
    if isinstance(wanted, type) and issubclass(wanted, enum.Enum):
        return next(iter(wanted))
    if wanted is bool:
        return True
    if wanted is int:
        return 3
    if wanted is float:
        return 1.5
    if isinstance(wanted, type) and attrs.has(wanted):
        return made(wanted)
    return HOSTILE


def made(kind: type[Any]) -> Any:
    """One of these, every text in it hostile."""
    hints = typing.get_type_hints(kind)
    _in_making.append(kind)
    try:
        return kind(**{each.alias: hostile(hints[each.name]) for each in attrs.fields(kind) if each.init})
    finally:
        _in_making.remove(kind)


# S-903 S-904
@pytest.mark.parametrize("kind", event_classes(), ids=lambda kind: f"{kind.__module__}.{kind.__qualname__}")
def test_an_event_leaves_the_process_as_one_printable_line_without_secrets(kind: type[Event]) -> None:
    assert kind.level in LEVELS
    event = made(kind)
    answer = encode({"item": as_item(EventRecord(1, 0.0, event))}, redacted=True).decode()
    facts = {"event": event.kind, **event.facts()}
    logged = Record(0.0, event.level, "atlas.events", event.line(), actor="a", facts=facts)
    for text in (answer, as_text(logged), as_json(logged)):
        assert text.endswith("\n")
        assert text[:-1].isprintable()
        assert not any(secret in text for secret in SECRETS)
    line = json.loads(answer)["item"]["line"]
    assert line.isprintable()
    assert line


def test_no_class_of_events_is_overlooked() -> None:
    names = {kind.__name__ for kind in event_classes()}
    assert {"ChildExited", "OperatorCommand", "BeatStale", "KeyFailed", "WaitSpike", "TelegramAway"} <= names
    assert len(names) > 60
