"""What differs between the keys that belong on a node and those it lists. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

import attrs

from db.keys.reconcile import ExpectedKey, ReconcilePass
from vpn.digest import digest, expiry_seconds
from vpn.protocol import KeySpec, KeyState, NodeKey, NodeState, route_blind


@attrs.define
class KeyDiff:
    """What differs between one page of the database's keys and what the node lists of them."""

    missing: list[ExpectedKey] = attrs.field(factory=list)
    """The node does not have them, or has something older."""
    node_is_newer: list[tuple[ExpectedKey, int]] = attrs.field(factory=list)
    """The node has something else of this generation, which is not older than ours."""
    unconfirmed: list[ExpectedKey] = attrs.field(factory=list)
    """The node has them as wanted, and the database does not know it yet."""
    unwanted: list[str] = attrs.field(factory=list)
    """The node has them, and they are wanted nowhere any more."""
    undecided: list[ExpectedKey] = attrs.field(factory=list)
    """The node confirmed them after this look began, so a list without them may be the older of the two."""


class WantedKey(Protocol):
    """What a row says of a key that nodes have to have."""

    @property
    def key_id(self) -> str: ...
    @property
    def uuid(self) -> UUID: ...
    @property
    def expires_at(self) -> datetime | None: ...
    @property
    def generation(self) -> int: ...


class KeyPlace(Protocol):
    """What the database knows of one node that is to have keys."""

    @property
    def flow(self) -> str: ...
    @property
    def inbounds(self) -> tuple[str, ...]: ...


def key_spec(key: WantedKey, place: KeyPlace) -> KeySpec:
    """Return the key as the node is told it."""
    return KeySpec(
        key_id=key.key_id,
        uuid=key.uuid,
        flow=place.flow,
        inbounds=place.inbounds,
        expires_at=key.expires_at,
        generation=key.generation,
    )


def diff_keys(expected: Sequence[ExpectedKey], listed: Mapping[str, NodeKey], place: ReconcilePass) -> KeyDiff:
    """Compare keys with what the node lists of them, whatever is true of them on other nodes.

    A key that waits to be put is left to the worker that activates where this node has not confirmed it yet; where it has, it
    is compared like any other, so that neither a renewal nor another node that is away takes it out of repair.
    """
    diff = KeyDiff()
    for key in expected:
        found = listed.get(key.key_id)
        if key.status in ("removing", "failed"):
            if found is not None:
                diff.unwanted.append(key.key_id)
        elif key.status == "pending" and not key.is_noted:
            continue
        elif (found is None or found.spec.generation < key.generation) and _is_newer_than_list(key, place):
            diff.undecided.append(key)
        elif found is None:
            diff.missing.append(key)
        elif _same(found.spec, key_spec(key, place)):
            if (not key.is_noted or key.is_missing) and found.state is not KeyState.PENDING:
                diff.unconfirmed.append(key)
        elif found.spec.generation < key.generation:
            diff.missing.append(key)
        else:
            diff.node_is_newer.append((key, found.spec.generation))
    return diff


def duplicate_uuids(listed: Mapping[str, NodeKey]) -> list[tuple[str, str]]:
    """Pairs of keys with one UUID, as Xray tells UUIDs apart: removing either from it would lock out both."""
    owners: dict[bytes, str] = {}
    found = []
    for key_id, key in listed.items():
        owner = owners.setdefault(route_blind(UUID(int=key.spec.uuid.int)), key_id)
        if owner != key_id:
            found.append((owner, key_id))
    return found


def why_implausible(listed: Mapping[str, NodeKey], before: NodeState, after: NodeState) -> str:
    """Why this list cannot be what the node has, by what the node said of itself before and after; empty if it can."""
    if before.boot_id != after.boot_id:
        return ""  # it was started anew meanwhile; its set of keys may have been read anew as well
    changes = abs(after.sequence - before.sequence)
    low, high = min(before.count, after.count) - changes, max(before.count, after.count) + changes
    if not low <= len(listed) <= high:
        return f"it lists {len(listed)} keys and says that it has {after.count}"
    if before.sequence == after.sequence and before.digest == after.digest:
        found = digest(key.spec for key in listed.values())
        if found != after.digest:
            return f"the digest of the {len(listed)} keys that it lists is {found[:8]}…, it says {after.digest[:8]}…"
    return ""


def _is_newer_than_list(key: ExpectedKey, place: ReconcilePass) -> bool:
    return key.is_noted and not key.is_missing and key.noted_at is not None and key.noted_at >= place.looked_at


def _same(found: KeySpec, wanted: KeySpec) -> bool:
    return (
        found.uuid == wanted.uuid
        and found.flow == wanted.flow
        and sorted(found.inbounds) == sorted(wanted.inbounds)
        and expiry_seconds(found.expires_at) == expiry_seconds(wanted.expires_at)
    )
