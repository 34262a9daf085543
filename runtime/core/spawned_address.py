"""The address of a spawned actor."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import attrs
import trio

from runtime.child import ChildSpec, Exit, ExitReason
from runtime.core.actor import Actor
from runtime.core.drain import DrainingAddress
from runtime.core.spawned import ChildSupervisor, SpawnOptions

if TYPE_CHECKING:
    from runtime.core.services import Services

_NAME: Final = re.compile(r"[A-Za-z0-9_.:@+-]{1,100}")


class SpawnedAddress(DrainingAddress):
    """The address of an actor that another one has spawned."""

    parent: str
    """The name of the actor that spawned it."""
    outlives: bool
    """Whether it lives on without that actor."""
    spec: ChildSpec
    kind: type[Actor]
    family: str
    """The declared actor that it descends from: metrics are kept for families, not for each of their members."""
    supervisor: ChildSupervisor
    when_ended: Callable[[], None] | None = None
    """Called when its task has really ended, though its supervisor gave it up before."""

    @property
    def metric_label(self) -> str:
        """One label for all descendants of a declared actor."""
        return f"{self.family}.*"

    @property
    def is_needed_by_all(self) -> bool:
        """One of many that were spawned is not what the whole service waits for."""
        return False

    declined: str = ""
    """Why it declined to run, if it did."""
    when_released: Callable[[], None] | None = None
    """Called when it is gone and its name is free."""

    is_leaving: bool = False
    """It has idled and is being stopped: the next one of its key waits until it is gone."""

    @property
    def gone(self) -> trio.Event:
        """Set when it is gone and its name is free."""
        return self.__dict__.setdefault("_gone", trio.Event())  # type: ignore[no-any-return]  # made when first wanted

    def on_exit(self, exit: Exit) -> None:  # noqa: A002  # the record's name in the whole runtime
        """See Address.on_exit."""
        if exit.reason is ExitReason.IGNORED:
            self.declined = exit.detail
        super().on_exit(exit)

    def released(self) -> None:
        """It is gone, and its name is free."""
        self.gone.set()
        if self.when_released is not None:
            self.when_released()

    async def run(self, incarnation: int, *, task_status: trio.TaskStatus[None]) -> None:
        """See Address.run."""
        try:
            await super().run(incarnation, task_status=task_status)
        finally:
            if self.when_ended is not None:
                self.when_ended()


def new_address(
    services: Services, parent: str, name: str, actor: Actor, options: SpawnOptions, *, outlives: bool
) -> SpawnedAddress:
    """An address that nobody knows yet. Each incarnation gets a fresh copy of `actor`'s start arguments.

    Raises ValueError for a name that is none.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name for a child: 1 to 100 letters, digits and any of _ . : @ + -")
    address = SpawnedAddress(
        f"{parent}.{name}",
        lambda: attrs.evolve(actor),
        services,
        capacity=options.capacity,
        overflow=options.overflow,
        stop_timeout=options.shutdown,
    )
    address.parent, address.outlives, address.kind = parent, outlives, type(actor)
    known = services.spawned.get(parent)
    address.family = parent if known is None else known.family
    address.spec = options.spec(address)
    address.start_soon = _start_soon
    return address


def _start_soon(function: Callable[..., Awaitable[None]], *args: object) -> None:
    # It ends by itself, and nothing waits for it.
    trio.lowlevel.spawn_system_task(function, *args)
