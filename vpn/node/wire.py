"""The JSON between a node's agent and its clients: one place writes and reads it, and makes a node's texts fit for
logs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final, TypeVar
from uuid import UUID

import attrs

from vpn.digest import expiry_seconds
from vpn.errors import LinkError, NodeError
from vpn.link import link_for
from vpn.protocol import (
    BELIEVED_GENERATION,
    Applied,
    InboundFacts,
    KeyPage,
    KeySpec,
    KeyState,
    KeyUsage,
    Kicked,
    NodeKey,
    NodeState,
    Removal,
    Removed,
    SyncOutcome,
    UsagePage,
)

LONGEST: Final = 300


def readable(value: object) -> str:
    """The first 300 characters of a text, with what cannot be printed replaced; empty for what is not a text."""
    text = value if isinstance(value, str) else ""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text[:LONGEST])


Json = dict[str, object]
T = TypeVar("T")

# 9999-12-31: beyond it a datetime cannot be made
_LATEST = 253_402_214_400
_LONGEST_TEXT = 4096
_MOST_INBOUNDS = 64


class WireError(ValueError):
    """JSON that does not have the agreed shape; the text names the field."""


def _get(data: Mapping[str, object], name: str, kind: type[T], default: T | None = None) -> T:
    value = data.get(name, default)
    # bool is an int in Python and must not pass for one here
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise WireError(f"{name}: expected {kind.__name__}, got {type(value).__name__}")
    if isinstance(value, str):
        _check_text(name, value)
    return value


def _check_text(name: str, value: str) -> None:
    """Only what every part behind us takes: PostgreSQL no NUL, UTF-8 no half of a surrogate pair."""
    if len(value) > _LONGEST_TEXT:
        raise WireError(f"{name}: longer than {_LONGEST_TEXT} characters")
    if not value.isprintable():
        raise WireError(f"{name}: has characters that are not text")


def _texts(data: Mapping[str, object], name: str) -> tuple[str, ...]:
    values = _list(data, name)
    for value in values:
        if not isinstance(value, str):
            raise WireError(f"{name}: expected a list of texts")
        _check_text(name, value)
    return tuple(map(str, values))


def _mapping(value: object, what: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise WireError(f"{what}: expected an object, got {type(value).__name__}")
    return value


def _list(data: Mapping[str, object], name: str) -> list[object]:
    return list(_get(data, name, list, []))


def _when(data: Mapping[str, object], name: str) -> datetime | None:
    if data.get(name) is None:
        return None
    seconds = _get(data, name, int)
    if not 0 <= seconds <= _LATEST:
        raise WireError(f"{name}: {seconds} is not a time in Unix seconds")
    return datetime.fromtimestamp(seconds, UTC)


def spec_to_json(spec: KeySpec) -> Json:
    """A key for the wire and for the agent's file. Times are whole Unix seconds, rounded up."""
    return {
        "key_id": spec.key_id,
        "uuid": str(spec.uuid),
        "flow": spec.flow,
        "inbounds": list(spec.inbounds),
        "expires_at": expiry_seconds(spec.expires_at),
        "generation": spec.generation,
    }


_SPEC_FIELDS = frozenset({"key_id", "uuid", "flow", "inbounds", "expires_at", "generation"})


def spec_from_json(value: object, *, key_id: str | None = None) -> KeySpec:
    """Read a key; `key_id` overrides nothing but must agree if both are given. Raises WireError, also for unknown fields: what
    a later backend asks of a key is done or refused, never left out without a word."""
    data = _mapping(value, "key")
    unknown = set(data) - _SPEC_FIELDS
    if unknown:
        raise WireError(f"{min(unknown)[:40]!r}: unknown field")
    name = _get(data, "key_id", str, key_id)
    if key_id is not None and name != key_id:
        raise WireError("key_id: differs from the one in the address")
    text = _get(data, "uuid", str)
    try:
        uuid = UUID(text)
    except ValueError:
        raise WireError("uuid: not a UUID") from None
    if str(uuid) != text.lower():
        raise WireError("uuid: not in its usual form with dashes")
    inbounds = _texts(data, "inbounds")
    try:
        return KeySpec(
            key_id=name,
            uuid=uuid,
            flow=_get(data, "flow", str, ""),
            inbounds=inbounds,
            expires_at=_when(data, "expires_at"),
            generation=_get(data, "generation", int),
        )
    except WireError:
        raise
    except ValueError as error:
        raise WireError(str(error)) from None


def key_to_json(key: NodeKey) -> Json:
    """A key with what the node does with it."""
    return spec_to_json(key.spec) | {"state": key.state.value}


