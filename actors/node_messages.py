"""What a node actor is asked. Each request is idempotent, so it may be repeated after any failure."""

from __future__ import annotations

import attrs

from runtime.message import Request
from vpn.protocol import Applied, KeySpec, NodeState, Removed


@attrs.frozen
class PutKey(Request[Applied]):
    """Want this key on the node; answered when it was read back from Xray. Fails with the errors of `vpn.errors`."""

    spec: KeySpec


@attrs.frozen
class RemoveKey(Request[Removed]):
    """Want this key no more, up to this generation; answered when it is refused and its connections are cut."""

    key_id: str
    generation: int


@attrs.frozen
class ReadState(Request[NodeState]):
    """The node at a glance, read now."""
