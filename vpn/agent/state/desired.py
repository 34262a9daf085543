"""The rules of the wanted set: pure and in memory, the same for a live change and for replaying the file."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from datetime import datetime
from uuid import UUID

import attrs

from vpn.digest import digest_text, key_digest
from vpn.protocol import KeySpec, route_blind


class Conflict(Exception):
    """A newer generation, or the removal of this one, is already known. `generation` is the known one."""

    def __init__(self, message: str, generation: int) -> None:
        super().__init__(message)
        self.generation = generation


class UuidTaken(Exception):
    """Another key has this UUID, as far as Xray tells UUIDs apart. `key_id` is that other key."""

    def __init__(self, key_id: str) -> None:
        super().__init__(
            f"the UUID is in use by key {key_id!r} (the 7th and 8th byte do not count: Xray ignores them); "
            "with it, removing one key would lock out the other"
        )
        self.key_id = key_id


@attrs.frozen
class Entry:
    """What is known of a key id: a wanted key, or (`spec` None) a removal that refuses older puts.

    `sequence` grows with every change of the whole set; `changed_at` is in Unix seconds.
    """

    key_id: str
    generation: int
    spec: KeySpec | None
    sequence: int
    changed_at: float


@attrs.frozen
class Forgotten:
    """A key dropped by a full sync: unlike a removal it refuses nothing later, because the sync may have been older
    than the change that will follow."""

    key_id: str
    sequence: int


@attrs.frozen
class Ended:
    """Keys whose time was over at `upto` (Unix seconds) have been ended, and stay so; an earlier `upto` than the one before takes
    back what a wrong clock ended."""

    upto: float
    sequence: int


Change = Entry | Forgotten | Ended


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    return None if one is None or other is None else max(one, other)


class DesiredSet:
    """The wanted keys and the remembered removals.

    The `decide_…` methods decide and change nothing; `apply` changes and decides nothing, so that a change can be made
    durable in between. Between a decision and its `apply` nothing else may be applied.
    """

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._wanted: list[str] = []  # key ids in order, for pages
        self._owners: dict[bytes, str] = {}
        self._digest = 0
        self.sequence = 0
        self.last_generation = 0
        self.ended_upto = float("-inf")

    def __len__(self) -> int:
        return len(self._wanted)

    @property
    def digest(self) -> str:
        """The digest of the wanted keys (`vpn.digest`), kept up to date with every change."""
        return digest_text(self._digest)

    def get(self, key_id: str) -> Entry | None:
        """The entry of a key id, wanted or removed; None if the id is unknown."""
        return self._entries.get(key_id)

    def wanted(self, key_id: str) -> KeySpec | None:
        """The key, or None if it is not wanted."""
        entry = self._entries.get(key_id)
        return None if entry is None else entry.spec

    def has_changed(self, key_id: str, since: int) -> bool:
        """Whether the key was put or removed after that `sequence`."""
        entry = self._entries.get(key_id)
        return entry is not None and entry.sequence > since

    def owner(self, uuid: UUID) -> str | None:
        """The id of the wanted key that has this UUID, as far as Xray tells UUIDs apart; None if there is none."""
        return self._owners.get(route_blind(uuid))

    def specs(self) -> Iterator[KeySpec]:
        """All wanted keys in order of key id. Change nothing meanwhile."""
        for key_id in self._wanted:
            spec = self._entries[key_id].spec
            assert spec is not None
            yield spec

    def entries(self) -> list[Entry]:
        """Everything that is known, removals included."""
        return list(self._entries.values())

    def page(self, after: str, limit: int) -> list[KeySpec]:
        """The `limit` wanted keys that follow the key id `after`, in order; fewer at the end."""
        start = bisect_right(self._wanted, after)
        found = (self._entries[key_id].spec for key_id in self._wanted[start : start + limit])
        return [spec for spec in found if spec is not None]

    def decide_put(self, spec: KeySpec, now: float) -> Entry | None:
        """The change that makes this key wanted, or None if it is already. Raises Conflict or UuidTaken.

        For the generation already known, only a later expiry is taken: whatever the order in which repeated and late
        requests arrive, the same end results.
        """
        known = self._entries.get(spec.key_id)
        if known is not None and known.generation > spec.generation:
            raise Conflict(
                f"key {spec.key_id!r}: generation {spec.generation} is older than the known {known.generation}",
                known.generation,
            )
        if known is not None and known.generation == spec.generation:
            if known.spec is None:
                raise Conflict(f"key {spec.key_id!r}: generation {spec.generation} was removed", known.generation)
            if (known.spec.uuid, known.spec.flow, known.spec.inbounds) != (spec.uuid, spec.flow, spec.inbounds):
                raise Conflict(
                    f"key {spec.key_id!r}: generation {spec.generation} is known with another UUID, flow or inbounds",
                    known.generation,
                )
            spec = attrs.evolve(spec, expires_at=_later(known.spec.expires_at, spec.expires_at))
            if spec == known.spec:
                return None
        owner = self._owners.get(route_blind(spec.uuid))
        if owner not in (None, spec.key_id):
            assert owner is not None
            raise UuidTaken(owner)
        return Entry(spec.key_id, spec.generation, spec, self.sequence + 1, now)

    def decide_remove(self, key_id: str, generation: int, now: float) -> Entry | None:
        """The change that removes a key up to this generation, or None if that is already known. Raises Conflict if a
        newer generation is wanted."""
        known = self._entries.get(key_id)
        if known is not None:
            if known.spec is not None and known.generation > generation:
                raise Conflict(
                    f"key {key_id!r}: generation {known.generation} is wanted, newer than the {generation} to remove",
                    known.generation,
                )
            if known.spec is None and known.generation >= generation:
                return None
        return Entry(key_id, generation, None, self.sequence + 1, now)

    def apply(self, change: Change) -> None:
        """Make a change that was decided here or read from the file. Never refuses."""
        self.sequence = max(self.sequence, change.sequence)
        if isinstance(change, Ended):
            self.ended_upto = change.upto
            return
        known = self._entries.pop(change.key_id, None)
        if known is not None and known.spec is not None:
            self._digest ^= key_digest(known.spec)
            del self._owners[route_blind(known.spec.uuid)]
            del self._wanted[bisect_left(self._wanted, change.key_id)]
        if isinstance(change, Entry):
            self._entries[change.key_id] = change
            self.last_generation = max(self.last_generation, change.generation)
            if change.spec is not None:
                self._digest ^= key_digest(change.spec)
                self._owners[route_blind(change.spec.uuid)] = change.key_id
                insort(self._wanted, change.key_id)
