"""Operating-system child processes that never outlive the supervisor.

A child runs in a session of its own, so that a terminal's Ctrl-C reaches only the supervisor, which then stops its
children in order. It carries a parent-death signal, so that a SIGKILL of the supervisor leaves none behind. Its end
is seen through a pidfd: no SIGCHLD handler, no waiting thread.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs
import trio

PIPE: Final = subprocess.PIPE
DEVNULL: Final = subprocess.DEVNULL
INHERIT: Final = None

_PR_SET_PDEATHSIG: Final = 1
_REAP_SECONDS: Final = 5.0
_LONGEST_LINE: Final = 64 * 1024
# Resolved before any fork: the child must not import or look up anything between fork and exec.
_prctl = ctypes.CDLL(None, use_errno=True).prctl


class ChildNotReaped(RuntimeError):
    """The kernel did not report the end of a killed child in time (a process stuck in an uninterruptible call)."""


@attrs.define(eq=False)
class ChildProcess:
    """A running child; made by `spawn`. Safe to wait for from several tasks at once."""

    name: str
    _popen: subprocess.Popen[bytes]
    stdin: trio.lowlevel.FdStream | None
    "The child's standard input, if it was kept open; closing it tells the child that its parent is done."
    stdout: trio.lowlevel.FdStream | None
    stderr: trio.lowlevel.FdStream | None

    @property
    def pid(self) -> int:
        """The process id, which is also the id of the child's session and process group."""
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """The exit status (negative: the signal that ended it), or None while it runs."""
        return self._popen.poll()

    async def wait(self) -> int:
        """Wait for the child's end and return its exit status. Cancelling the wait leaves the child running."""
        await trio.lowlevel.checkpoint()
        while (status := self._popen.poll()) is None:
            # One pidfd a waiter: trio lets only one task wait on a descriptor.
            try:
                pidfd = os.pidfd_open(self.pid)
            except ProcessLookupError:
                continue
            try:
                await trio.lowlevel.wait_readable(pidfd)
            finally:
                os.close(pidfd)
        return status

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the child alone; does nothing once it has ended."""
        self._popen.send_signal(number)

    def kill(self) -> None:
        """SIGKILL the child and everything in its process group; does nothing once it has ended."""
        if self._popen.poll() is None:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                self._popen.kill()

    async def stop(self, number: signal.Signals = signal.SIGTERM, *, grace: float) -> int:
        """Ask the child to end with `number`, wait `grace` seconds, then kill its group. Returns the exit status.

        Raises `ChildNotReaped` if even SIGKILL did not end it within five seconds. If cancelled, the child is killed
        first.
        """
        self.send_signal(number)
        try:
            with trio.move_on_after(grace):
                return await self.wait()
        finally:
            self.kill()
        return await self._reap()

    async def keep(self, number: signal.Signals = signal.SIGTERM, *, grace: float) -> int:
        """Wait until it has ended, and return its status as `wait` does.

        However this is left, also by a cancellation, it is ended as by `stop(number, grace=grace)`, and closed: a task that does
        this keeps the process from outliving its owner, whatever the owner dies of.
        """
        try:
            return await self.wait()
        finally:
            with trio.CancelScope(shield=True):
                await self.stop(number, grace=grace)
                await self.close()

    async def close(self) -> None:
        """Kill the child if it still runs, reap it and close its pipes. Works inside a cancelled scope."""
        self.kill()
        with trio.CancelScope(shield=True):
            await self._reap()
            for stream in (self.stdin, self.stdout, self.stderr):
                if stream is not None:
                    await stream.aclose()

    async def _reap(self) -> int:
        with trio.move_on_after(_REAP_SECONDS):
            return await self.wait()
        raise ChildNotReaped(
            f"{self.name} (pid {self.pid}) has not ended {_REAP_SECONDS:g} s after SIGKILL: it is stuck in the kernel, "
            f"usually in disk or network storage; look at /proc/{self.pid}/stack"
        )


class lines:  # noqa: N801 - read as a function: `async for line in lines(stream)`
    """What a child writes, line by line, until it ends or the stream is closed here. May be left and taken up again.

    A line longer than 64 KiB is given in pieces of that size; what is not UTF-8 is replaced.
    """

    def __init__(self, stream: trio.lowlevel.FdStream) -> None:
        self._stream = stream
        self._whole: deque[bytes] = deque()
        self._pending = b""
        self._ended = False

    def __aiter__(self) -> lines:
        return self

    async def __anext__(self) -> str:
        while not self._whole:
            if self._ended:
                raise StopAsyncIteration
            await self._receive()
        return self._whole.popleft().decode(errors="replace")

    async def _receive(self) -> None:
        try:
            part = await self._stream.receive_some()
        except trio.ClosedResourceError:
            part = b""
        *whole, self._pending = (self._pending + part).split(b"\n")
        self._whole += whole
        self._ended = not part
        if self._pending and (self._ended or len(self._pending) > _LONGEST_LINE):
            self._whole.append(self._pending)
            self._pending = b""


def spawn(
    argv: Sequence[str | os.PathLike[str]],
    *,
    name: str,
    user: int | str | None = None,
    group: int | str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    stdin: bytes | None = None,
    keep_stdin: bool = False,
    stdout: int | None = DEVNULL,
    stderr: int | None = INHERIT,
    death_signal: signal.Signals = signal.SIGKILL,
) -> ChildProcess:
    """Start a child process and return at once.

    `stdin` is given to the child whole, followed by end of file; `keep_stdin` opens a pipe instead, kept until it is
    closed by the caller or by the caller's death. `stdout` and `stderr` take a descriptor, `PIPE`, `DEVNULL` or
    `INHERIT`. `death_signal` is what the kernel sends the child when this process dies.

    Must be called on the main thread, because the parent-death signal fires when the *thread* that forked ends:
    anything else raises RuntimeError. Raises OSError if the program cannot be started (not found, not executable).
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            f"{name}: children are started on the main thread only (parent-death signals follow the thread)"
        )
    if stdin is not None and keep_stdin:
        raise ValueError(f"{name}: give the child its whole input, or keep the pipe open, not both")
    input_fd = _input_descriptor(name, stdin, keep_stdin=keep_stdin)
    try:
        popen = subprocess.Popen(
            [os.fspath(part) for part in argv],
            stdin=input_fd,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
            env=None if env is None else dict(env),
            user=user,
            group=group,
            extra_groups=None if user is None else [],
            start_new_session=True,
            # runs in the child after the change of user, which clears the signal
            preexec_fn=_tie_to_parent(death_signal),
        )
    finally:
        if stdin is not None:
            os.close(input_fd)
    return ChildProcess(
        name=name,
        popen=popen,
        stdin=_stream(popen.stdin),
        stdout=_stream(popen.stdout),
        stderr=_stream(popen.stderr),
    )


def _input_descriptor(name: str, data: bytes | None, *, keep_stdin: bool) -> int:
    if keep_stdin:
        return PIPE
    if data is None:
        return DEVNULL
    # A file in memory, not a pipe: a pipe holds 64 KiB and would block the loop beyond that.
    descriptor = os.memfd_create(Path(name).name)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _tie_to_parent(number: signal.Signals) -> Callable[[], None]:
    parent = os.getpid()

    def tie() -> None:
        _prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:  # it died before the signal was set
            os._exit(1)

    return tie


def _stream(pipe: object) -> trio.lowlevel.FdStream | None:
    if pipe is None:
        return None
    assert hasattr(pipe, "fileno") and hasattr(pipe, "close")
    stream = trio.lowlevel.FdStream(os.dup(pipe.fileno()))
    pipe.close()
    return stream
