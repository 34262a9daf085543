"""What ATLAS says to a VPN node, whichever program runs there."""

from __future__ import annotations

import enum
import re
from collections.abc import AsyncIterable, Iterable, Sequence
from datetime import datetime
from typing import Final, Protocol
from uuid import UUID

import attrs

from vpn.errors import NodeError

FLOW_NONE: Final = ""
FLOW_VISION: Final = "xtls-rprx-vision"
FLOWS: Final = frozenset({FLOW_NONE, FLOW_VISION})

KEY_ID: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"The form of a key id. Lower case: Xray compares names without regard to case."

MAX_GENERATION: Final = 2**53 - 1

BELIEVED_GENERATION: Final = MAX_GENERATION // 2
"A node that claims a greater one is not believed: ours must go on being newer than what nodes have."

MAX_BATCH: Final = 1000
"Changes that one `VpnNode.batch` may have."

CAN_LIST: Final = "list"
"Capability: the node lists its keys. Without it `VpnNode.list` raises NodeCannotList: compare digests, send the full set."
CAN_LIST_EXPIRED: Final = "list-expired"
"Capability: the node lists those of its keys alone whose time it takes to be over."
CAN_SYNC: Final = "sync"
"Capability: the node takes a full set at once."
CAN_BATCH: Final = "batch"
"Capability: the node takes many changes in one request. Without it `VpnNode.batch` sends them one by one."
CAN_OWN: Final = "owner"
"Capability: the node has one owner, and takes changes only from who knows the nonce that the owner gave last."
CAN_CUT: Final = "cut"
"Capability: removed customers' open connections are really cut."
CAN_MOVE_CLOCK: Final = "clock"
"Capability: the node's clock may be moved (demonstrations and tests)."
CAN_EXTEND_HEADER: Final = "x-atlas-can-extend"
"Header of requests from a backend that can extend keys now. Nodes give keys a grace while no request has it."
OWNER_HEADER: Final = "x-atlas-owner"
"Header of requests from the node's owner: the nonce that it gave last."
TIME_HEADER: Final = "x-atlas-time"
"Header beside it: the database's real time in Unix seconds, which nodes go by."


def route_blind(uuid: UUID) -> bytes:
    """The bytes of a UUID that Xray authenticates by: the 7th and 8th carry a route there and are ignored."""
    raw = uuid.bytes
    return raw[:6] + b"\0\0" + raw[8:]


def _check_key_id(_: object, __: object, value: str) -> None:
    if KEY_ID.fullmatch(value) is None:
        raise ValueError(
            f"key id {value[:80]!r} is refused: 1 to 64 lower-case letters, digits, dots, dashes or underscores, "
            "the first a letter or digit"
        )


def _check_flow(_: object, __: object, value: str) -> None:
    if value not in FLOWS:
        raise ValueError(
            f'flow {value[:40]!r} is refused: "" or "{FLOW_VISION}" (Xray takes others and then serves nobody)'
        )


def _check_expiry(_: object, __: object, value: datetime | None) -> None:
    if value is not None and value.tzinfo is None:
        raise ValueError("expires_at needs a time zone")


def _check_generation(_: object, __: object, value: int) -> None:
    if not 0 <= value <= MAX_GENERATION:
        raise ValueError(f"generation {value} is refused: 0 to {MAX_GENERATION}")


def _short(uuid: UUID) -> str:
    return f"{str(uuid)[:8]}…"


@attrs.frozen
class KeySpec:
    """One customer's key as it is wanted on a node.

    `inbounds` names the node's inbounds; empty means all of them. `expires_at` None means never. A greater
    `generation` replaces a smaller one; with the same generation only a later `expires_at` is taken. Raises ValueError
    for a malformed name, an unknown flow, a time without zone or a negative generation. Only eight characters of the
    UUID appear in its repr.
    """

    key_id: str = attrs.field(validator=_check_key_id)
    uuid: UUID = attrs.field(repr=_short)
    flow: str = attrs.field(default=FLOW_NONE, validator=_check_flow)
    inbounds: tuple[str, ...] = ()
    expires_at: datetime | None = attrs.field(default=None, validator=_check_expiry)
    generation: int = attrs.field(default=1, validator=_check_generation)


