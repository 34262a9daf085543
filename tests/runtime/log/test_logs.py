from __future__ import annotations

import json
import logging
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import attrs
import pytest

from runtime.correlation import correlated
from runtime.events import Event, EventBus
from runtime.log import logs
from runtime.metrics import METRICS

KEY = "0f4cd2ab-1f8e-4f6a-9d25-7d3a2b1c0e9f"


class Output:
    """Two files that stand for stdout and stderr: what was written can be read after `stop`."""

    def __init__(self, directory: Path) -> None:
        self.out_file = (directory / "out").open("w+b")
        self.err_file = (directory / "err").open("w+b")

    def start(self, level: str = "info", style: str = "text") -> None:
        logs.start(level, style, out=self.out_file.fileno(), err=self.err_file.fileno())

    def stop(self) -> tuple[str, str]:
        assert logs.stop(10)
        self.out_file.seek(0)
        self.err_file.seek(0)
        return self.out_file.read().decode(), self.err_file.read().decode()


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Output]:
    # What other tests of this process said before any log ran.
    logs._log.early.clear()
    output = Output(tmp_path)
    yield output
    logs.stop(10)
    logs.reconfigure("info", "text")
    output.out_file.close()
    output.err_file.close()


def run(code: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run `code` in a real process of its own."""
    return subprocess.run(  # type: ignore[call-overload,no-any-return]  # options are passed through
        [sys.executable, "-c", textwrap.dedent(code)], text=True, timeout=60, check=False, **options
    )


def test_levels_go_to_their_streams_with_fields(output: Output) -> None:
    output.start("debug")
    log = logs.get_logger("actors.pool")
    log.debug("one")
    log.info("two", size=3)
    log.warning("three")
    log.error("four", error=ValueError("no"))
    log.critical("five")
    out, err = output.stop()
    assert [line.split(None, 1)[1] for line in out.splitlines()] == [
        "DEBUG    actors.pool one",
        "INFO     actors.pool two size=3",
        "WARNING  actors.pool three",
    ]
    assert "actors.pool four" in err
    assert "ValueError: no" in err
    assert "CRITICAL actors.pool five" in err


def test_the_level_and_the_format_can_change_while_it_runs(output: Output) -> None:
    output.start("warning")
    log = logs.get_logger("x")
    log.info("unseen")
    logs.reconfigure("info")
    log.info("seen")
    assert logs.flush(10)
    logs.reconfigure(format="json")
    log.info("machine", n=1)
    out, _ = output.stop()
    text, machine = out.splitlines()
    assert text.endswith("x seen")
    assert json.loads(machine)["n"] == 1


@pytest.mark.parametrize(
    ("level", "style", "complaint"),
    [("loud", "text", "unknown log level 'loud'; known: debug, info"), ("info", "xml", "unknown log format 'xml'")],
)
def test_an_unknown_level_or_format_is_refused_with_the_known_ones(level: str, style: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        logs.start(level, style)


def test_it_is_started_once(output: Output) -> None:
    output.start()
    with pytest.raises(RuntimeError, match="started already"):
        output.start()


def test_what_was_said_before_the_start_is_written_after_it(output: Output) -> None:
    logs.get_logger("x").info("early bird")
    output.start()
    out, _ = output.stop()
    assert "early bird" in out


# S-907
def test_the_correlation_id_is_in_every_line(output: Output) -> None:
    output.start(style="json")
    log = logs.get_logger("x")
    with correlated("c0ffee"):
        log.info("inside")
    log.info("outside")
    inside, outside = map(json.loads, output.stop()[0].splitlines())
    assert inside["correlation"] == "c0ffee"
    assert "correlation" not in outside


@attrs.frozen
class Crashed(Event):
    level: ClassVar[int] = logging.ERROR

    incarnation: int

    def line(self) -> str:
        return f"{self.actor} crashed in incarnation {self.incarnation}"


def test_an_event_becomes_a_line_with_its_facts_for_machines(output: Output) -> None:
    output.start(style="json")
    EventBus(log=logs.log_event).emit(Crashed("pool.main", 3))
    _, err = output.stop()
    entry = json.loads(err)
    assert entry["message"] == "pool.main crashed in incarnation 3"
    assert (entry["actor"], entry["event"], entry["incarnation"], entry["level"]) == (
        "pool.main",
        "Crashed",
        3,
        "ERROR",
    )


# S-903
def test_secrets_are_redacted_on_the_way_out(output: Output) -> None:
    output.start()
    logs.get_logger("x").info(f"link vless://{KEY}@h:1", key=KEY, dsn="postgresql://a:hunter2@h/db")
    logging.getLogger("library").warning("Authorization: Bearer %s", "abcdef123456")
    out, _ = output.stop()
    assert KEY not in out
    assert "hunter2" not in out
    assert "abcdef123456" not in out
    assert "key=0f4cd2ab…" in out


# S-906
def test_stdlib_logging_is_captured_without_a_handler_lock(output: Output) -> None:
    output.start()
    handlers = logging.getLogger().handlers[:]
    assert [handler.lock for handler in handlers] == [None]
    library = logging.getLogger("some.library")
    library.info("hello %s", "world")
    library.debug("unseen")
    library.warning("wrong %d", "argument")
    logging.getLogger("httpx").info("a line per request")
    try:
        raise RuntimeError("boom")  # noqa: TRY301  it must be raised to be logged as current
    except RuntimeError:
        library.exception("failed")
    out, err = output.stop()
    assert "some.library hello world" in out
    assert "'wrong %d' with arguments that do not fit: TypeError" in out
    assert "unseen" not in out
    assert "a line per request" not in out
    assert "RuntimeError: boom" in err
    assert logging.getLogger().handlers != handlers, "stop gives the root logger back"


def test_the_same_record_logged_amid_logging_cannot_freeze(output: Output) -> None:
    """A handler with a non-reentrant lock would stop here for good."""
    output.start()

    class Chatty:
        def __str__(self) -> str:
            logging.getLogger("inner").warning("said while being shown")
            return "chatty"

    logging.getLogger("outer").warning("outer %s", Chatty())
    out, _ = output.stop()
    assert "said while being shown" in out
    assert "outer chatty" in out


# S-906
def test_warnings_thread_deaths_and_unraisable_exceptions_are_captured(output: Output) -> None:
    output.start()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        # catch_warnings puts its own printer back on exit; the hook under test is called as Python would.
        warnings.showwarning(UserWarning("careful"), UserWarning, "file.py", 7)

    def die() -> None:
        raise LookupError("thread gone")

    thread = threading.Thread(target=die, name="helper")
    thread.start()
    thread.join()

    class Leaky:
        def __del__(self) -> None:
            raise OSError("in a finaliser")

    leaky = Leaky()
    del leaky
    out, err = output.stop()
    assert "file.py:7: UserWarning: careful" in out
    assert "thread helper died" in err
    assert "LookupError: thread gone" in err
    assert "OSError: in a finaliser" in err


def test_depth_drops_and_writer_age_are_metrics(output: Output) -> None:
    output.start()
    text = METRICS.render()
    assert 'atlas_log_queue_depth{stream="stdout"}' in text
    assert 'atlas_log_dropped_total{stream="stderr"} 0' in text
    age = float(text.split("\natlas_log_writer_age_seconds ")[1].split("\n")[0])
    assert 0 <= age < 60


def test_an_exit_without_stop_still_writes_everything() -> None:
    done = run(
        """
        from runtime.log import logs
        logs.start()
        for number in range(1000):
            logs.get_logger("x").info("number", n=number)
        logs.get_logger("x").error("last")
        """,
        capture_output=True,
    )
    assert done.returncode == 0
    assert done.stdout.count("\n") == 1000
    assert done.stderr.count("\n") == 1


BLOCKED = """
    import json, os, sys, time, trio
    from runtime.log import logs

    async def main():
        logs.start(capacity=500)
        log = logs.get_logger("x")
        late = 0.0
        for tick in range(200):
            for _ in range(100):
                log.info("a line that nobody reads " + "x" * 100)
            due = trio.current_time() + 0.005
            await trio.sleep_until(due)
            late = max(late, trio.current_time() - due)
            logs.check()
        return late

    late = trio.run(main)
    writer = logs._log.writer
    start = time.monotonic()
    written = logs.stop(0.5)
    report = {"late": late, "dropped": writer.out.dropped, "stop": time.monotonic() - start, "written": written}
    with open(sys.argv[1], "w") as file:
        json.dump(report, file)
"""


# S-901
def test_a_stdout_that_nobody_reads_does_not_hold_up_the_loop_and_drops_are_counted(tmp_path: Path) -> None:
    result = tmp_path / "report.json"
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(BLOCKED), str(result)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert process.wait(60) == 0
    finally:
        process.kill()
    assert process.stdout is not None
    assert process.stderr is not None
    told = process.stderr.read().decode()
    process.stdout.close()
    process.stderr.close()
    report = json.loads(result.read_text())
    assert report["dropped"] >= 20_000 - 500 - 2 * 32 - 700, "the pipe holds 64 KiB, the queue 500 records"
    assert report["late"] < 0.25
    assert report["stop"] < 5
    assert not report["written"]
    assert "nobody reads stdout" in told
    assert "could not be written before the exit" in told


@pytest.mark.parametrize("close", ["import os; os.close(1)", "pass"], ids=["closed", "broken-pipe"])
def test_a_closed_stdout_does_not_hold_up_or_end_the_process(close: str, tmp_path: Path) -> None:
    code = f"""
        {close}
        import time, trio
        from runtime.log import logs
        writer = logs.start()
        async def main():
            for _ in range(50):
                logs.get_logger("x").info("nowhere to go")
                await trio.sleep(0.002)
        trio.run(main)
        assert writer.out.dropped == 50, writer.out.dropped
        logs.get_logger("x").error("still alive")
        logs.stop()
    """
    with (tmp_path / "err").open("w+") as err:
        process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, stderr=err)
        assert process.stdout is not None
        process.stdout.close()
        try:
            assert process.wait(60) == 0
        finally:
            process.kill()
        err.seek(0)
        assert "still alive" in err.read()


def test_saying_something_costs_microseconds() -> None:
    """A bound far above the measured 5 to 10 µs, far below what a write to a terminal costs when it blocks."""
    log = logs.get_logger("x")
    start = time.process_time()
    for number in range(5000):
        log.info("message", n=number, label="fast_expiry")
    assert (time.process_time() - start) / 5000 < 200e-6
    start = time.process_time()
    for _ in range(5000):
        log.debug("below the level")
    assert (time.process_time() - start) / 5000 < 20e-6
