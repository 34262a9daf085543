"""The watchdog beside the loop: an OS thread that decides from plain slots.

It takes no lock, uses no logging framework and writes with `os.write`, because whatever froze the loop may hold any of
them. It reports a loop that stands (stack, actor, message), ends the process with status 70 when all beats are stale, keeps
systemd's watchdog quiet while all are fresh, and re-arms a timer in C for the one case in which no Python thread can act:
code that holds the interpreter lock. That timer ends the process with **status 1**: wedged with the GIL held.
"""

from __future__ import annotations

import faulthandler
import math
import os
import select
import stat
import threading
import time
from collections.abc import Callable, Iterable

from runtime.core.beats import Beats
from runtime.log.writer import write_bounded
from runtime.redaction import one_line, redact
from runtime.watchdog.loop_position import loop_position
from runtime.watchdog.systemd import Systemd
from runtime.watchdog.verdict import (
    Ages,
    Diagnose,
    LeaveProcess,
    LoopBlocked,
    StaleLimits,
    beat_ages,
    judge,
    take_snapshot,
)

EXIT_WEDGED = 70
"""The status with which a wedged process leaves."""
WRITE_SECONDS = 2.0
"""Seconds that the last words may take if stderr is not read."""
SLEEP_THRESHOLD = 1.0
"""Seconds by which the machine's clock must have outrun ours to count as a suspension."""


