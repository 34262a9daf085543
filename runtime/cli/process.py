"""The process around a command: its standard streams, its signals before anything runs, its end, and PID 1."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import time
import types

LEAVE_SECONDS = 2.0
"""How long a thread that somebody left behind may hold up the end of the process."""
_STREAMS = ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w"))
_NOT_PASSED_ON = {
    signal.SIGKILL,
    signal.SIGSTOP,
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGTRAP,
    signal.SIGABRT,
    signal.SIGSYS,
}
_FROM_THE_KERNEL = 0x80
"""si_code of what a terminal sends: to the whole group, so the child has it already."""


class OutputRefused(OSError):
    """Stdout took no more: a full disk, mostly. Tells what is wrong with it from what is wrong with any other file."""


class _CheckedOutput(io.TextIOWrapper):
    """Stdout, whose errors can be told from others. A reader that has gone (BrokenPipeError) is none."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputRefused(error.errno, error.strerror) from error

    def flush(self) -> None:
        try:
            super().flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputRefused(error.errno, error.strerror) from error


def check_output() -> None:
    """Let errors of stdout be OutputRefused from now on."""
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper) and not isinstance(out, _CheckedOutput):
        encoding, errors, by_line = out.encoding, out.errors, out.line_buffering
        sys.stdout = _CheckedOutput(out.detach(), encoding=encoding, errors=errors, line_buffering=by_line)


def open_standard_streams() -> None:
    """Give the process all three standard streams: one that its parent closed leads to /dev/null.

    Otherwise the next file or socket gets the descriptor, and what is meant for people is written into it; and Python has None
    in the stream's place.
    """
    for number, name, mode in _STREAMS:
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free: this one, since those below are open
            setattr(sys, name, open(number, mode, closefd=False, encoding="utf-8"))  # noqa: SIM115


def stop_before_the_start() -> None:
    """Let a TERM that comes before the system takes over its signals end the process with 0: nothing was started.

    Without a handler the process would end by the signal, or, as PID 1, not at all.
    """
    signal.signal(signal.SIGTERM, lambda _number, _frame: os._exit(0))


def take_signals() -> None:
    """Receive what the package blocked when it was imported as PID 1."""
    if os.getpid() == 1:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


def become_init() -> None:
    """As PID 1 of a container: leave that place to a process that only reaps orphans, and go on as its child.

    What a killed PostgreSQL leaves behind gets PID 1 as its parent, and is a zombie until that waits for it; but a process that
    waits for whatever child there is takes the exit codes of its own away from those who wait for them. The init passes all
    signals on and ends with the child's exit code. Without effect in any other process. Call it before any thread exists.
    """
    if os.getpid() != 1:
        return
    watched = signal.valid_signals() - _NOT_PASSED_ON
    signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    child = os.fork()
    if child == 0:
        stop_before_the_start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, watched)
        return
    while True:
        told = signal.sigwaitinfo(watched)
        if told.si_signo == signal.SIGCHLD:
            _reap(child)
        elif told.si_code < _FROM_THE_KERNEL:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, told.si_signo)


def _reap(child: int) -> None:
    """Wait for all that has ended; leave with the child's exit code if it is among them."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def leave_in_time(code: int) -> None:
    """See to it that the process ends with `code` within LEAVE_SECONDS, whatever threads were left behind, and name those.

    The interpreter waits for every thread that is no daemon, for ever. Call it right before the end.
    """
    if not _left_behind():
        return

    def leave() -> None:
        time.sleep(LEAVE_SECONDS)
        frames = sys._current_frames()  # the documented way to see where another thread stands
        names = ", ".join(f"{thread.name} ({_place(frames.get(thread.ident or 0))})" for thread in _left_behind())
        text = f"error: threads that were left behind did not end within {LEAVE_SECONDS:g} s: {names}; leaving without them"
        from runtime.log.writer import write_bounded  # only here: `atlas --help` needs no log
        from runtime.redaction import one_line, redact  # as above

        write_bounded(2, f"{one_line(redact(text))}\n".encode("utf-8", "backslashreplace"))
        os._exit(code)

    threading.Thread(target=leave, name="leave-in-time", daemon=True).start()


def _left_behind() -> list[threading.Thread]:
    main = threading.main_thread()
    return [thread for thread in threading.enumerate() if thread is not main and not thread.daemon]


def _place(frame: types.FrameType | None) -> str:
    return "ended" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"
