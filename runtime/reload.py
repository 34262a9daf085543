"""SIGHUP: apply what is safe to change in a running system, and say what is not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs

from runtime import logs
from runtime.config.config import Config
from runtime.config.loader import load
from runtime.config.problem import ConfigErrors
from runtime.system_events import ConfigReloaded, ReloadRefused
from runtime.watchdog import limits_of

if TYPE_CHECKING:
    from runtime.system import System

_INTERVAL = re.compile(r"actor\..+\.args\.interval$")


class Reloader:
    """Reads the configuration again and compares it with the running one, key by key."""

    def __init__(self, system: System) -> None:
        self._system = system

    def reload(self, why: str) -> ConfigReloaded | ReloadRefused:
        """Apply the log's level and format, the watchdog's limits and workers' intervals; report the rest as waiting.

        A configuration with errors changes nothing. An interval holds from the actor's next incarnation on. Secrets inside
        files are not compared.
        """
        event = self._reload(why)
        self._system.services.events.emit(event)
        return event

    def _reload(self, why: str) -> ConfigReloaded | ReloadRefused:
        system, running = self._system, self._system.config
        if running.path is None:
            return ReloadRefused(system.name, f"{why}: it was not loaded from a file")
        try:
            fresh = load(running.path)
        except ConfigErrors as error:
            return ReloadRefused(system.name, "; ".join(str(problem) for problem in error.problems))
        changed = sorted(
            key
            for key in running.values.keys() | fresh.values.keys()
            if running.values.get(key) != fresh.values.get(key)
        )
        applied = [key for key in changed if key.startswith(("log.", "watchdog.")) or _INTERVAL.fullmatch(key)]
        self._apply(fresh, applied)
        return ConfigReloaded(system.name, tuple(applied), tuple(key for key in changed if key not in applied))

    def _apply(self, fresh: Config, applied: list[str]) -> None:
        system, running = self._system, self._system.config
        logs.reconfigure(fresh.log.level, fresh.log.format)
        if system.watchdog is not None:
            system.watchdog.limits = limits_of(fresh.watchdog)
        for plan in fresh.children:
            known = system.plans.get(plan.name)
            if known is not None:
                arguments = {key: value for key, value in known.arguments.items() if key != "interval"}
                arguments |= {key: value for key, value in plan.arguments.items() if key == "interval"}
                system.plans[plan.name] = attrs.evolve(known, arguments=arguments)
        kept = {key: value for key, value in running.values.items() if key not in applied}
        kept |= {key: fresh.values[key] for key in applied if key in fresh.values}
        system.config = attrs.evolve(running, log=fresh.log, watchdog=fresh.watchdog, values=kept)
