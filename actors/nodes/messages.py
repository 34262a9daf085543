"""What a node actor and the actor of an embedded node agent are asked.

Each request but KickKey is idempotent, so it may be repeated after any failure.
"""

from __future__ import annotations

from collections.abc import Sized

import attrs

from db.keys.canary import CanaryKey
from runtime import Context, Ref, Registry, Request
from runtime.config import Secret
from vpn.errors import NodeError
from vpn.protocol import Applied, KeyPage, KeySpec, Kicked, NodeKey, NodeState, Removal, Removed, SyncOutcome, UsagePage

_NODE_PREFIX = "node."


def node_names(registry: Registry) -> list[str]:
    """Return the names of all nodes that are configured here, in order, without the prefix of their actors."""
    names = (address.name for address in registry)
    return sorted(name.removeprefix(_NODE_PREFIX) for name in names if name.startswith(_NODE_PREFIX))


def node_ref(context: Context, name: str) -> Ref:
    """Return the actor of the node of that name. Raises UnknownActor for a node that is not configured here."""
    return context.lookup(_NODE_PREFIX + name)


def canary_key_spec(key: CanaryKey) -> KeySpec:
    """Return the canary's key as its node is told it."""
    return KeySpec(key.key_id, key.uuid, flow=key.flow, inbounds=key.inbounds, generation=key.generation)


@attrs.frozen
class Endpoint:
    """An agent's address and the token that it wants to see."""

    url: str
    token: Secret


@attrs.frozen
class Locate(Request[Endpoint]):
    """Ask the actor of an embedded agent for its address and token; answered once the agent listens."""


@attrs.frozen
class PutKey(Request[Applied]):
    """Want this key on the node; answered when it was read back from Xray. Fails with the errors of `vpn.errors`."""

    spec: KeySpec


@attrs.frozen
class RemoveKey(Request[Removed]):
    """Want this key no more, up to this generation; answered when it is refused and its connections are cut."""

    key_id: str
    generation: int


def _key_count(changes: Sized) -> str:
    return f"({len(changes)} keys)"


@attrs.frozen
class ChangeKeys(Request[tuple[Applied | Removed | NodeError, ...]]):
    """Up to `vpn.protocol.MAX_BATCH` puts and removals at once; answered with what became of each, in their order."""

    changes: tuple[KeySpec | Removal, ...] = attrs.field(repr=_key_count)


@attrs.frozen
class RestoreKeys(Request[SyncOutcome]):
    """Want all of these keys, however many, and let every other key be: for a node that lost them. What it would not take
    is in the outcome; what it took it goes on applying, as `NodeState.pending` shows."""

    specs: tuple[KeySpec, ...] = attrs.field(repr=_key_count)


@attrs.frozen
class ReplaceKeys(Request[SyncOutcome]):
    """Want exactly these keys, and let go of every other that the node learned of up to the sequence `unchanged_since`: for a
    node that cannot list what it has. Read that sequence before the keys."""

    specs: tuple[KeySpec, ...] = attrs.field(repr=_key_count)
    unchanged_since: int


@attrs.frozen
class ReadState(Request[NodeState]):
    """The node at a glance, read now."""


@attrs.frozen
class ReadKey(Request[NodeKey | None]):
    """One key as the node has it, read now; None if it does not want it."""

    key_id: str


@attrs.frozen
class ListKeys(Request[KeyPage]):
    """A page of the keys that the node wants, after this key id."""

    after: str
    limit: int


@attrs.frozen
class ReadUsage(Request[UsagePage]):
    """A page of traffic counters after this key id, of the keys that moved after the mark `since`; "" for all."""

    since: str
    after: str
    limit: int


@attrs.frozen
class KickKey(Request[Kicked]):
    """Cut the customer's open connections; the key stays. Not idempotent: repeated, it cuts the new connections too."""

    key_id: str