class KeyState(enum.Enum):
    """What the node does with a key that is wanted there."""

    SERVING = "serving"  # confirmed by reading it back from Xray
    EXPIRED = "expired"  # past its time (and the grace, if any): refused and cut
    PENDING = "pending"  # written down, not yet confirmed


@attrs.frozen
class NodeKey:
    """A wanted key and what the node does with it."""

    spec: KeySpec
    state: KeyState


@attrs.frozen
class KeyPage:
    """A page of keys in order of key id; `next` is what to pass as `after` for the following page, None at the end."""

    keys: tuple[NodeKey, ...]
    next: str | None


@attrs.frozen
class Applied:
    """A key is on the node, read back from Xray. `created`: this call changed something there. `state` is SERVING, or
    EXPIRED if its time is over; `expires_at` is what the node holds (never earlier than what was sent for the same
    generation). `is_read_back`: the answer stayed away, and only reading back showed it; `created` is a guess then."""

    key_id: str
    generation: int
    created: bool
    state: KeyState
    expires_at: datetime | None
    is_read_back: bool = attrs.field(default=False, eq=False)


@attrs.frozen
class Removed:
    """A key is gone: refused by Xray (read back), and its open connections cut. `existed`: it was wanted before;
    `cut`: connections shut. `is_read_back`: the answer stayed away, and only reading back showed it; `existed` is a guess
    then."""

    key_id: str
    existed: bool
    cut: int
    is_read_back: bool = attrs.field(default=False, eq=False)


@attrs.frozen
class Removal:
    """A key that is not wanted, up to and including this generation. For `VpnNode.batch`."""

    key_id: str = attrs.field(validator=_check_key_id)
    generation: int = attrs.field(validator=_check_generation)


@attrs.frozen
class Kicked:
    """How many open connections of the customer were shut; the key itself stays."""

    cut: int


@attrs.frozen
class InboundFacts:
    """The public facts of a node's inbound from which a customer's link is made."""

    tag: str
    host: str
    port: int
    network: str
    security: str
    sni: str = ""
    public_key: str = ""
    short_id: str = ""
    fingerprint: str = ""
    flow: str = ""


@attrs.frozen
class NodeState:
    """A node at a glance. `boot_id` changes with every start of its Xray (traffic counters start again at 0).

    `count` is the number of wanted keys, made of `serving`, `expired` and `pending`; `digest` covers exactly the wanted
    keys (see `vpn.digest`). `sequence` grows with every change of the wanted set (see `VpnNode.sync`). `ready` is false
    while Xray is down, with the reason in `why`; a ready node with a `why` serves, but refuses changes (its disk is
    full). `now` is the node's clock, with the demonstration offset if it has one. `time_source` says where that time is from:
    "backend", "guess" or "wall" (`vpn.agent.state.clock.TimeSource`), "" of an agent that is too old to say; `wall_skew` is how
    far the host's own clock is ahead of it, in seconds. `ends_held` keys seem to be over and are served on: `why_held`.
    `owner` is the id of the database that rules the node, "" if none does. `xray_ends` is how often Xray ended or could not be
    started since the agent was, `xray_ends_in_a_row` since it last ran for a minute, `xray_last_end` how.
    """

    agent_id: str
    boot_id: str
    agent_version: str
    xray_version: str
    ready: bool
    why: str
    count: int
    serving: int
    expired: int
    pending: int
    digest: str
    last_generation: int
    sequence: int
    capabilities: frozenset[str]
    inbounds: tuple[InboundFacts, ...]
    now: datetime
    time_source: str = ""
    wall_skew: float = 0.0
    ends_held: int = 0
    why_held: str = ""
    owner: str = ""
    xray_ends: int = 0
    xray_ends_in_a_row: int = 0
    xray_last_end: str = ""

    @property
    def inbound(self) -> InboundFacts:
        """The first inbound: the one a link is made for unless another is asked for."""
        return self.inbounds[0]

    def can(self, capability: str) -> bool:
        """Whether the node has this capability, like CAN_LIST."""
        return capability in self.capabilities


