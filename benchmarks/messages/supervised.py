"""Counters under a supervisor that restarts at once, without a limit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from runtime import NO_BACKOFF, Actor, Address, ChildSpec, DynamicSupervisor, GiveUp, Services, StopCause, StopReason


def spec(name: str, make: Callable[[], Actor], services: Services) -> ChildSpec:
    """A child of that name, known to the registry."""

    def start() -> Address:
        address = Address(name, make, services)
        services.registry.add(address)
        return address

    return ChildSpec(name, start, backoff=NO_BACKOFF, give_up=GiveUp.NEVER)


@asynccontextmanager
async def supervisor(make: Callable[[], Actor], services: Services) -> AsyncIterator[DynamicSupervisor[[str]]]:
    """A running supervisor, stopped at the end; `start_child(name)` adds an actor."""
    found: DynamicSupervisor[[str]] = DynamicSupervisor(
        "benchmark", lambda name: spec(name, make, services), emit=services.events.emit
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(found.run, 1)
        yield found
        found.request_stop(StopReason(StopCause.SHUTDOWN, "measured"))
