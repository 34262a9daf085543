"""The assembly: one System is one `atlas run`.

It owns the registry, the shared services, the root supervisor, the watchdog and the control server, and decides when and
with which exit code the process leaves. Boot rule: a child whose first start fails makes the whole start fail.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import NoReturn

import trio

from runtime.child import StopCause, StopReason
from runtime.config.config import Config
from runtime.config.tree import ChildPlan
from runtime.control import runtime_commands as _own_commands  # noqa: F401  # importing it adds the commands
from runtime.control.server import ControlServer
from runtime.control.socket import InstanceLock, instance_name, make_directory, socket_path
from runtime.core.drain import DrainingAddress
from runtime.core.services import Services
from runtime.crash_report import set_report_size
from runtime.error_text import error_text, message_of
from runtime.errors import AtlasError
from runtime.events import Event, EventBus
from runtime.failpoints import Failpoints
from runtime.log import logs
from runtime.log.writer import LogWriter
from runtime.metrics import METRICS
from runtime.operations.crashes import CrashReports
from runtime.operations.events import SystemStarted, SystemStopped, SystemStopping
from runtime.operations.metrics import publish
from runtime.operations.operations import Operations, why_declined
from runtime.operations.reload import Reloader
from runtime.operations.tree import Tree
from runtime.supervision.child_run import ChildrenUnstopped
from runtime.supervision.events import ChildExited, ChildParked, ChildStarted, Decision
from runtime.supervision.supervisor import ChildInfo, ChildState, open_tree_nursery
from runtime.system.signals import leave, print_last_words, watch_signals
from runtime.system.start_screen import ScreenLine, how_to_call_atlas, render, show
from runtime.system.watchdog_setup import make_dead_man_switch, make_watchdog
from runtime.watchdog.systemd import Systemd
from runtime.watchdog.watchdog import Watchdog
from runtime.watchdog.worker_states import WorkerStates

UNSTOPPED = 75
FAILED = 70
SCREEN_PATIENCE = 10.0
"""Seconds that the start screen waits for all actors to be ready."""
LOG_CHECK = 1.0
"""Seconds between two looks at the log's writer where no watchdog runs."""
_READINESS_POLL = 0.01

_running: ContextVar[System | None] = ContextVar("atlas_system", default=None)


def running_system() -> System:
    """The system that the calling task is part of. Raises RuntimeError outside of one (in most tests)."""
    system = _running.get()
    if system is None:
        raise RuntimeError("this task is not part of a running system")
    return system