def key_from_json(value: object) -> NodeKey:
    """Read a reported key. Raises WireError, also for a generation that no key of ours can have. What a later agent says
    beyond that is ignored, as in every answer."""
    data = _mapping(value, "key")
    state = data.get("state")
    spec = spec_from_json({name: data[name] for name in _SPEC_FIELDS & data.keys()})
    if spec.generation > BELIEVED_GENERATION:
        raise WireError(f"generation: {spec.generation} is more than any key can have")
    return NodeKey(spec, _state(state))


def _state(value: object) -> KeyState:
    try:
        return KeyState(value)
    except ValueError:
        raise WireError(f"state: {str(value)[:40]!r} is unknown") from None


def page_to_json(page: KeyPage) -> Json:
    """A page of keys as `GET /v1/users` answers it."""
    return {"keys": [key_to_json(key) for key in page.keys], "next": page.next}


def page_from_json(value: object) -> KeyPage:
    """Read a page of keys. A missing list is an error, not an empty page."""
    data = _mapping(value, "page")
    keys = _get(data, "keys", list)
    return KeyPage(tuple(key_from_json(key) for key in keys), _next(data))


def _next(data: Mapping[str, object]) -> str | None:
    return None if data.get("next") is None else _get(data, "next", str)


def applied_to_json(applied: Applied) -> Json:
    """The outcome of a put."""
    return {
        "key_id": applied.key_id,
        "generation": applied.generation,
        "created": applied.created,
        "state": applied.state.value,
        "expires_at": expiry_seconds(applied.expires_at),
    }


def applied_from_json(value: object) -> Applied:
    """Read the outcome of a put. Raises WireError."""
    data = _mapping(value, "applied")
    return Applied(
        _get(data, "key_id", str),
        _get(data, "generation", int),
        _get(data, "created", bool),
        _state(data.get("state")),
        _when(data, "expires_at"),
    )


def removed_to_json(removed: Removed) -> Json:
    """The outcome of a removal."""
    return {"key_id": removed.key_id, "existed": removed.existed, "cut": removed.cut}


def removed_from_json(value: object) -> Removed:
    """Read the outcome of a removal. Raises WireError."""
    data = _mapping(value, "removed")
    return Removed(_get(data, "key_id", str), _get(data, "existed", bool), _get(data, "cut", int))


def change_to_json(change: KeySpec | Removal) -> Json:
    """One change of a batch."""
    if isinstance(change, Removal):
        return {"remove": attrs.asdict(change)}
    return {"put": spec_to_json(change)}


def change_from_json(value: object) -> KeySpec | Removal:
    """Read one change of a batch. Raises WireError."""
    data = _mapping(value, "change")
    if set(data) == {"put"}:
        return spec_from_json(data["put"])
    if set(data) != {"remove"}:
        raise WireError('change: expected "put" or "remove"')
    removal = _mapping(data["remove"], "remove")
    key_id, generation = _get(removal, "key_id", str), _get(removal, "generation", int)
    try:
        return Removal(key_id, generation)
    except ValueError as error:
        raise WireError(str(error)) from None


def outcomes_from_json(
    value: object, count: int, error_of: Callable[[int, Mapping[str, object]], NodeError]
) -> list[Applied | Removed | NodeError]:
    """Read the outcomes of a batch of `count` changes. Raises WireError."""
    items = _get(_mapping(value, "batch"), "outcomes", list)
    if len(items) != count:
        raise WireError(f"outcomes: expected {count}, got {len(items)}")
    outcomes: list[Applied | Removed | NodeError] = []
    for item in items:
        data = _mapping(item, "outcome")
        if "applied" in data:
            outcomes.append(applied_from_json(data["applied"]))
        elif "removed" in data:
            outcomes.append(removed_from_json(data["removed"]))
        else:
            outcomes.append(error_of(_get(data, "status", int), _mapping(data.get("error"), "error")))
    return outcomes


def kicked_from_json(value: object) -> Kicked:
    """Read the outcome of a kick. Raises WireError."""
    return Kicked(_get(_mapping(value, "kicked"), "cut", int))


def state_to_json(state: NodeState) -> Json:
    """A node's state as `GET /v1/state` answers it."""
    return {
        **attrs.asdict(state, recurse=False),
        "capabilities": sorted(state.capabilities),
        "inbounds": [attrs.asdict(inbound) for inbound in state.inbounds],
        "inbound": attrs.asdict(state.inbound),
        "now": state.now.isoformat(),
    }


_ANYBODY = KeySpec("anybody", UUID(int=0))