def _boot_clock() -> float:
    """Seconds since boot, sleep included; the monotonic clock stands still while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class WatchdogThread:
    """The thread, and the few plain slots by which the loop sees what it did.

    `boot_clock` is a clock that goes on while the machine sleeps; tests bring their own.
    """

    def __init__(
        self,
        beats: Beats,
        limits: StaleLimits,
        *,
        interval: float,
        loop_thread: int,
        diagnostic: Callable[[], Iterable[str]] = tuple,
        last_chance: Callable[[float], object] | None = None,
        systemd: Systemd | None = None,
        stderr: int = 2,
        boot_clock: Callable[[], float] = _boot_clock,
    ) -> None:
        self.limits = limits
        """Replaced whole by a reload."""
        self.ages_count_from = -math.inf
        """When a pause of the whole process was forgiven last: silence before it does not count."""
        self.looked_at = time.monotonic()
        """When the thread last looked at the beats."""
        self._beats = beats
        self._systemd = systemd or Systemd()
        self._interval = interval
        if self._systemd.watchdog_seconds is not None:
            self._interval = min(interval, self._systemd.watchdog_seconds * 0.4)
        self._loop_thread = loop_thread
        self._diagnostic = diagnostic
        self._last_chance = last_chance
        self._stderr = stderr
        self._stopping = False
        self._timer_stderr = _never_blocking(stderr)
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._wake, select.POLLIN)
        self._boot_clock = boot_clock
        self._boot_at = boot_clock()
        self._amid_pause = -math.inf
        """A moment of the pause that was forgiven last: the loop has turned since if it turned after this."""
        self._blocked_since: float | None = None
        self._told_stale = False
        self._told_diagnostic = False
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    @property
    def gil_timer(self) -> float:
        """Seconds without a look after which the C timer ends the process: longer than every stale limit."""
        return self.limits.gil_timer or self.limits.longest + 2 * self._interval + 10.0

    def start(self) -> None:
        """Start watching."""
        self.looked_at = time.monotonic()
        self._boot_at = self._boot_clock()
        self._thread.start()

    def stop(self, seconds: float = 1.0) -> None:
        """End the thread and its timer; waits for that no longer than `seconds`."""
        self._stopping = True
        os.eventfd_write(self._wake, 1)
        self._thread.join(seconds)
        if not self._thread.is_alive():
            os.close(self._wake)
            if self._timer_stderr != self._stderr:
                os.close(self._timer_stderr)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    # Below runs on the thread.

    def _run(self) -> None:
        try:
            while not self._stopping:
                try:
                    self._look()
                except Exception as error:  # noqa: BLE001  the last guard must outlive its own mistakes
                    self._tell([f"atlas watchdog: the thread failed to look: {type(error).__name__}: {error}"])
                self._poll.poll(self._interval * 1000)
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _look(self) -> None:
        # Arming again replaces the timer: it fires only if this thread is not let run for so long.
        faulthandler.dump_traceback_later(self.gil_timer, repeat=False, file=self._timer_stderr, exit=True)
        self._excuse_a_suspend()
        limits = self.limits
        snapshot = take_snapshot(self._beats, ages_count_from=self.ages_count_from)
        ages = beat_ages(snapshot)
        actions = judge(snapshot, limits)
        blocked = next((action for action in actions if isinstance(action, LoopBlocked)), None)
        self._report_blocked(blocked, ages, limits)
        # While the loop turns, the task on it makes the diagnostic, with the log's means.
        starved = blocked is not None and any(isinstance(action, Diagnose) for action in actions)
        if starved and not self._told_diagnostic:
            self._tell([f"atlas watchdog: CRITICAL workers starve: {ages.line()}", *self._diagnostics()])
        self._told_diagnostic = starved
        if any(isinstance(action, LeaveProcess) for action in actions):
            self._leave(ages)
        # One stale beat is repaired, and systemd would end what serves beside it.
        self._systemd.alive()

    def _excuse_a_suspend(self) -> None:
        """A machine or process that slept made every beat stale at once, and no worker is to blame for it.

        A pause of which only our own missed looks tell (SIGSTOP, a frozen container, but also code that held the
        interpreter) is forgiven once: not again before the loop has turned since.
        """
        now, boot = time.monotonic(), self._boot_clock()
        before = self.looked_at
        gap, slept = now - before, (boot - self._boot_at) - (now - before)
        self.looked_at, self._boot_at = now, boot
        paused = gap > 3 * self._interval + 1.0
        turned = self._beats.event_loop
        if slept > SLEEP_THRESHOLD or (paused and (turned is None or turned > self._amid_pause)):
            self.ages_count_from = now
            # Continued, the loop may turn before this thread does: any turn after the pause counts, not only one from now on.
            self._amid_pause = before + gap / 2
            kind = (
                f"the machine slept for {slept:.1f} s"
                if slept > SLEEP_THRESHOLD
                else f"the process paused for {gap:.1f} s"
            )
            self._tell([f"atlas watchdog: {kind}; all beats count from now on"])

    def _report_blocked(self, blocked: LoopBlocked | None, ages: Ages, limits: StaleLimits) -> None:
        now = time.monotonic()
        if blocked is None:
            if self._blocked_since is not None:
                self._tell([f"atlas watchdog: the event loop turns again after {now - self._blocked_since:.1f} s"])
            self._blocked_since, self._told_stale = None, False
            return
        first = self._blocked_since is None
        if first:
            self._blocked_since = now - blocked.age
        if first or (blocked.stale and not self._told_stale):
            self._told_stale = blocked.stale
            level = "CRITICAL" if blocked.stale else "WARNING"
            self._tell(
                [
                    f"atlas watchdog: {level} the event loop has not turned for {blocked.age:.1f} s "
                    f"(stale after {limits.event_loop:g} s, [watchdog] event_loop_stale)",
                    f"  beats: {ages.line()}",
                    *loop_position(self._loop_thread).lines(now),
                ]
            )

    def _leave(self, ages: Ages) -> None:
        lines = [
            f"atlas watchdog: CRITICAL all three heartbeats are stale, leaving with status {EXIT_WEDGED}",
            f"  beats: {ages.line()}",
            *loop_position(self._loop_thread).lines(time.monotonic()),
            *self._diagnostics(),
        ]
        self._tell(lines, WRITE_SECONDS)
        if self._last_chance is not None:
            try:
                self._last_chance(WRITE_SECONDS)
            except Exception as error:  # noqa: BLE001  nothing may come between a wedged process and its end
                self._tell([f"atlas watchdog: last chance failed: {type(error).__name__}: {error}"])
        os._exit(EXIT_WEDGED)

    def _diagnostics(self) -> list[str]:
        try:
            return [f"  {line}" for line in self._diagnostic()]
        except Exception as error:  # noqa: BLE001  it reads structures that the loop may be changing
            return [f"  no diagnostic: {type(error).__name__}: {error}"]

    def _tell(self, lines: Iterable[str], seconds: float = 0.5) -> None:
        text = "".join(f"{one_line(redact(line))}\n" for line in lines)
        write_bounded(self._stderr, text.encode("utf-8", "backslashreplace"), seconds)


def _never_blocking(fd: int) -> int:
    """A way to the same pipe whose writes fail rather than wait: the C timer writes its stacks before it exits.

    The flag belongs to the opening, not to the descriptor, so setting it on `fd` itself would change it for whoever
    shares it (a shell, a sibling). Anything but a pipe is used as it is.
    """
    try:
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        pass
    return fd
