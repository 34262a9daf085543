"""One run of Xray as a child process."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import attrs
import trio

from runtime import redact
from runtime.child_process import PIPE, ChildProcess, spawn
from vpn.errors import XrayCannotListen, XrayConfigRefused, XrayEnded
from vpn.xray.access_log import is_about_a_customer, parse_started
from vpn.xray.shim import LENGTH

EXIT_CONFIG_REFUSED: Final = 23
EXIT_CANNOT_LISTEN: Final = 255

_STOP_GRACE: Final = 2.0
_PIPE_BYTES: Final = 1 << 20
_LINE_LIMIT: Final = 64 * 1024
# The child gets no more of our environment than it needs: tokens and passwords may be in there.
_ENVIRONMENT: Final = (
    "PATH",
    "HOME",
    "LANG",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "PYTHONHOME",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)


def _no_line(_: str) -> None:
    return None


@attrs.define(eq=False)
class XrayProcess:
    """Xray as a child of this process, made to end with it. An object is for one run.

    Start `run` with `nursery.start`, which returns once Xray accepts connections. `on_line` is called for every line
    that Xray prints, as it is (redact before storing or logging it); it must not raise. `listening_on` says in words
    what Xray will listen on, for the error if it cannot. `started_within` is the time it may take, in seconds (15).
    """

    name: str
    config: Mapping[str, object] = attrs.field(repr=False)
    listening_on: str
    cwd: Path | None = None
    on_line: Callable[[str], None] = _no_line
    started_within: float = 15.0
    version: str = attrs.field(init=False, default="")
    pid: int = attrs.field(init=False, default=0)
    _tail: deque[str] = attrs.field(init=False, factory=lambda: deque(maxlen=5), repr=False)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> int:
        """Run Xray until it ends and return its exit status; cancelled, it ends Xray first (TERM, then KILL).

        Before it has started it raises XrayConfigRefused, XrayCannotListen or XrayEnded instead.
        """
        child = self._spawn()
        self.pid = child.pid
        try:
            return await self._run_child(child, task_status)
        finally:
            with trio.CancelScope(shield=True):
                if child.returncode is None:
                    await child.stop(signal.SIGTERM, grace=_STOP_GRACE)
                await child.close()

    def _spawn(self) -> ChildProcess:
        try:
            return spawn(
                # -P: the working directory belongs to the data, nothing is imported from there
                [sys.executable, "-P", "-m", "vpn.xray.shim"],
                name=self.name,
                env={key: os.environ[key] for key in _ENVIRONMENT if key in os.environ},
                cwd=self.cwd,
                keep_stdin=True,
                stdout=PIPE,
                stderr=PIPE,
            )
        except OSError as error:  # no memory, no process, no descriptor left: may pass
            raise XrayEnded(f"{self.name}: cannot start a process for Xray: {error.strerror}") from error

    async def _run_child(self, child: ChildProcess, task_status: trio.TaskStatus[None]) -> int:
        started = trio.Event()
        has_started = False
        async with trio.open_nursery() as nursery:
            self._widen(child)
            nursery.start_soon(self._read, child.stdout, started)
            nursery.start_soon(self._read, child.stderr, started)
            with trio.move_on_after(self.started_within) as limit:
                has_started = await self._starts(child, started)
            if has_started:
                task_status.started()
            if limit.cancelled_caught:
                nursery.cancel_scope.cancel()
            else:
                await child.wait()  # the readers end with it
        if limit.cancelled_caught:
            raise XrayEnded(
                f"{self.name}: Xray did not say within {self.started_within:g} s that it had started{self.last_words}"
            )
        status = await child.wait()
        if not has_started:
            raise self._why_ended(status)
        return status

    def _widen(self, child: ChildProcess) -> None:
        # Xray drops lines when the pipe is full: room for some ten thousand
        assert child.stdout is not None
        with contextlib.suppress(OSError):  # beyond what this user may have
            fcntl.fcntl(child.stdout.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    async def _starts(self, child: ChildProcess, started: trio.Event) -> bool:
        try:
            await self._send_config(child)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return False  # it ended already; its exit status says why
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                await child.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            await started.wait()
            nursery.cancel_scope.cancel()
        return started.is_set()

    async def _send_config(self, child: ChildProcess) -> None:
        assert child.stdin is not None
        data = json.dumps(self.config, separators=(",", ":")).encode()
        await child.stdin.send_all(LENGTH.pack(len(data)) + data)

    async def _read(self, stream: trio.lowlevel.FdStream | None, started: trio.Event) -> None:
        assert stream is not None
        buffer = b""
        while True:
            try:
                chunk = await stream.receive_some(64 * 1024)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            if not chunk:
                return
            *lines, buffer = (buffer + chunk).split(b"\n")
            if len(buffer) > _LINE_LIMIT:
                buffer = b""
            for raw in lines:
                line = raw.decode(errors="replace").rstrip("\r")
                if not line:
                    continue
                if not is_about_a_customer(line):
                    if (version := parse_started(line)) is None:
                        self._tail.append(line)
                    elif not started.is_set():
                        self.version = version
                        started.set()
                self.on_line(line)

    @property
    def last_words(self) -> str:
        """The last lines that it printed, for the end of a sentence: redacted, and without those about customers. Empty if
        there are none."""
        return f"; its last words: {redact(' | '.join(self._tail))}" if self._tail else ""

    def _why_ended(self, status: int) -> XrayConfigRefused | XrayCannotListen | XrayEnded:
        if status == EXIT_CONFIG_REFUSED:
            return XrayConfigRefused(f"{self.name}: configuration refused by Xray (exit status 23){self.last_words}")
        if status == EXIT_CANNOT_LISTEN:
            return XrayCannotListen(
                f"{self.name}: cannot listen on {self.listening_on} (exit status 255): the port is taken or not allowed, or, "
                f"if it is free, Xray does not take a value of its inbound{self.last_words}"
            )
        return XrayEnded(f"{self.name}: Xray ended with status {status} before it had started{self.last_words}")
