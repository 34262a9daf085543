from __future__ import annotations

import fcntl
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtime.log.record import Record, as_text
from runtime.log.writer import MAX_BLOCKED, LogWriter, write_bounded
from tests.run_queue import Stopwatch


def test_a_pipe_that_is_read_takes_everything() -> None:
    reader, writer = os.pipe()
    data = b"x" * 300_000
    got = bytearray()

    def read() -> None:
        while chunk := os.read(reader, 65536):
            got.extend(chunk)

    thread = threading.Thread(target=read)
    thread.start()
    assert write_bounded(writer, data, seconds=10)
    os.close(writer)
    thread.join()
    os.close(reader)
    assert bytes(got) == data


def test_a_pipe_that_nobody_reads_costs_no_more_than_the_bound() -> None:
    reader, writer = os.pipe()
    took = Stopwatch()
    assert not write_bounded(writer, b"x" * 300_000, seconds=0.1)
    assert took.seconds() < 2, str(took)
    assert not write_bounded(writer, b"x")
    os.close(reader)
    os.close(writer)


def test_a_reader_that_is_gone_and_a_closed_descriptor_are_false_not_errors() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    assert not write_bounded(writer, b"x", seconds=1)
    os.close(writer)
    assert not write_bounded(writer, b"x", seconds=1)
    assert not write_bounded(-1, b"x", seconds=1)


INFO, ERROR = logging.INFO, logging.ERROR
REPORT = re.compile(rb"(\d+) records were dropped: stdout did not take them in time")


class Pipe:
    """A real pipe: what the writer sees as stdout or stderr."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, 4096)
        self.open = True

    def read(self) -> bytes:
        return os.read(self.reader, 1 << 20)

    def read_until(self, needle: bytes) -> bytes:
        got = b""
        while needle not in got:
            chunk = self.read()
            assert chunk, f"{needle!r} never came: {got!r}"
            got += chunk
        return got

    def read_all_of(self, *needles: bytes) -> None:
        """Read until each of them came, in whatever order."""
        got = b""
        while not all(needle in got for needle in needles):
            chunk = self.read()
            assert chunk, f"{needles!r} never came: {got!r}"
            got += chunk

    def close_reader(self) -> None:
        if self.open:
            os.close(self.reader)
            self.open = False


@pytest.fixture
def out() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close_reader()
    os.close(pipe.writer)


@pytest.fixture
def err() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close_reader()
    os.close(pipe.writer)


def record(message: str, level: int = INFO) -> Record:
    return Record(1_782_907_200.0, level, "test", message)


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """The writer is a thread with no event to await: poll its plain slots."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.002)  # rule-ok: a thread's plain slots tell nobody


# S-902
def test_info_and_warning_go_to_out_error_and_critical_to_err(out: Pipe, err: Pipe) -> None:
    writer = LogWriter(as_text, out=out.writer, err=err.writer)
    levels = (logging.DEBUG, INFO, logging.WARNING, ERROR, logging.CRITICAL)
    for level in levels:
        writer.put(record(f"level-{level}", level))
    writer.start()
    assert writer.stop(5)
    on_out, on_err = out.read(), err.read()
    assert [level for level in levels if f"level-{level}".encode() in on_out] == [10, 20, 30]
    assert [level for level in levels if f"level-{level}".encode() in on_err] == [40, 50]


# S-902
def test_order_is_kept_and_nothing_is_lost_below_capacity(tmp_path: Path, err: Pipe) -> None:
    target = tmp_path / "log"
    with target.open("wb") as file:
        writer = LogWriter(as_text, out=file.fileno(), err=err.writer)
        writer.start()
        for number in range(5000):
            writer.put(record(f"number {number}"))
        assert writer.stop(20)
    numbers = [int(line.split()[-1]) for line in target.read_text().splitlines()]
    assert numbers == list(range(5000))
    assert writer.out.dropped == 0


