"""The log's writer thread: takes rendered lines to file descriptors, so that nothing else ever waits for one.

Callers append to a bounded deque and go on; a full one drops the new record and counts it. There is no lock: the deque
is appended on one side and popped on the other, and an eventfd wakes the thread when it sleeps. The thread itself never
waits *inside* a write where poll can tell beforehand, so one blocked stream holds up neither the other nor the exit.
`write_bounded` is the one write that may be used without the thread: by a watchdog, or when the process leaves.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable

from runtime.log.record import Record

CHUNK = 4096
"""A pipe that poll calls writable takes so many bytes without blocking (PIPE_BUF)."""


def write_bounded(fd: int, data: bytes, seconds: float = 0.0) -> bool:
    """Write `data` to `fd`, waiting for room no longer than `seconds` in all; whether all of it was taken.

    Takes no lock, uses no file object and never raises: it is called when everything else is in doubt. A reader that is
    gone, a closed descriptor or a full pipe means False.
    """
    deadline = time.monotonic() + seconds
    poll = select.poll()
    try:
        poll.register(fd, select.POLLOUT)
        rest = memoryview(data)
        while rest:
            wait = max(0.0, deadline - time.monotonic())
            if not any(event & select.POLLOUT for _, event in poll.poll(wait * 1000)):
                return False
            rest = rest[os.write(fd, rest[:CHUNK]) :]
    except (OSError, ValueError):
        return False
    return True


CAPACITY = 10_000
"""Records that wait at most, for each stream."""
BATCH = 32
"""Records rendered at a time: few, because the loop waits for the interpreter meanwhile."""
STALL = 5.0
"""Seconds without a sign of life after which the thread counts as blocked."""
GONE = frozenset({errno.EPIPE, errno.EBADF, errno.ECONNRESET, errno.ENXIO})
"""Errors after which a destination never takes anything again."""
MAX_BLOCKED = 10
"""Threads that may hang inside a write at the same time: each of them stays behind until its write returns."""
LOOKS_PER_STALL = 4
"""A pause of the whole process, of whatever length, counts as one of so many looks without a sign of life at most."""


class Stream:
    """One destination: its queue, the bytes in flight, and what was lost."""

    def __init__(self, name: str, fd: int, capacity: int) -> None:
        self.name = name
        self.fd = -1
        self.capacity = capacity
        self.queue: deque[Record] = deque()
        self.pending = memoryview(b"")
        self.closed = ""
        """Why nothing can be written any more; empty while it can."""
        self.taken_at = time.monotonic()
        """When the destination last took bytes or had nothing to take."""
        self.reported = 0
        """How many of the lost ones a line of the log tells, written or still in flight."""
        self.delivered = 0
        """How many of the lost ones have been told for sure."""
        self.told_blocked = False
        self.retry_at = 0.0
        # One count for each thread that logs: an increment shared by two threads may be lost.
        self._drops: dict[int, int] = {}
        try:
            # Our own duplicate: if somebody closes the descriptor, its number may come to mean a database connection.
            self.fd = os.dup(fd)
        except OSError as error:
            self.closed = os.strerror(error.errno or errno.EBADF)

    def put(self, record: Record) -> None:
        """Append the record, or count it as dropped. Never waits."""
        if len(self.queue) >= self.capacity or self.closed:
            self.drop()
        else:
            self.queue.append(record)

    def drop(self, count: int = 1) -> None:
        """Count records as dropped."""
        thread = threading.get_ident()
        self._drops[thread] = self._drops.get(thread, 0) + count

    @property
    def dropped(self) -> int:
        """Records lost so far."""
        return sum(tuple(self._drops.values()))

    @property
    def waiting(self) -> bool:
        """Whether anything is still to be written."""
        return bool(self.queue or self.pending) and not self.closed

    def drop_pending(self) -> None:
        """Give the bytes in flight up and count their lines as dropped."""
        self.drop(max(1, bytes(self.pending).count(b"\n")))
        self.reported = self.delivered
        self.pending = memoryview(b"")

    def blocked_for(self) -> float:
        """Seconds since the destination last took something, while something waits for it; else 0."""
        return time.monotonic() - self.taken_at if self.pending and not self.closed else 0.0


class LogWriter:
    """Two streams (`out`, `err`) and the thread that serves them.

    `put` is allowed on any thread and never blocks. `check` is called now and then on the loop: it finds a thread that
    died or hangs inside a write, starts another and says so on `err` by `os.write`.
    """

    def __init__(
        self,
        render: Callable[[Record], str],
        *,
        out: int = 1,
        err: int = 2,
        capacity: int = CAPACITY,
        stall: float = STALL,
        write: Callable[[int, memoryview], int] = os.write,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.render = render
        self.out = Stream("stdout", out, capacity)
        self.err = Stream("stderr", err, capacity)
        self.restarts = 0
        self._stall = stall
        self._write = write
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._asleep = False
        self._stopping = False
        self._generation = 0
        self._thread: threading.Thread | None = None
        self._alive_at = time.monotonic()
        self._clock = clock
        self._seen_alive_at = self._alive_at
        self._looked_at = clock()
        self._silent = 0.0
        """Seconds for which `check` has seen the same sign of life."""
        self._blocked: list[threading.Thread] = []

    @property
    def streams(self) -> tuple[Stream, Stream]:
        """Both streams."""
        return (self.out, self.err)

    def start(self) -> None:
        """Start the thread; what was put before is written now."""
        self._spawn()

    def put(self, record: Record) -> None:
        """Queue the record for its stream: ERROR and above to `err`, the rest to `out`. Never waits, never raises."""
        (self.err if record.level >= logging.ERROR else self.out).put(record)
        if self._asleep:
            self._asleep = False
            self._wake_thread()

    def age(self) -> float:
        """Seconds since the thread's last sign of life; 0 if there is no thread to speak of."""
        return time.monotonic() - self._alive_at if self._thread is not None else 0.0

    def check(self) -> None:
        """Replace the thread if it died, or hangs inside a write for longer than `stall` seconds. Never blocks.

        Call it several times within `stall` seconds: while nobody looks, the whole process may have stood still, and the
        thread with it.
        """
        thread = self._thread
        if thread is None or self._stopping:
            return
        now = self._clock()
        since, self._looked_at = now - self._looked_at, now
        if not thread.is_alive():
            self._replace("has died")
        elif self._alive_at != self._seen_alive_at:
            self._seen_alive_at, self._silent = self._alive_at, 0.0
        else:
            self._silent += min(since, self._stall / LOOKS_PER_STALL)
            self._blocked = [each for each in self._blocked if each.is_alive()]
            if self._silent > self._stall and len(self._blocked) < MAX_BLOCKED:
                self._blocked.append(thread)
                self._replace(f"has been blocked inside a write for {self._silent:.1f} s")

    def flush(self, seconds: float) -> bool:
        """Wait, no longer than `seconds`, until everything queued is written; whether it is. Blocks: not for the loop."""
        deadline = time.monotonic() + seconds
        while any(stream.waiting for stream in self.streams):
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.005)
        return True

    def stop(self, seconds: float = 2.0) -> bool:
        """Write what is queued within `seconds` and end the thread; whether everything was written. Blocks so long.

        What could not be written is told on `err` by `os.write`, if that takes it.
        """
        if self._thread is None:
            return not any(stream.waiting for stream in self.streams)
        deadline = time.monotonic() + seconds
        self._stopping = True
        self._wake_thread()
        self._thread.join(seconds)
        done = not self._thread.is_alive()
        if done:
            os.close(self._wake)
            self._wake = -1
            for stream in self.streams:
                if stream.fd >= 0 and stream is not self.err:
                    os.close(stream.fd)
        for stream in self.streams:
            unwritten = len(stream.queue) + bool(stream.pending)
            lost = stream.dropped - stream.delivered
            if unwritten or lost:
                text = f"atlas log: {unwritten + lost} records for {stream.name} could not be written before the exit\n"
                write_bounded(self.err.fd, text.encode(), max(0.0, deadline - time.monotonic()))
        if done and self.err.fd >= 0:
            os.close(self.err.fd)
        self._thread = None
        return done and not any(stream.waiting for stream in self.streams)

    def _spawn(self) -> None:
        self._generation += 1
        self._alive_at = self._seen_alive_at = time.monotonic()
        self._silent = 0.0
        self._thread = threading.Thread(
            target=self._run, args=(self._generation,), name=f"log-writer-{self._generation}", daemon=True
        )
        self._thread.start()

    def _replace(self, what: str) -> None:
        self.restarts += 1
        for stream in self.streams:
            if stream.pending:
                # Nobody knows how much of it was written: better a lost line than one written twice.
                stream.drop_pending()
        self._spawn()
        waiting = sum(len(stream.queue) for stream in self.streams)
        text = (
            f"atlas log: the writer thread {what}; started another (number {self.restarts}), {waiting} records wait\n"
        )
        write_bounded(self.err.fd, text.encode())

    def _wake_thread(self) -> None:
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    # Below runs on the writer's thread.

    def _run(self, generation: int) -> None:
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        while generation == self._generation:
            self._alive_at = time.monotonic()
            for stream in self.streams:
                self._fill(stream)
            self._tell_blocked()
            busy = [stream for stream in self.streams if stream.waiting and stream.retry_at <= self._alive_at]
            if self._stopping and not any(stream.waiting for stream in self.streams):
                return
            for stream in busy:
                poll.register(stream.fd, select.POLLOUT)
            self._asleep = not busy
            # A record put just before the line above found us awake and did not rouse us.
            nap = 0 if not busy and any(stream.queue for stream in self.streams) else 500
            ready = dict(poll.poll(nap))
            self._asleep = False
            if self._wake in ready:
                os.eventfd_read(self._wake)
            for stream in busy:
                poll.unregister(stream.fd)
                if stream.fd in ready:
                    self._send(stream, generation)

    def _fill(self, stream: Stream) -> None:
        if stream.pending:
            return
        lines: list[str] = []
        while stream.queue and len(lines) < BATCH:
            lines.append(self._rendered(stream.queue.popleft()))
        dropped = stream.dropped
        if dropped > stream.reported and not stream.closed:
            text = f"{dropped - stream.reported} records were dropped: {stream.name} did not take them in time"
            record = Record(time.time(), logging.WARNING, "atlas.log", text, {"dropped_in_all": dropped})
            lines.append(self._rendered(record))
            stream.reported = dropped
        stream.taken_at = time.monotonic()
        if lines:
            stream.pending = memoryview("".join(lines).encode("utf-8", "backslashreplace"))

    def _rendered(self, record: Record) -> str:
        try:
            return self.render(record)
        except Exception as error:  # noqa: BLE001  one record must not end the log of all others
            return f"atlas log: a record of {record.logger} could not be rendered: {type(error).__name__}\n"

    def _send(self, stream: Stream, generation: int) -> None:
        if generation != self._generation:
            return  # replaced amid the other stream's write: what is in flight now is another thread's
        chunk = stream.pending[:CHUNK]
        try:
            sent = self._write(stream.fd, chunk)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            if generation == self._generation:
                self._failed(stream, error)
            return
        if generation == self._generation:
            stream.pending = stream.pending[sent:]
            stream.taken_at = time.monotonic()
            stream.told_blocked = False
            if not stream.pending:
                stream.delivered = stream.reported

    def _tell_blocked(self) -> None:
        """A reader that stopped reading stdout is told on stderr, once, when it begins to cost records."""
        out = self.out
        if out.dropped > out.delivered and out.blocked_for() > 1.0 and not out.told_blocked:
            out.told_blocked = True
            text = "nobody reads stdout: its records are dropped and counted until somebody does"
            fields = {"blocked_for": out.blocked_for(), "dropped_in_all": out.dropped}
            self.err.put(Record(time.time(), logging.ERROR, "atlas.log", text, fields))

    def _failed(self, stream: Stream, error: OSError) -> None:
        why = os.strerror(error.errno or 0)
        stream.drop_pending()
        if error.errno not in GONE:
            # A full disk may have room again: what was in flight is lost and counted, the rest is tried later.
            stream.retry_at = time.monotonic() + 1.0
            return
        stream.closed = why
        stream.drop(len(stream.queue))
        stream.queue.clear()
        if stream is self.out:
            text = "stdout is gone, its records are dropped and counted from now on"
            self.err.put(Record(time.time(), logging.ERROR, "atlas.log", text, {"why": why}))
