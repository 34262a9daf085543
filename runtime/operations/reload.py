"""SIGHUP: apply what is safe to change in a running system, and say what is not."""

from __future__ import annotations

from collections.abc import Set

import attrs

from runtime.config.config import Config
from runtime.config.config_file import dotted
from runtime.config.errors import ConfigErrors
from runtime.config.loader import load
from runtime.config.secret import with_new_secrets
from runtime.core.worker import PeriodicWorker
from runtime.crash_report import set_report_size
from runtime.log import logs
from runtime.message import WakeUp
from runtime.operations.events import ConfigReloaded, ReloadRefused
from runtime.operations.running import RunningSystem
from runtime.watchdog.watchdog import limits_of

_LIMITS = (
    "event_loop_stale",
    "worker_stale",
    "healthcheck_stale",
    "worker_critical",
    "spike_window",
    "repair_intensity",
    "repair_period",
    "loop_blocked",
    "gil_timer",
)
_APPLIED_AT_ONCE = frozenset(
    {"log.level", "log.format", "log.crash_report", *(f"watchdog.{limit}" for limit in _LIMITS)}
)
_OPERATORS = "operators."
"""Who may operate the system is asked at each command: a token that is taken out is void at once."""


AT_ONCE = "at once"
AT_NEXT_START = "next start"
RESTART = "restart"


def when_reloaded(key: str, *, is_secret: bool = False, is_worker: bool = False) -> str:
    """When a changed setting takes effect: AT_ONCE after `atlas reload`, AT_NEXT_START of the actor that takes it after that, or
    with a RESTART of the process alone.

    `key` is its dotted path; `is_secret` and `is_worker` say that it is a secret, and an argument of a periodic worker.
    """
    if key in _APPLIED_AT_ONCE or key.startswith(_OPERATORS):
        return AT_ONCE
    if is_secret and not key.startswith("watchdog."):
        return AT_NEXT_START
    if key.startswith("actor.") and key.endswith(".args.interval"):
        return AT_ONCE if is_worker else AT_NEXT_START
    return RESTART


class Reloader:
    """Reads the configuration again and compares it with the running one, key by key."""

    def __init__(self, system: RunningSystem) -> None:
        self._system = system

    def reload(self, why: str) -> ConfigReloaded | ReloadRefused:
        """Apply the log's settings, the watchdog's limits, the operators and actors' intervals; report the rest.

        A periodic worker whose interval changed runs at once and then by the new one; any other actor takes a new interval
        at its next start, and is reported so. Secrets are read again, from their files too: those that differ reach the
        actors that take them at their next start, and are named, never shown. A configuration with errors changes nothing.
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
        keys = running.values.keys() | fresh.values.keys()
        changed = {key for key in keys if running.values.get(key) != fresh.values.get(key)}
        applied = {
            key: key for key in changed if key in _APPLIED_AT_ONCE or key.startswith(_OPERATORS)
        } | self._apply_intervals(fresh, changed)
        secrets = self._apply_secrets(fresh)
        # the path of a file whose secret was taken over is what runs now, too
        applied |= {f"{key}_file": f"{key}_file" for key in secrets if f"{key}_file" in changed}
        logs.reconfigure(fresh.log.level, fresh.log.format)
        set_report_size(fresh.log.crash_report)
        if system.watchdog is not None:
            system.watchdog.limits = limits_of(fresh.watchdog)
        kept = {key: value for key, value in running.values.items() if key not in applied}
        kept |= {key: fresh.values[key] for key in applied if key in fresh.values}
        system.config = attrs.evolve(
            running.take_secrets(fresh), log=fresh.log, watchdog=fresh.watchdog, operators=fresh.operators, values=kept
        )
        told = sorted([*applied.values(), *secrets.values()])
        return ConfigReloaded(system.name, tuple(told), tuple(sorted(changed - applied.keys())))

    def _apply_secrets(self, fresh: Config) -> dict[str, str]:
        """Give the next incarnations the secrets that differ; returns their keys, each with the words that report it."""
        running = self._system.config.secrets
        differing = [key for key, secret in fresh.secrets.items() if running.get(key) != secret]
        affected: list[str] = []
        for plan in fresh.children:
            known = self._system.plans.get(plan.name)
            if known is None or not differing:
                continue
            arguments = with_new_secrets(known.arguments, plan.arguments)
            if arguments is not known.arguments:
                self._system.plans[plan.name] = attrs.evolve(known, arguments=arguments)
                affected.append(plan.name)
        by_whom = f"from the next start of {', '.join(affected)}" if affected else "nobody declared here takes it"
        return {key: f"{key} (a secret, {by_whom})" for key in differing}

    def _apply_intervals(self, fresh: Config, changed: Set[str]) -> dict[str, str]:
        """Give actors their new intervals; returns the keys, each with the words that report it."""
        applied: dict[str, str] = {}
        for plan in fresh.children:
            key = dotted(("actor", plan.declared, "args", "interval"))
            known = self._system.plans.get(plan.name)
            if known is None or key not in changed:
                continue
            arguments = {name: value for name, value in known.arguments.items() if name != "interval"}
            arguments |= {name: value for name, value in plan.arguments.items() if name == "interval"}
            known = self._system.plans[plan.name] = attrs.evolve(known, arguments=arguments)
            address = self._system.addresses[plan.name]
            if isinstance(address.actor, PeriodicWorker):
                made = known.make_actor()
                assert isinstance(made, PeriodicWorker), "the plan makes what runs"
                address.actor.interval = made.interval
                address.ref.tell(WakeUp())
                applied[key] = key
            else:
                applied[key] = f"{key} (from its next start)"
        return applied