def inbound_from_json(value: object) -> InboundFacts:
    """Read the facts of an inbound. Raises WireError, also for facts of which no usable link can be made."""
    data = _mapping(value, "inbound")
    texts = {
        field.name: _get(data, field.name, str, "") for field in attrs.fields(InboundFacts) if field.name != "port"
    }
    facts = InboundFacts(port=_get(data, "port", int), **texts)
    if not facts.tag:
        raise WireError("tag: the inbound has none")
    try:
        link_for(_ANYBODY, facts)
        link_for(attrs.evolve(_ANYBODY, flow=facts.flow), facts)
    except (LinkError, ValueError) as error:
        raise WireError(f"inbound {facts.tag[:40]!r}: {error}") from None
    return facts


def state_from_json(value: object) -> NodeState:
    """Read a node's state. Raises WireError, also for a node without inbounds or with facts of which no link can be
    made.
    """
    data = _mapping(value, "state")
    listed = _list(data, "inbounds")
    if not 1 <= len(listed) <= _MOST_INBOUNDS:
        raise WireError(f"inbounds: the node has {len(listed)}")
    inbounds = tuple(inbound_from_json(inbound) for inbound in listed)
    return NodeState(
        agent_id=_get(data, "agent_id", str),
        boot_id=_get(data, "boot_id", str),
        agent_version=_get(data, "agent_version", str),
        xray_version=_get(data, "xray_version", str),
        ready=_get(data, "ready", bool),
        why=_why(data, "why"),
        count=_get(data, "count", int),
        serving=_get(data, "serving", int),
        expired=_get(data, "expired", int),
        pending=_get(data, "pending", int),
        digest=_get(data, "digest", str),
        last_generation=_get(data, "last_generation", int),
        sequence=_get(data, "sequence", int),
        capabilities=frozenset(_texts(data, "capabilities")),
        inbounds=inbounds,
        now=_moment(data, "now"),
        time_source=_get(data, "time_source", str, ""),
        wall_skew=_seconds(data, "wall_skew"),
        ends_held=_get(data, "ends_held", int, 0),
        why_held=_why(data, "why_held", ""),
        owner=_get(data, "owner", str, ""),
        xray_ends=_get(data, "xray_ends", int, 0),
        xray_ends_in_a_row=_get(data, "xray_ends_in_a_row", int, 0),
        xray_last_end=_why(data, "xray_last_end", ""),
    )


def _why(data: Mapping[str, object], name: str, default: str | None = None) -> str:
    """A reason may quote anything: what is not text in it is replaced, not refused."""
    text = data.get(name, default)
    if not isinstance(text, str):
        raise WireError(f"{name}: expected str, got {type(text).__name__}")
    return readable(text)


def _seconds(data: Mapping[str, object], name: str) -> float:
    """Seconds that a node reports; 0 of one that does not."""
    value = data.get(name, 0.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LATEST:
        raise WireError(f"{name}: expected a number of seconds")
    return float(value)


def _moment(data: Mapping[str, object], name: str) -> datetime:
    try:
        moment = datetime.fromisoformat(_get(data, name, str))
    except ValueError:
        raise WireError(f"{name}: not a time") from None
    # near the ends of the calendar a time zone could not be applied
    if moment.tzinfo is None or not 1970 <= moment.year < 9000:
        raise WireError(f"{name}: not a time with a time zone")
    return moment


def usage_to_json(usage: UsagePage) -> Json:
    """A page of counters as `GET /v1/usage` answers it."""
    users = [attrs.asdict(user) for user in usage.users]
    return {"boot_id": usage.boot_id, "users": users, "next": usage.next, "mark": usage.mark}


def usage_from_json(value: object) -> UsagePage:
    """Read a page of counters. Raises WireError; a missing list is an error, not an empty page."""
    data = _mapping(value, "usage")
    users = []
    for item in _get(data, "users", list):
        user = _mapping(item, "user")
        users.append(KeyUsage(_get(user, "key_id", str), _get(user, "uplink", int), _get(user, "downlink", int)))
    return UsagePage(_get(data, "boot_id", str), tuple(users), _next(data), _get(data, "mark", str, ""))


def sync_to_json(outcome: SyncOutcome) -> Json:
    """The outcome of a full sync."""
    return attrs.asdict(outcome) | {"refused": [list(pair) for pair in outcome.refused]}


def sync_from_json(value: object) -> SyncOutcome:
    """Read the outcome of a full sync. Raises WireError."""
    data = _mapping(value, "sync")
    refused = []
    for pair in _list(data, "refused"):
        if not isinstance(pair, list) or len(pair) != 2:
            raise WireError("refused: expected pairs")
        refused.append((readable(pair[0]), readable(pair[1])))
    return SyncOutcome(
        _get(data, "added", int),
        _get(data, "changed", int),
        _get(data, "removed", int),
        _get(data, "unchanged", int),
        tuple(refused),
    )
