"""A running system as what looks at it and acts on it needs it: `runtime.system` is above, and fits."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn, Protocol

from runtime.config.config import Config
from runtime.config.tree import ChildPlan
from runtime.core.drain import DrainingAddress
from runtime.core.services import Registry, Services
from runtime.operations.crashes import CrashReports
from runtime.operations.tree import Tree
from runtime.watchdog.systemd import Systemd
from runtime.watchdog.watchdog import Watchdog
from runtime.watchdog.worker_states import WorkerStates


class RunningSystem(Protocol):
    """One tree of actors with everything around it, from the start of its control socket to its end."""

    config: Config
    """The configuration that runs; a reload puts another in its place."""
    name: str
    socket: Path
    """The control socket."""
    services: Services
    registry: Registry
    addresses: dict[str, DrainingAddress]
    """The declared actors by name."""
    plans: dict[str, ChildPlan]
    """How each declared actor is made, by name."""
    tree: Tree
    crashes: CrashReports
    worker_states: WorkerStates
    started_at: float
    """Wall clock, seconds since the epoch."""
    is_up: bool
    """Whether every child has served once."""
    systemd: Systemd
    watchdog: Watchdog | None
    """None where `[watchdog] enabled = false`, and before it runs."""

    @property
    def uptime(self) -> float:
        """Seconds since the start began."""
        ...

    @property
    def is_stopping(self) -> bool:
        """Whether the system was asked to stop."""
        ...

    def stop(self, why: str, *, within: float | None = None, drain: bool = False) -> None:
        """Ask the whole system to stop in order; may be repeated with less time.

        `within` is in seconds and defaults to `[supervisor] shutdown_budget`; `drain` lets actors handle first what their
        mailboxes have accepted.
        """
        ...

    def leave_now(self, why: str) -> NoReturn:
        """Flush the log and end the process at once, whatever still runs. Exit code 75."""
        ...