class System:
    """One tree of actors with everything around it. `run` may be called once.

    `owns_process` says that the process ends with it; `leave` ends the process when something
    in it cannot be ended otherwise.
    """

    def __init__(
        self,
        config: Config,
        *,
        writer: LogWriter | None = None,
        leave: Callable[[int], NoReturn] = leave,
        owns_process: bool = False,
    ) -> None:
        self.config = config
        self.name = config.supervisor.name
        self.socket: Path = socket_path(config)
        self.services = Services(
            events=EventBus(log=logs.log_event),
            metrics=METRICS,
            failpoints=Failpoints(enabled=config.chaos.failpoints),
            config=config,
            system_name=self.name,
            instance=instance_name(self.socket),
        )
        self.registry = self.services.registry
        self.crashes = CrashReports(self.services.events)
        self.addresses: dict[str, DrainingAddress] = {}
        self.plans: dict[str, ChildPlan] = {plan.name: plan for plan in config.children}
        self.tree = Tree(config, self._address, self.services.events.emit, self.services.spawned)
        self.root = self.tree.root
        self.operations = Operations(self)
        self.reloader = Reloader(self)
        self.worker_states = WorkerStates(self.services.beats)
        self.started_at = time.time()
        self.is_up = False
        self.systemd = Systemd.from_environment()
        self.watchdog: Watchdog | None = None
        self._show_screen: trio.Event | None = None
        self._began = time.monotonic()
        self._writer = writer
        self._leave = leave
        self._owns_process = owns_process
        self._refused: str | None = None
        """The child that made the start of the system fail."""
        self._end_of_refusals = self.services.events.subscribe(self._note_start_refused, ChildExited)
        self._stop_deadline: float | None = None

    def _address(self, plan: ChildPlan) -> DrainingAddress:
        address = DrainingAddress(
            plan.name,
            lambda: self.plans[plan.name].make_actor(),
            self.services,
            capacity=plan.table.mailbox.capacity,
            overflow=plan.table.mailbox.overflow,
            stop_timeout=plan.table.shutdown,
        )
        self.addresses[plan.name] = address
        self.registry.add(address)
        return address

    @property
    def uptime(self) -> float:
        """Seconds since the start began."""
        return time.monotonic() - self._began

    @property
    def is_stopping(self) -> bool:
        """Whether the system was asked to stop."""
        return self._stop_deadline is not None

    async def run(self) -> int:
        """Start everything, serve until asked to stop or until that fails; returns the exit code.

        Raises StartRefused (69) when another process holds the control socket, ConfigError (78) when the socket cannot be
        where it should. Errors of the tree are printed to stderr and decide the exit code.
        """
        set_report_size(self.config.log.crash_report)
        make_directory(self.socket)
        lock = InstanceLock(self.socket)
        lock.acquire()
        token = _running.set(self)
        unsubscribe = [
            self.services.events.subscribe(self.worker_states.note, ChildParked, ChildStarted),
            publish(self),
            self._end_of_refusals,
            self.crashes.stop,
        ]
        try:
            control = ControlServer(self.socket, self, self.config.control)
            control.bind()
            code = await self._run_with(control)
            self.services.events.emit(SystemStopped(self.name, code, self.uptime))
            return code
        finally:
            for each in unsubscribe:
                each()
            _running.reset(token)
            lock.release()

    async def _run_with(self, control: ControlServer) -> int:
        async with trio.open_nursery() as nursery:
            with watch_signals(for_good=self._owns_process) as signals:
                nursery.start_soon(signals.serve, self)
                if self.config.watchdog.enabled:
                    self.watchdog = make_watchdog(self)
                    await nursery.start(self.watchdog.run)
                else:
                    nursery.start_soon(_check_the_log)
                switch = make_dead_man_switch(self)
                if switch is not None:
                    switch.start()
                nursery.start_soon(control.run)
                if self._writer is not None and self.config.log.format == "text":
                    self._show_screen = trio.Event()
                    nursery.start_soon(self._start_screen_when_ready, self._writer, self._show_screen)
                for address in self.addresses.values():
                    address.start_soon = nursery.start_soon
                for name, plan in self.plans.items():
                    if plan.table.paused:
                        self.operations.pause(name)
                try:
                    code = await self._run_tree()
                finally:
                    if switch is not None:
                        switch.stop()
                nursery.cancel_scope.cancel(reason="the tree is down")
        return code

    async def _run_tree(self) -> int:
        failure: Exception | None = None
        async with open_tree_nursery():
            try:
                await self.root.run(task_status=_CallOnStarted(self._up))
            except ChildrenUnstopped as error:
                failure = error
            except Exception as error:  # noqa: BLE001  # whatever ends the tree becomes an exit code, below
                failure = error
            if self.root.unstopped:
                # their tasks still exist and would keep the tree's nursery open for ever
                self._report(failure)
                self.services.events.emit(SystemStopped(self.name, UNSTOPPED, self.uptime))
                self._leave_for_good()
        return self._report(failure)

    def _report(self, failure: Exception | None) -> int:
        if failure is None:
            return 0
        code = failure.exit_code if isinstance(failure, AtlasError) else FAILED
        what = message_of(failure) if isinstance(failure, AtlasError) else error_text(failure)
        prefix = f"{self._refused} did not start: " if self._refused and self._refused not in what else ""
        if not isinstance(failure, AtlasError):
            logs.get_logger("atlas.system").error(f"{prefix}{what}", error=failure)
        print_last_words(f"error: {prefix}{what}")
        return code

    def _note_start_refused(self, event: Event) -> None:
        if isinstance(event, ChildExited) and event.decision is Decision.REFUSE_START and self._refused is None:
            self._refused = event.actor

    def _up(self) -> None:
        self.is_up = True
        self._end_of_refusals()
        self.systemd.ready()
        took = self.uptime
        self.services.events.emit(SystemStarted(self.name, os.getpid(), len(self.plans), took))
        if self._show_screen is not None:
            self._show_screen.set()

    async def _start_screen_when_ready(self, writer: LogWriter, is_up: trio.Event) -> None:
        """An operator acts on what the screen says, so it waits for readiness; and says what is not ready if that takes long."""
        await is_up.wait()
        with trio.move_on_after(SCREEN_PATIENCE):
            while not all(address.readiness[0] for address in self._expected_ready()):  # noqa: ASYNC110  nobody else waits for it
                await trio.sleep(_READINESS_POLL)
        show(writer, self.start_screen(self.uptime))

    def _expected_ready(self) -> list[DrainingAddress]:
        """Those who run: who declined to is never ready, and need not be."""
        return [self.addresses[child.name] for child in self._actors() if child.state is ChildState.RUNNING]

    def _actors(self) -> list[ChildInfo]:
        return [child for child in self.tree.children() if child.name in self.addresses]

    def start_screen(self, took: float) -> str:
        """What is running, where it listens, what to type next."""
        lines = []
        for child in self._actors():
            address = self.addresses[child.name]
            is_ready, why = address.readiness
            declined = why_declined(child)
            state = child.state.value if child.state is not ChildState.DOWN else f"down {child.reason}".rstrip()
            if declined is not None:
                state = f"not needed: {declined}"
            lines.append(ScreenLine(child.name, state, dict(address.facts), is_ready, why, is_needed=declined is None))
        call = how_to_call_atlas(Path(sys.executable), Path.cwd(), os.environ.get("PATH"))
        return render(self.name, took, lines, str(self.socket), self.config.supervisor.next_steps, call)

    def stop(self, why: str, *, within: float | None = None, drain: bool = False) -> None:
        """Ask the whole system to stop in order; may be repeated with less time. `within` defaults to the budget."""
        budget = self.config.supervisor.shutdown_budget if within is None else within
        deadline = trio.current_time() + budget
        self.services.events.emit(SystemStopping(self.name, why, drain, budget))
        self.systemd.stopping()
        if self._stop_deadline is None:
            for address in (*self.addresses.values(), *self.services.spawned):
                address.drains = address.drains or drain
        self._stop_deadline = min(deadline, self._stop_deadline or deadline)
        self.root.request_stop(StopReason(StopCause.SHUTDOWN, why, self._stop_deadline))

    def leave_now(self, why: str) -> NoReturn:
        """The last resort of an operator: flush the log and leave, whatever still runs. Exit code 75."""
        print_last_words(f"error: {why}: leaving at once, without waiting for what still runs")
        self._leave_for_good()

    def _leave_for_good(self) -> NoReturn:
        self.socket.unlink(missing_ok=True)  # nothing behind it answers any more
        self._leave(UNSTOPPED)


async def _check_the_log() -> None:
    """What the watchdog does along with its own, where there is one."""
    while True:
        await trio.sleep(LOG_CHECK)
        logs.check()


class _CallOnStarted:
    """trio's task status protocol, for the root supervisor."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call

    def started(self, value: None = None) -> None:  # the protocol's signature
        self._call()


async def run_system(config: Config, *, writer: LogWriter | None = None) -> int:
    """Run a configuration until it is asked to stop; returns the exit code (0, 69, 70; 75 leaves the process).

    For a process that does nothing else: from then on it ignores TERM, INT and HUP.

    Raises what System.run raises. `writer` is the running log's; without it there is no start screen.
    """
    return await System(config, writer=writer, owns_process=True).run()