@attrs.frozen
class KeyUsage:
    """Bytes of one key since the boot of Xray named beside it."""

    key_id: str
    uplink: int
    downlink: int


@attrs.frozen
class UsagePage:
    """A page of absolute counters, in bytes. Reading never resets them: store (boot_id, last value) per key and add the
    difference.

    `next` is what to pass as `after` for the following page, None at the end. `mark`, of the first page, is what to
    pass as `since` next time: then only keys whose counters moved are listed. A mark of another boot is no error; all
    keys are listed again.
    """

    boot_id: str
    users: tuple[KeyUsage, ...]
    next: str | None
    mark: str = ""


@attrs.frozen
class SyncOutcome:
    """What a full sync changed. `refused` has (key id, why) of entries the node would not take; the rest was applied."""

    added: int
    changed: int
    removed: int
    unchanged: int
    refused: tuple[tuple[str, str], ...] = ()


IDEMPOTENT: Final = frozenset({"put", "remove", "batch", "get", "list", "state", "usage", "sync", "claim"})
"Operations of `VpnNode` that may be repeated freely. `kick` is not: repeated, it cuts the customer's new connections too."


class VpnNode(Protocol):
    """A VPN node, as the backend needs it. All methods raise the errors of `vpn.errors`; call none while holding a
    database lease.

    Accepted is not applied: `put` and `remove` return only after the change was read back from Xray.
    """

    async def put(self, spec: KeySpec) -> Applied:
        """Want this key. Idempotent. NodeConflict if a newer generation or its removal is known, NodeRefused if the
        UUID belongs to another key or the spec is not acceptable."""

    async def remove(self, key_id: str, generation: int) -> Removed:
        """Do not want this key, up to and including `generation`; cuts its connections. Idempotent; a key that was
        never there is remembered as removed. NodeConflict if a newer generation is wanted."""

    async def batch(
        self, changes: Sequence[KeySpec | Removal], within: float | None = None
    ) -> tuple[Applied | Removed | NodeError, ...]:
        """Puts and removals, at most MAX_BATCH, in one request of at most `within` seconds (default 60); the outcomes in the
        same order, each as `put` or `remove` would have returned or raised it. They are written down in their order (a UUID
        may move from a removed key to a later one), and one change's failure spoils no other. Idempotent. Raises NodeError
        if nothing is known of any, ValueError for too many, or for two of one key."""

    async def get(self, key_id: str) -> NodeKey | None:
        """One key, or None if it is not wanted on the node. Idempotent."""

    async def list(self, after: str = "", limit: int = 1000) -> KeyPage:
        """A page of wanted keys in order of key id. Idempotent. An error is never an empty page: NodeCannotList if the
        node has no list, NodeProtocolError for one that is not in order."""

    async def list_expired(self, after: str = "", limit: int = 1000) -> KeyPage:
        """As `list`, of those keys alone whose time the node takes to be over. Only of a node with CAN_LIST_EXPIRED."""

    async def state(self) -> NodeState:
        """The node at a glance. Idempotent, and cheap enough to be asked every second."""

    async def sync(
        self, specs: Iterable[KeySpec] | AsyncIterable[KeySpec], unchanged_since: int | None = None
    ) -> SyncOutcome:
        """Make the node want exactly these keys. Idempotent. Keys known with a newer generation stay as they are.

        `unchanged_since` is a `NodeState.sequence` that was read before the wanted keys were: keys that the node
        learned of after it are not dropped. Without it, only keys learned of during the sync are safe.
        """

    async def kick(self, key_id: str) -> Kicked:
        """Cut the customer's open connections and let them connect again. Not idempotent."""

    async def usage(self, since: str = "", *, after: str = "", limit: int = 1000) -> UsagePage:
        """A page of at most `limit` traffic counters in order of key id: of all keys that had traffic since this Xray
        started, or of those whose counters moved after the mark `since`. Idempotent: nothing is reset by reading.
        """
