"""Messages of operators: made from JSON, checked as a configuration is, and sent to any actor that has a handler for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs
import cattrs

from runtime.config.config_file import dotted
from runtime.config.convert import convert
from runtime.config.errors import Invalid
from runtime.core.address import Address
from runtime.message import Message, Request
from runtime.operations.operations import OperationRefused, Operations
from runtime.plain_value import plain_mapping
from runtime.wording import did_you_mean

_DEEPEST: Final = 8
"""Levels of a reply that are looked into; what is deeper is not shown either."""


def tell(operations: Operations, name: str, kind: str, fields: Mapping[str, object]) -> str:
    """Tell an actor a message; returns what became of it ("accepted", "full", "dead").

    Raises OperationRefused, with what would do, for an unknown actor, a type that it does not handle and fields that do not fit.
    """
    address = operations.address(name)
    return address.ref.tell(_made(address, kind, fields)).value


async def ask(
    operations: Operations, name: str, kind: str, fields: Mapping[str, object], within: float
) -> Mapping[str, object]:
    """Ask an actor; returns `{"reply": …}`, of bounded size and redacted. Raises what `tell` raises, and AskError."""
    address = operations.address(name)
    message = _made(address, kind, fields)
    if not isinstance(message, Request):
        raise OperationRefused(
            f"{kind} is no request, and is answered by no reply: `atlas tell {name} {kind}` sends it"
        )
    return plain_mapping({"reply": _unfolded(await address.ref.ask(message, within=within), _DEEPEST)})


def _made(address: Address, kind: str, fields: Mapping[str, object]) -> Message:
    known: dict[str, list[type[Message]]] = {}
    for each in address.handled:
        known.setdefault(each.__name__, []).append(each)
    found = known.get(kind, [])
    if not found:
        listed = ", ".join(sorted(known)) or "nothing, for it has not run yet"
        raise OperationRefused(
            f"{address.name} does not handle {kind[:60]}{did_you_mean(kind[:60], known)}; it handles {listed}"
        )
    if len(found) > 1:
        places = " and ".join(f"{each.__module__}:{each.__qualname__}" for each in found)
        raise OperationRefused(f"{address.name} handles two types named {kind}: {places}")
    try:
        made: Message = convert(fields, found[0])
    except Invalid as error:
        wrong = [f"{dotted(path)}: {message}" if path else message for path, message in error.found]
        raise OperationRefused(f"{kind}: {'; '.join(wrong)}") from error
    except cattrs.errors.StructureHandlerNotFoundError as error:
        raise OperationRefused(f"{kind} cannot be made from JSON: {error}") from error
    return made


def _unfolded(value: object, depth: int) -> object:
    """With attrs values as mappings of their fields."""
    if depth <= 0:
        return value
    kind: type = type(value)
    if attrs.has(kind):
        names = [field.name for field in attrs.fields(kind) if field.repr]
        return {name: _unfolded(getattr(value, name), depth - 1) for name in names}
    if isinstance(value, Mapping):
        return {key: _unfolded(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_unfolded(item, depth - 1) for item in value]
    return value
