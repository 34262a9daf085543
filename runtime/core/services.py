"""`Services`: what all actors of one system share; and `Registry`: its actors by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import attrs

from runtime.core.beats import Beats
from runtime.core.deadletters import DeadLetters
from runtime.core.spawned import SpawnedActors
from runtime.core.topics import Topics
from runtime.errors import UnknownActor
from runtime.events import EventBus
from runtime.failpoints import Failpoints
from runtime.log.logs import log_event
from runtime.metrics import Metrics
from runtime.wording import nearest

if TYPE_CHECKING:
    from runtime.core.address import Address
    from runtime.core.ref import Ref


class Registry:
    """Name -> address of one system. A name belongs to one address from `add` to `remove`, whatever runs behind it."""

    __slots__ = ("_addresses",)

    def __init__(self) -> None:
        self._addresses: dict[str, Address] = {}

    def add(self, address: Address) -> None:
        """Make an address known. Raises ValueError if its name is taken by another."""
        known = self._addresses.setdefault(address.name, address)
        if known is not address:
            raise ValueError(f"an actor named {address.name!r} exists already (its incarnation is {known.incarnation})")

    def remove(self, name: str) -> None:
        """Forget a name; unknown ones are ignored. Refs that exist go on working."""
        self._addresses.pop(name, None)

    def find(self, name: str) -> Address:
        """The address of a name. Raises UnknownActor with the nearest name."""
        try:
            return self._addresses[name]
        except KeyError:
            raise UnknownActor(name, nearest(name, self._addresses)) from None

    def lookup(self, name: str) -> Ref:
        """A reference by name. Raises UnknownActor with the nearest name."""
        return self.find(name).ref

    def __iter__(self) -> Iterator[Address]:
        return iter(tuple(self._addresses.values()))

    def __contains__(self, name: object) -> bool:
        return name in self._addresses

    def __len__(self) -> int:
        return len(self._addresses)


@attrs.frozen
class Services:
    """The process-wide parts of one system, made once before any actor and given to all."""

    events: EventBus = attrs.field(factory=lambda: EventBus(log=log_event))
    metrics: Metrics = attrs.field(factory=Metrics)
    beats: Beats = attrs.field(factory=Beats)
    failpoints: Failpoints = attrs.field(factory=Failpoints)
    deadletters: DeadLetters = attrs.field(factory=DeadLetters)
    registry: Registry = attrs.field(factory=Registry)
    topics: Topics = attrs.field(factory=Topics)
    """Who wants to hear of which announcements."""
    spawned: SpawnedActors = attrs.field(factory=SpawnedActors)
    """The actors that other actors have spawned."""
    config: object = None
    """The loaded configuration; its class is of no concern here."""
    system_name: str = "atlas"
    instance: str = ""
    """Tells this process from all others that live, and is the same after a restart; empty if there is only one."""

    def forget(self, address: Address) -> None:
        """Free the name of an address, and drop what is kept under it, if it is known by that name."""
        if address.name in self.registry and self.registry.find(address.name) is address:
            self.registry.remove(address.name)
            self.beats.forget(address.name)
