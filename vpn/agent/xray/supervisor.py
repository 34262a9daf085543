"""Keeping Xray running, each time from the keys that are wanted at that moment."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import attrs
import trio

from runtime import get_logger, redact
from vpn.agent.state import files
from vpn.agent.xray.instance import XrayInstance
from vpn.errors import XrayCannotListen, XrayConfigRefused, XrayDown, XrayError
from vpn.xray.access_log import Access, Connections, parse_access
from vpn.xray.api import XrayApi, XrayUser
from vpn.xray.config import Inbound, server_config
from vpn.xray.cutter import CutMethod, Cutter, cut_method
from vpn.xray.grpc import GrpcChannel
from vpn.xray.process import XrayProcess

log = get_logger(__name__)

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
_CALM: Final = 60.0
_SOCKET: Final = "xray.sock"


@attrs.define(eq=False)
class XraySupervisor:
    """Runs Xray again and again, always from the users that `users` returns at that moment.

    An Xray that does not start, the first time too, is started again and again with a pause of 0.1 s doubling to 5 s: the
    agent answers meanwhile and says why, which a process that has ended cannot.
    `on_access` is called for every request that Xray let in, with the instance that did. `clock` gives Unix seconds.
    """

    directory: Path
    inbound: Inbound
    reaches: Sequence[str]
    users: Callable[[], list[XrayUser]]
    on_access: Callable[[XrayInstance, Access], None]
    clock: Callable[[], float]
    why_down: str = attrs.field(init=False, default="Xray is starting")
    starts: int = attrs.field(init=False, default=0)
    ends: int = attrs.field(init=False, default=0)
    "How often Xray ended, or could not be started, without being asked to."
    last_end: str = attrs.field(init=False, default="")
    "How it ended last."
    is_refused: bool = attrs.field(init=False, default=False)
    "Whether it did not start at the last try because of its configuration."
    _in_a_row: int = attrs.field(init=False, default=0)
    _not_started: int = attrs.field(init=False, default=0)  # of those, the last ones, that a start proves to be mended
    _began: float = attrs.field(init=False, default=0.0)
    _instance: XrayInstance | None = attrs.field(init=False, default=None)
    _changed: trio.Event = attrs.field(init=False, factory=trio.Event)
    _restart: trio.CancelScope | None = attrs.field(init=False, default=None)

    @property
    def ends_in_a_row(self) -> int:
        """How often it ended, or could not be started, since it last ran for a minute. Once it runs, that its configuration
        was refused or its port was taken before counts no more: that is mended."""
        is_calm = self._instance is not None and trio.current_time() - self._began > _CALM
        return 0 if is_calm else self._in_a_row

    @property
    def current(self) -> XrayInstance | None:
        """The running instance, or None while Xray is down."""
        return self._instance

    async def instance(self, within: float = 5.0) -> XrayInstance:
        """The running instance, waiting for it while Xray starts. Raises XrayDown after `within` seconds."""
        with trio.move_on_after(within):
            while self._instance is None:
                await self._changed.wait()
            return self._instance
        raise XrayDown(f"Xray is not up after {within:g} s: {self.why_down}")

    async def has_ended(self, instance: XrayInstance, within: float = 0.5) -> bool:
        """Whether this instance has ended, or ends within `within` seconds: a call may fail before the end of the
        process is seen.
        """
        with trio.move_on_after(within):
            while self._instance is instance:
                await self._changed.wait()
        return self._instance is not instance

    def restart(self) -> None:
        """End the running instance now and begin another from the wanted users.

        This cuts every customer: only for an instance that never served one. An instance that serves none just now may
        still carry connections.
        """
        if self._restart is not None:
            self._set(None, "Xray is restarting to take on many keys at once")
            self._restart.cancel()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep Xray alive until cancelled. `started` once the first instance accepts connections, or could not be started.
        Raises StoreUnreadable if there is no place for its sockets."""
        run_directory = self.directory / "xray"
        files.make_private_directory(run_directory)
        # By descriptor, because a socket's path may not be longer than 107 bytes and a data directory's may.
        descriptor = os.open(run_directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        is_told = False
        try:
            while True:
                self._began = trio.current_time()
                asked = False
                try:
                    with trio.CancelScope() as self._restart:
                        await self._run_once(run_directory, descriptor, None if is_told else task_status)
                    asked = self._restart.cancelled_caught
                except XrayError as error:
                    self.last_end = redact(str(error))
                    self.is_refused = isinstance(error, XrayConfigRefused)
                    self._set(None, self.last_end)
                    if self.starts == 0 and not is_told:
                        task_status.started()
                    log.error(  # noqa: TRY400  # the reason says all; a trace of our own code says nothing about Xray
                        "Xray could not be started",
                        reason=redact(str(error)),
                        next_try_seconds=self._pause(self._in_a_row + 1),
                    )
                    # one that crashed as it started may do so again; these two are over once it does start
                    is_mendable = isinstance(error, XrayConfigRefused | XrayCannotListen)
                    self._not_started = self._not_started + 1 if is_mendable else 0
                finally:
                    self._restart = None
                    is_told = True
                if asked:
                    continue
                self.ends += 1
                self._in_a_row = 1 if trio.current_time() - self._began > _CALM else self._in_a_row + 1
                await trio.sleep(self._pause(self._in_a_row))
        finally:
            os.close(descriptor)

    def _pause(self, failures: int) -> float:
        return 0.0 if failures <= 1 else min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** (failures - 2))

    async def _run_once(self, run_directory: Path, descriptor: int, task_status: trio.TaskStatus[None] | None) -> None:
        for name in (_SOCKET, f"{_SOCKET}.lock"):
            (run_directory / name).unlink(missing_ok=True)
        users = self.users()
        connections = Connections()
        process = XrayProcess(
            name="xray",
            config=server_config(self.inbound, users, f"/proc/self/cwd/{_SOCKET}", allow=self.reaches),
            listening_on=f"{self.inbound.listen}:{self.inbound.port}",
            cwd=run_directory,
            on_line=lambda line: self._line(connections, line),
        )
        channel = GrpcChannel(f"/proc/self/fd/{descriptor}/{_SOCKET}")
        outcome: XrayError | None = None
        status = 0
        try:
            async with trio.open_nursery() as nursery:

                async def until_end(*, task_status: trio.TaskStatus[None]) -> None:
                    nonlocal outcome, status
                    try:
                        status = await process.run(task_status=task_status)
                    except XrayError as error:
                        outcome = error
                        task_status.started()

                await nursery.start(until_end)
                if outcome is None:
                    self._begin(process, users, XrayApi(channel, self.inbound.protocol), connections)
                    if task_status is not None:
                        task_status.started()
        finally:
            how = f"it ended with status {status}{process.last_words}"
            self._set(None, self.why_down if self._instance is None else f"Xray is being restarted: {how}")
            with trio.CancelScope(shield=True), trio.move_on_after(1):
                await channel.aclose()
        if outcome is not None:
            raise outcome
        self.last_end = how
        log.error("Xray ended; it is started again with all keys", reason=how)

    def _begin(self, process: XrayProcess, users: Sequence[XrayUser], api: XrayApi, connections: Connections) -> None:
        method = cut_method(process.pid)
        if method is CutMethod.NONE:
            log.warning(
                "connections of removed customers cannot be cut on this host: it forbids both pidfd_getfd and SOCK_DESTROY; "
                "allow the former (SYS_PTRACE in a container) or give the agent NET_ADMIN"
            )
        self.starts += 1
        self.is_refused = False
        self._in_a_row -= self._not_started
        self._not_started = 0
        instance = XrayInstance(
            boot_id=secrets.token_hex(8),
            version=process.version,
            pid=process.pid,
            started_at=self.clock(),
            api=api,
            cutter=Cutter(process.pid, self.inbound.port, method),
            connections=connections,
        )
        for user in users:
            instance.mark_serving(user)
        self._set(instance, "")
        log.info(
            "Xray accepts connections",
            version=instance.version,
            pid=instance.pid,
            keys=len(users),
            boot_id=instance.boot_id,
        )

    def _set(self, instance: XrayInstance | None, why_down: str) -> None:
        self._instance = instance
        self.why_down = why_down
        self._changed.set()
        self._changed = trio.Event()

    def _line(self, connections: Connections, line: str) -> None:
        access = parse_access(line)
        if access is None:
            log.debug("xray", line=redact(line))
        else:
            connections.add(access)
            if self._instance is not None:
                self.on_access(self._instance, access)
