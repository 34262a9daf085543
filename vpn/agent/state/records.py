"""One line of the agent's files: a checksum and a JSON object."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping

from vpn.agent.state.desired import Change, Ended, Entry, Forgotten
from vpn.node.wire import WireError, spec_from_json, spec_to_json


class Damaged(ValueError):
    """A line of the agent's files that differs from what was written: the disk, or an editor, changed it."""


def encode_line(data: Mapping[str, object]) -> bytes:
    """CRC-32 in eight hexadecimal digits, a space, JSON, a newline."""
    body = json.dumps(data, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def decode_line(line: bytes) -> dict[str, object]:
    """The object in a line (without its newline). Raises Damaged."""
    checksum, space, body = line[:8], line[8:9], line[9:]
    if space != b" " or checksum != b"%08x" % zlib.crc32(body):
        raise Damaged("the checksum does not match")
    try:
        data = json.loads(body)
    except ValueError as error:
        raise Damaged(f"not JSON: {error}") from None
    if not isinstance(data, dict):
        raise Damaged("not a JSON object")
    return data


def change_to_json(change: Change) -> dict[str, object]:
    """A change as the agent's files hold it."""
    if isinstance(change, Forgotten):
        return {"op": "forget", "seq": change.sequence, "key_id": change.key_id}
    if isinstance(change, Ended):
        return {"op": "ended", "seq": change.sequence, "upto": change.upto}
    if change.spec is None:
        return {
            "op": "remove",
            "seq": change.sequence,
            "at": change.changed_at,
            "key_id": change.key_id,
            "generation": change.generation,
        }
    return {"op": "put", "seq": change.sequence, "at": change.changed_at, "key": spec_to_json(change.spec)}


def change_from_json(data: Mapping[str, object]) -> Change:
    """Read a change back from the agent's files. Raises Damaged."""
    sequence = _integer(data, "seq")
    match data.get("op"):
        case "forget":
            return Forgotten(_text(data, "key_id"), sequence)
        case "ended":
            return Ended(_number(data, "upto"), sequence)
        case "remove":
            return Entry(_text(data, "key_id"), _integer(data, "generation"), None, sequence, _number(data, "at"))
        case "put":
            try:
                spec = spec_from_json(data.get("key"))
            except WireError as error:
                raise Damaged(str(error)) from None
            return Entry(spec.key_id, spec.generation, spec, sequence, _number(data, "at"))
        case other:
            raise Damaged(f"unknown kind of change {other!r}")


def _integer(data: Mapping[str, object], name: str) -> int:
    value = data.get(name)
    if not isinstance(value, int):
        raise Damaged(f"{name} is missing")
    return value


def _number(data: Mapping[str, object], name: str) -> float:
    value = data.get(name)
    if not isinstance(value, int | float):
        raise Damaged(f"{name} is missing")
    return float(value)


def _text(data: Mapping[str, object], name: str) -> str:
    value = data.get(name)
    if not isinstance(value, str):
        raise Damaged(f"{name} is missing")
    return value
