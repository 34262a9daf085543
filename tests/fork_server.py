"""Programs of ours without the second that a fresh interpreter needs to import one: forked from a process that has imported all.

Run as a module it is that process. What it forks does what `python -m PROGRAM` does, with the arguments, the environment, the
directory and the standard streams that it is given; its end is reported by a pidfd and its exit status through a pipe. That a
program also starts in an interpreter of its own has tests that do not use this.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

import attrs
import trio

from runtime.child_process import ChildProcess

PROGRAMS: Final = {
    "vpn.agent": ("vpn.agent.run",),
    "runtime.cli.main": ("tests.e2e.commands",),
}
"""Which program can be forked, and what is imported for it beforehand."""
_LONGEST = 1 << 17
_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None).prctl


@attrs.define(eq=False)
class Forked:
    """A forked process as `runtime.child_process` sees a `Popen`."""

    pid: int
    pidfd: int
    status: int
    returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        if self.returncode is None and select.select([self.pidfd], [], [], 0)[0]:
            self.returncode = int(os.read(self.status, 16))  # the server writes it as soon as it has reaped
            os.close(self.pidfd)
            os.close(self.status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            signal.pidfd_send_signal(self.pidfd, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """A process that has imported a program and forks it whenever it is asked."""

    def __init__(self, program: str, env: Mapping[str, str] | None = None) -> None:
        self._program = program
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for size in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            self._control.setsockopt(socket.SOL_SOCKET, size, 2 * _LONGEST)
        with theirs:
            argv = [sys.executable, "-m", "tests.fork_server", program, str(theirs.fileno())]
            self._process = subprocess.Popen(
                argv, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, cwd=Path(__file__).parent.parent, env=env
            )

    def fork(
        self,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
    ) -> ChildProcess:
        """Start it with these arguments, its standard input kept open, its standard output to be read.

        `env` and `cwd` default to this process's own.
        """
        theirs_in, ours_in = os.pipe()
        ours_out, theirs_out = os.pipe()
        forked = self._fork(arguments, env, cwd, theirs_in, theirs_out, os.dup(2))
        stdin, stdout = trio.lowlevel.FdStream(ours_in), trio.lowlevel.FdStream(ours_out)
        return ChildProcess(self._program, forked, stdin, stdout, None)  # type: ignore[arg-type]  # all of Popen that it uses

    def run(self, arguments: Sequence[str]) -> tuple[int, str, str]:
        """Run one that ends by itself: its exit status, and what it wrote to standard output and standard error."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            empty = os.open(os.devnull, os.O_RDONLY)
            forked = self._fork(arguments, None, None, empty, os.dup(out.fileno()), os.dup(err.fileno()))
            if not select.select([forked.pidfd], [], [], 60)[0]:
                forked.kill()
                raise TimeoutError(f"{self._program} did not end: {arguments}")
            status = forked.poll()
            assert status is not None
            return status, _read(out), _read(err)

    async def run_process(
        self,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str | os.PathLike[str],
    ) -> tuple[int, str, str]:
        """As `run`, awaited from trio; one that is cancelled is killed."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            empty = os.open(os.devnull, os.O_RDONLY)
            forked = self._fork(arguments, env, cwd, empty, os.dup(out.fileno()), os.dup(err.fileno()))
            child = ChildProcess(self._program, forked, None, None, None)  # type: ignore[arg-type]  # as above
            try:
                status = await child.wait()
            finally:
                await child.close()
            return status, _read(out), _read(err)

    def _fork(
        self,
        arguments: Sequence[str],
        env: Mapping[str, str] | None,
        cwd: str | os.PathLike[str] | None,
        *streams: int,
    ) -> Forked:
        status, theirs_status = os.pipe()
        request = {
            "arguments": list(arguments),
            "env": dict(os.environ if env is None else env),
            "cwd": os.fspath(Path.cwd() if cwd is None else cwd),
        }
        with self._lock:
            socket.send_fds(self._control, [json.dumps(request).encode()], [*streams, theirs_status])
            answer, descriptors, _, _ = socket.recv_fds(self._control, 64, 1)
        for descriptor in (*streams, theirs_status):
            os.close(descriptor)
        return Forked(int(answer), descriptors[0], status)

    def close(self) -> None:
        """End the server, and with it what it forked and still runs."""
        self._control.close()
        self._process.wait(60)


_shared: dict[str, ForkServer] = {}


def shared_fork_server(program: str) -> ForkServer:
    """The one of this process, for as long as the test run lasts."""
    if program not in _shared:
        _shared[program] = ForkServer(program)
    return _shared[program]


def close_fork_servers() -> None:
    """End those that are shared; for the end of the run."""
    while _shared:
        _shared.popitem()[1].close()


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


def main() -> None:
    """Fork until the other end of the control socket is closed."""
    program = sys.argv[1]
    for module in PROGRAMS[program]:
        importlib.import_module(module)
    gc.freeze()  # so that what a child collects copies no page of what all share
    control = socket.socket(fileno=int(sys.argv[2]))
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([control.fileno(), reader], [], [])
        if reader in ready:
            os.read(reader, _LONGEST)
            _reap(running)
        if control.fileno() in ready:
            message, descriptors, _, _ = socket.recv_fds(control, _LONGEST, 4)
            if not message:
                return
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _become(
                    program, json.loads(message), descriptors[:3], [*descriptors[3:], reader, writer, control.detach()]
                )
            *theirs, status = descriptors
            for descriptor in theirs:
                os.close(descriptor)
            running[pid] = status
            pidfd = os.pidfd_open(pid)
            socket.send_fds(control, [str(pid).encode()], [pidfd])
            os.close(pidfd)


def _reap(running: dict[int, int]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        descriptor = running.pop(pid)
        os.write(descriptor, str(os.waitstatus_to_exitcode(status)).encode())
        os.close(descriptor)


def _become(program: str, request: dict[str, Any], streams: list[int], foreign: list[int]) -> None:
    os.setsid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
    for descriptor in {*streams, *foreign} - {0, 1, 2}:
        os.close(descriptor)
    # The streams of before remember what their descriptors were: whether one can seek, for example.
    sys.stdout = open(1, "w", closefd=False, encoding="utf-8")  # noqa: SIM115  # for as long as the process lives
    sys.stderr = open(2, "w", closefd=False, encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    sys.path[0] = request["cwd"]  # as `python -m` does
    sys.argv = [program, *request["arguments"]]
    code = 1
    try:
        runpy.run_module(program, run_name="__main__", alter_sys=False)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:  # noqa: BLE001  # as the interpreter itself does at the end
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