# S-901
def test_a_blocked_out_drops_and_counts_and_says_so_in_the_log(out: Pipe, err: Pipe) -> None:
    writer = LogWriter(as_text, out=out.writer, err=err.writer, capacity=100)
    writer.start()
    took = Stopwatch()
    for number in range(2000):
        writer.put(record(f"number {number} " + "x" * 200))
    assert took.seconds() < 2, f"putting waited for the pipe: {took}"
    dropped = writer.out.dropped
    assert dropped >= 2000 - 100 - 2 * 32 - 20
    # stderr still works meanwhile, and tells.
    writer.put(record("still here", ERROR))
    assert b"still here" in err.read_until(b"still here")
    assert b"nobody reads stdout" in err.read_until(b"nobody reads stdout")
    # As soon as somebody reads, the log itself tells what was lost.
    told = b""
    while sum(map(int, REPORT.findall(told))) < dropped:
        told += out.read()
    assert sum(map(int, REPORT.findall(told))) == dropped
    writer.put(record("taken again"))
    out.read_until(b"taken again")
    assert writer.stop(5)


# S-905
def test_stop_is_bounded_and_says_what_it_could_not_write(out: Pipe, err: Pipe) -> None:
    writer = LogWriter(as_text, out=out.writer, err=err.writer)
    for number in range(200):
        writer.put(record(f"number {number} " + "x" * 200))
    writer.start()
    took = Stopwatch()
    assert not writer.stop(0.3)
    assert took.seconds() < 3, str(took)
    assert b"records for stdout could not be written before the exit" in err.read_until(b"exit")
    out.close_reader()


def test_a_reader_that_went_away_is_told_on_err_and_the_rest_is_counted(out: Pipe, err: Pipe) -> None:
    writer = LogWriter(as_text, out=out.writer, err=err.writer)
    writer.start()
    out.close_reader()
    writer.put(record("into the void"))
    assert b"stdout is gone" in err.read_until(b"why=")
    writer.put(record("more"))
    assert writer.out.dropped == 2
    assert writer.out.closed == "Broken pipe"
    writer.stop(5)


def test_a_descriptor_closed_before_the_start_costs_nothing_else(err: Pipe) -> None:
    reader, closed = os.pipe()
    os.close(closed)
    os.close(reader)
    writer = LogWriter(as_text, out=closed, err=err.writer)
    writer.start()
    writer.put(record("nowhere"))
    writer.put(record("somewhere", ERROR))
    assert b"somewhere" in err.read_until(b"somewhere")
    assert writer.out.dropped == 1
    writer.stop(5)


def test_a_full_disk_loses_lines_and_recovers(err: Pipe) -> None:
    """/dev/full answers every write with ENOSPC."""
    full = os.open("/dev/full", os.O_WRONLY)
    writer = LogWriter(as_text, out=full, err=err.writer)
    os.close(full)
    writer.start()
    writer.put(record("lost"))
    eventually(lambda: writer.out.dropped == 1)
    assert not writer.out.closed
    reader, fresh = os.pipe()
    os.dup2(fresh, writer.out.fd)
    os.close(fresh)
    writer.put(record("room again"))
    got = b""
    while b"room again" not in got or b"1 records were dropped" not in got:
        got += os.read(reader, 65536)
    assert writer.stop(5)
    os.close(reader)


# S-905
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_thread_is_replaced_and_reported_and_loses_nothing_queued(out: Pipe, err: Pipe) -> None:
    dead = threading.Event()

    def die_once(fd: int, data: memoryview) -> int:
        if not dead.is_set():
            dead.set()
            raise SystemExit
        return os.write(fd, data)

    writer = LogWriter(as_text, out=out.writer, err=err.writer, write=die_once)
    writer.start()
    writer.put(record("in flight"))
    assert dead.wait(10)
    eventually(lambda: not any(thread.name == "log-writer-1" for thread in threading.enumerate()))
    writer.put(record("queued"))
    assert writer.restarts == 0
    writer.check()
    assert writer.restarts == 1
    assert b"the writer thread has died; started another (number 1)" in err.read()
    told = out.read_until(b"in time")
    assert b"queued" in told
    assert b"1 records were dropped" in told
    writer.check()
    assert writer.restarts == 1
    assert writer.stop(5)


def checked(writer: LogWriter) -> LogWriter:
    writer.check()
    return writer


class Stuck:
    """A write that hangs until it is released."""

    def __init__(self) -> None:
        self.inside = threading.Semaphore(0)
        self.release = threading.Event()
        self.hangs = True

    def __call__(self, fd: int, data: memoryview) -> int:
        if self.hangs:
            self.inside.release()
            self.release.wait(30)
        return os.write(fd, data)


