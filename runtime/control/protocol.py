"""The lines on the control socket.

A request is one line `{"command": "kill", "arguments": {"name": "pool.main"}}`, with `"token": "…"` where an operator is
recognised by one, and `"config": "…"`, the absolute path of the configuration that is meant: a system that runs another one
refuses. The answer is any number of lines `{"item": …}` (only from commands that stream) and then exactly one of `{"result": …}`
and `{"error": {"message": "…", "exit_code": 69}}`. A connection may carry several requests, one after the other.
"""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

import attrs

from runtime.errors import AtlasError
from runtime.redaction import in_json, redact_value

USAGE: Final = 64
UNAVAILABLE: Final = 69
INTERNAL: Final = 70


class ControlError(AtlasError):
    """A command was refused or failed. The text is meant for the operator."""

    def __init__(self, message: str, exit_code: int = INTERNAL) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # one error, several codes: the class only holds the default


def encode(line: Mapping[str, object], *, redacted: bool = False) -> bytes:
    """One line, ready to send. Values that JSON does not know become text; never raises for what commands return.

    With `redacted` all text in it is, by the names of its fields: what a running system answers is shown on terminals and
    kept in files, like its log.
    """
    text = json.dumps(_jsonable("", line, redacted=redacted), allow_nan=False, ensure_ascii=False)
    return in_json(text).encode("utf-8", "backslashreplace") + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """Raises ControlError (usage) when the line is no JSON object."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ControlError(f"the line is not JSON: {error}", USAGE) from error
    if not isinstance(value, dict):
        raise ControlError("the line is not a JSON object", USAGE)
    return value


def decode_request(line: bytes) -> tuple[str, dict[str, Any], str | None, str | None]:
    """The command, its arguments, and the operator's token and the configuration that is meant, each or None.

    Raises ControlError (usage) for anything else.
    """
    request = decode(line)
    command, arguments = request.pop("command", None), request.pop("arguments", {})
    token, config = request.pop("token", None), request.pop("config", None)
    is_right = isinstance(command, str) and isinstance(arguments, dict)
    if not is_right or not isinstance(token, str | None) or not isinstance(config, str | None) or request:
        text = 'a request is {"command": "…", "arguments": {…}, "token": "…", "config": "…"} and nothing else'
        raise ControlError(text, USAGE)
    return command, arguments, token, config


def error_line(error: Exception) -> dict[str, object]:
    """The answer that tells an error: our own in their words, any other with its type."""
    if isinstance(error, AtlasError):
        return {"error": {"message": str(error), "exit_code": error.exit_code}}
    return {"error": {"message": f"{type(error).__name__}: {error}", "exit_code": INTERNAL}}


def _jsonable(name: str, value: object, *, redacted: bool) -> object:
    if isinstance(value, enum.Enum):
        value = value.value
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return redact_value(name, value) if redacted else value
    if isinstance(value, Mapping):
        return {str(key): _jsonable(str(key), item, redacted=redacted) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_jsonable(name, item, redacted=redacted) for item in value]
    return _jsonable(name, _plain(value), redacted=redacted)


def _plain(value: object) -> object:
    if attrs.has(type(value)):
        fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(cast("Any", type(value)))
        return {field.name: getattr(value, field.name) for field in fields if field.repr}
    return str(value) if isinstance(value, Path | BaseException) else repr(value)
