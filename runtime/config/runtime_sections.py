"""The sections that belong to the runtime itself. All durations are seconds. Light to import: no actor, no loop."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import attrs
from attrs.validators import and_, ge, gt, le, matches_re

from runtime.child import AutoShutdown, Strategy
from runtime.config.secret import Secret
from runtime.config.section import settings
from runtime.crash_report import DEFAULT_SIZE

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
"""What a system, an actor or a section entry may be called."""


@settings("supervisor")
@attrs.frozen
class SupervisorSettings:
    """`[supervisor]`: the root of the tree."""

    name: str = attrs.field(default="atlas", validator=matches_re(NAME))
    """The system's name: in logs, in the default control socket, in `application_name`."""
    strategy: Strategy = Strategy.ONE_FOR_ONE
    intensity: int = attrs.field(default=5, validator=ge(0))
    """Restart attempts allowed within `period` before the root gives up."""
    period: float = attrs.field(default=60.0, validator=gt(0))
    auto_shutdown: AutoShutdown = AutoShutdown.NEVER
    """Whether the end of significant children ends the process."""
    shutdown_budget: float = attrs.field(default=30.0, validator=gt(0))
    """The whole ordered stop takes no longer than this; what still runs then is cancelled."""
    second_signal_budget: float = attrs.field(default=5.0, validator=ge(0))
    """What is left of the budget after a second TERM or INT."""
    next_steps: tuple[str, ...] = ()
    """Lines for the end of the start screen: what to type next."""


@settings("log")
@attrs.frozen
class LogSettings:
    """`[log]`; reloaded by SIGHUP."""

    level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    format: Literal["text", "json"] = "text"
    crash_report: int = attrs.field(default=DEFAULT_SIZE, validator=and_(ge(1_000), le(1_000_000)))
    """Characters of a crash report's traceback, and of the actor's state in it; the middle of a longer one is left out."""


def _beyond_every_limit(watchdog: WatchdogSettings, _: object, delay: float | None) -> None:
    """The timer in C knows nothing but the clock: whatever else may end the process must have had its turn before."""
    longest = max(watchdog.event_loop_stale, watchdog.worker_stale, watchdog.healthcheck_stale)
    if delay is not None and delay <= longest + 2 * watchdog.interval:
        raise ValueError(
            f"must be more than the longest stale limit and two intervals = {longest + 2 * watchdog.interval:g} s, or the timer "
            f"would end what the other rings still report and repair, got {delay:g}"
        )


def _reachable(watchdog: WatchdogSettings, _: object, period: float) -> None:
    """A child is repaired once in `worker_stale` at most: in a shorter period its repairs could never become too many."""
    needed = watchdog.repair_intensity * watchdog.worker_stale
    if period < needed:
        raise ValueError(
            f"must be at least repair_intensity × worker_stale = {needed:g} s, or a child that stands still for ever would be "
            f"repaired for ever, got {period:g}"
        )


def _pingable(_watchdog: WatchdogSettings, _: object, url: Secret) -> None:
    if url and re.fullmatch(r"https?://[^\s/?#]+\S*", url.reveal()) is None:
        raise ValueError("must be an address that begins with http:// or https://")


@settings("watchdog")
@attrs.frozen
class WatchdogSettings:
    """`[watchdog]`: when a beat is stale; reloaded by SIGHUP."""

    enabled: bool = True
    interval: float = attrs.field(default=5.0, validator=gt(0))
    """Seconds between two looks at the beats."""
    healthcheck: str = attrs.field(default="healthcheck", validator=matches_re(NAME))
    """The child that keeps the health check's beat."""
    loop_blocked: float = attrs.field(default=5.0, validator=gt(0))
    """The loop has not turned for so long: it is reported with its stack, long before it is stale."""
    event_loop_stale: float = attrs.field(default=60.0, validator=gt(0))
    worker_stale: float = attrs.field(default=90.0, validator=gt(0))
    healthcheck_stale: float = attrs.field(default=90.0, validator=gt(0))
    worker_critical: float = attrs.field(default=120.0, validator=gt(0))
    """A worker stale for longer than this, together with a recent wait spike, is reported as CRITICAL."""
    spike_window: float = attrs.field(default=300.0, validator=gt(0))
    """How long a wait spike counts as recent."""
    repair_intensity: int = attrs.field(default=5, validator=ge(0))
    """Repairs of one child within `repair_period`; one more, and its `give_up` decides what follows."""
    repair_period: float = attrs.field(default=3600.0, validator=and_(gt(0), _reachable))
    ping_url: Secret = attrs.field(factory=Secret, validator=_pingable)
    """Fetched while all is well, so that silence is the alarm: http or https, of a counter outside of this machine. Without one,
    nothing is pinged."""
    ping_interval: float = attrs.field(default=60.0, validator=gt(0))
    """Seconds between two pings."""
    gil_timer: float | None = attrs.field(default=None, validator=_beyond_every_limit)
    """Code has held the interpreter for so long: the timer in C ends the process. By default the longest stale limit, two
    intervals and ten seconds."""


@settings("control")
@attrs.frozen
class ControlSettings:
    """`[control]`: the operators' socket."""

    socket: Path | None = None
    """Default: `control/<name>.sock` in the installation's data directory, with the name of `[supervisor]`."""
    max_request: int = attrs.field(default=65536, validator=and_(ge(1024), le(16 * 1024 * 1024)))
    """Bytes of the longest request line."""
    max_connections: int = attrs.field(default=32, validator=and_(ge(1), le(1024)))
    idle_timeout: float = attrs.field(default=30.0, validator=gt(0))
    """Seconds a connection may stay silent before it is closed, and an unread answer may wait."""


@settings("chaos")
@attrs.frozen
class ChaosSettings:
    """`[chaos]`: tools that break things on purpose."""

    failpoints: bool = False
    """Allow `atlas kill NAME --at POINT`, which crashes an actor at a named place of its code."""


OWN_SECTIONS = (SupervisorSettings, LogSettings, WatchdogSettings, ControlSettings, ChaosSettings)
OWN_TABLES = frozenset(
    {"supervisor", "log", "watchdog", "control", "chaos", "operators", "actor", "group", "env_aliases"}
)