# S-905
def test_a_pause_of_the_whole_process_is_not_taken_for_a_blocked_writer(out: Pipe, err: Pipe) -> None:
    now, stuck = [1000.0], Stuck()
    writer = LogWriter(as_text, out=out.writer, err=err.writer, stall=5.0, write=stuck, clock=lambda: now[0])
    writer.start()
    writer.put(record("said amid a write"))
    assert stuck.inside.acquire(timeout=10)
    for seconds in (1.0, 8.0, 1.0, 3600.0, 0.5):  # it looked each second, and was stopped twice
        now[0] += seconds
        writer.check()
    assert writer.restarts == 0
    for _ in range(2):
        now[0] += 1.0
        writer.check()
    assert writer.restarts == 1, "nobody paused it any more, and it hung on"
    assert b"has been blocked inside a write for 6.0 s; started another" in err.read()
    stuck.hangs = False
    stuck.release.set()
    out.read_all_of(
        b"said amid a write"
    )  # the pipe holds one write: left in it, it would keep the successor from its own
    assert writer.stop(5)


# S-905
def test_threads_that_came_back_from_their_write_make_room_for_the_next(out: Pipe, err: Pipe) -> None:
    now, last = [1000.0], Stuck()
    writer = LogWriter(as_text, out=out.writer, err=err.writer, stall=4.0, write=lambda *_: 0, clock=lambda: now[0])
    writer.start()
    for number in range(1, MAX_BLOCKED + 2):
        last = writer._write = Stuck()
        writer.put(record(f"line {number}"))
        assert last.inside.acquire(timeout=10)
        writer.check()  # it has shown life since the last look
        for _ in range(5):
            now[0] += 1.0
            writer.check()
        assert writer.restarts == number
        last.hangs = False
        last.release.set()
        name = f"log-writer-{number}"
        eventually(lambda name=name: not any(thread.name == name for thread in threading.enumerate()))  # type: ignore[misc]  # a lambda's default
        assert b"started another" in err.read()
        # The old thread's line and its successor's count, in either order. Left in the pipe, which holds one write, the
        # second of them would keep the successor from its next one.
        out.read_all_of(f"line {number}".encode(), b"1 records were dropped")
    assert writer.stop(5)


# S-905
def test_a_thread_blocked_inside_a_write_is_replaced_and_reported(out: Pipe, err: Pipe) -> None:
    blocked, release = threading.Event(), threading.Event()

    def block_once(fd: int, data: memoryview) -> int:
        if not blocked.is_set():
            blocked.set()
            release.wait(30)
        return os.write(fd, data)

    writer = LogWriter(as_text, out=out.writer, err=err.writer, stall=0.05, write=block_once)
    writer.start()
    writer.put(record("stuck"))
    assert blocked.wait(10)
    writer.put(record("next"))
    eventually(lambda: checked(writer).restarts == 1)
    assert b"blocked inside a write" in err.read()
    assert b"next" in out.read_until(b"next")
    release.set()
    eventually(lambda: not any(thread.name == "log-writer-1" for thread in threading.enumerate()))
    assert writer.stop(5)


def test_drops_by_several_threads_are_all_counted(out: Pipe, err: Pipe) -> None:
    writer = LogWriter(as_text, out=out.writer, err=err.writer, capacity=0)

    def put_500() -> None:
        for _ in range(500):
            writer.put(record("x"))

    threads = [threading.Thread(target=put_500) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert writer.out.dropped == 2000


def test_a_record_that_cannot_be_rendered_ends_nothing(out: Pipe, err: Pipe) -> None:
    def picky(entry: Record) -> str:
        if entry.message == "bad":
            raise RuntimeError("cannot")
        return as_text(entry)

    writer = LogWriter(picky, out=out.writer, err=err.writer)
    writer.start()
    writer.put(record("bad"))
    writer.put(record("good"))
    told = out.read_until(b"good")
    assert b"a record of test could not be rendered: RuntimeError" in told
    assert writer.stop(5)


def test_a_sleeping_writer_is_woken_at_once(out: Pipe, err: Pipe) -> None:
    writer = LogWriter(as_text, out=out.writer, err=err.writer)
    writer.start()
    worst = 0.0
    for number in range(20):
        eventually(lambda: writer._asleep)
        took = Stopwatch()
        writer.put(record(f"number {number}."))
        out.read_until(f"number {number}.".encode())
        worst = max(worst, took.seconds())
    assert worst < 0.4, "it was found by the nap of 0.5 s, not by the wake-up"
    assert writer.stop(5)
