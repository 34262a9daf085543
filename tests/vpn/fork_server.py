"""Agents without the second that a fresh interpreter needs to import one: forked from a process that has imported all.

Run as a program it is that process. What it forks does what `python -m vpn.agent` does, with the arguments and the
standard streams that it is given; its end is reported by a pidfd and its exit status through a pipe.
"""

from __future__ import annotations

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
from collections.abc import Sequence

import attrs
import trio

from runtime.child_process import ChildProcess

_LONGEST = 1 << 16


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
    """A process that has imported the agent and forks one whenever it is asked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            argv = [sys.executable, "-m", "tests.vpn.fork_server", str(theirs.fileno())]
            self._process = subprocess.Popen(argv, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)

    def fork(self, arguments: Sequence[str]) -> ChildProcess:
        """Start an agent with these arguments, its standard input kept open, its standard output to be read."""
        theirs_in, ours_in = os.pipe()
        ours_out, theirs_out = os.pipe()
        forked = self._fork(arguments, theirs_in, theirs_out, os.dup(2))
        stdin, stdout = trio.lowlevel.FdStream(ours_in), trio.lowlevel.FdStream(ours_out)
        return ChildProcess("agent", forked, stdin, stdout, None)  # type: ignore[arg-type]  # all of Popen that it uses

    def run(self, arguments: Sequence[str]) -> tuple[int, str, str]:
        """Run an agent that ends by itself: its exit status, and what it wrote to standard output and standard error."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            empty = os.open(os.devnull, os.O_RDONLY)
            forked = self._fork(arguments, empty, os.dup(out.fileno()), os.dup(err.fileno()))
            if not select.select([forked.pidfd], [], [], 20)[0]:
                forked.kill()
                raise TimeoutError(f"the agent did not end: {arguments}")
            status = forked.poll()
            assert status is not None
            out.seek(0)
            err.seek(0)
            return status, out.read().decode(), err.read().decode()

    def _fork(self, arguments: Sequence[str], *streams: int) -> Forked:
        status, theirs_status = os.pipe()
        with self._lock:
            socket.send_fds(self._control, [json.dumps(list(arguments)).encode()], [*streams, theirs_status])
            answer, descriptors, _, _ = socket.recv_fds(self._control, 64, 1)
        for descriptor in (*streams, theirs_status):
            os.close(descriptor)
        return Forked(int(answer), descriptors[0], status)

    def close(self) -> None:
        """End the server; agents that still run end with it, because their parent does."""
        self._control.close()
        self._process.wait(10)


def main() -> None:
    """Fork agents until the other end of the control socket is closed."""
    import vpn.agent.run  # noqa: F401  # the point of all this

    control = socket.socket(fileno=int(sys.argv[1]))
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
                _become(json.loads(message), descriptors[:3], [*descriptors[3:], reader, writer, control.detach()])
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


def _become(arguments: list[str], streams: list[int], foreign: list[int]) -> None:
    os.setsid()
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
    for descriptor in {*streams, *foreign} - {0, 1, 2}:
        os.close(descriptor)
    sys.argv = ["vpn.agent", *arguments]
    code = 1
    try:
        runpy.run_module("vpn.agent", run_name="__main__", alter_sys=False)
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
