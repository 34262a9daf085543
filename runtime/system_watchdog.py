"""The watchdog of one system: how it repairs, and what it can tell an operator."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from runtime.errors import UnknownActor
from runtime.logs import get_logger
from runtime.supervision.errors import AdministrationError
from runtime.verdict import Repair
from runtime.watchdog import Watchdog, limits_of

if TYPE_CHECKING:
    from runtime.system import System

_log = get_logger("atlas.watchdog")


def make_watchdog(system: System) -> Watchdog:
    """A watchdog that restarts what is stale by killing it, so that its restart policy applies and is seen."""

    def repair(action: Repair) -> None:
        try:
            system.root.kill_child(action.name, f"the watchdog found it {action.why} for {action.age:.0f} s")
        except AdministrationError as error:
            _log.warning("a stale child is not up, so it cannot be restarted", actor=action.name, why=str(error))

    def diagnostic() -> Iterable[str]:
        return [f"{name}: {json.dumps(_inside(system, name), default=str)}" for name in system.services.beats.pools]

    def where(name: str) -> Sequence[str]:
        try:
            return system.registry.find(name).stack()
        except UnknownActor:
            return ()

    settings = system.config.watchdog
    return Watchdog(
        system.services.beats,
        limits_of(settings),
        interval=settings.interval,
        events=system.services.events,
        repair=repair,
        diagnostic=diagnostic,
        where=where,
        systemd=system.systemd,
    )


def _inside(system: System, name: str) -> object:
    """What an actor says of itself, whatever it is doing."""
    try:
        return system.registry.find(name).inspect()["actor"]
    except UnknownActor:
        return {}
