"""Logging that never blocks: `get_logger(name).info("message", field=value)` appends to a queue and returns.

A thread writes: INFO and WARNING to stdout, ERROR and CRITICAL to stderr, as text or JSON, with the actor and the
correlation id, redacted. What does not fit is dropped, counted, and reported in the log itself. The stdlib's `logging`,
warnings and unraisable exceptions are captured into the same queue, without a handler lock.

Before `start`, up to 1000 records wait and are then written; a process that never starts the log writes none of them.
"""

from __future__ import annotations

import atexit
import itertools
import logging
import time
from collections import deque
from typing import TYPE_CHECKING

from runtime.correlation import correlation_id, current_actor
from runtime.log.record import RENDERINGS, Record
from runtime.log.stdlib import StdlibCapture
from runtime.log.writer import CAPACITY, LogWriter
from runtime.metrics import counter, gauge
from runtime.redaction import one_line, redact

if TYPE_CHECKING:
    from runtime.events import Event, EventRecord

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
RECENT = 2000
"""Records that are kept for `atlas log`."""
FLUSH_SECONDS = 2.0
"""How long an exit waits for the last records."""

QUEUE_DEPTH = gauge("atlas_log_queue_depth", "Log records that wait to be written.", labels=("stream",))
DROPPED = counter("atlas_log_dropped_total", "Log records that the stream did not take in time.", labels=("stream",))
WRITER_AGE = gauge("atlas_log_writer_age_seconds", "Seconds since the log writer's thread last showed a sign of life.")
WRITER_RESTARTS = counter("atlas_log_writer_restarts_total", "Log writer threads replaced because they died or hung.")


class Logger:
    """A named logger. Its methods never wait and never raise; below the configured level they cost a comparison.

    Fields become `name=value` or JSON members. A field that is an exception is shown as its type and text; the one
    called `error` also brings its traceback. Values are turned into text at once, so later changes do not show.
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def debug(self, message: str, **fields: object) -> None:
        """For developers; off by default."""
        if _log.level <= logging.DEBUG:
            _log.say(logging.DEBUG, self.name, message, fields)

    def info(self, message: str, **fields: object) -> None:
        """Normal operation. Goes to stdout."""
        if _log.level <= logging.INFO:
            _log.say(logging.INFO, self.name, message, fields)

    def warning(self, message: str, **fields: object) -> None:
        """Unusual, but handled. Goes to stdout."""
        if _log.level <= logging.WARNING:
            _log.say(logging.WARNING, self.name, message, fields)

    def error(self, message: str, **fields: object) -> None:
        """Something failed. Goes to stderr."""
        if _log.level <= logging.ERROR:
            _log.say(logging.ERROR, self.name, message, fields)

    def critical(self, message: str, **fields: object) -> None:
        """Somebody must look at once. Goes to stderr."""
        _log.say(logging.CRITICAL, self.name, message, fields)


class _Log:
    """The process's log: its level, its writer, and what was said before there was one."""

    def __init__(self) -> None:
        self.level = logging.INFO
        self.writer: LogWriter | None = None
        self.capture = StdlibCapture(self.put)
        self.early: deque[Record] = deque(maxlen=1000)
        self.recent: deque[tuple[int, Record]] = deque(maxlen=RECENT)
        self.numbers = itertools.count(1)

    def put(self, record: Record) -> None:
        if record.level < self.level:
            return
        # Any thread may come here: `next` and `append` are each one step for the interpreter.
        self.recent.append((next(self.numbers), record))
        if not record.actor:
            record.actor = current_actor.get()
        if not record.correlation:
            record.correlation = correlation_id.get()
        if self.writer is None:
            self.early.append(record)
        else:
            self.writer.put(record)

    def say(self, level: int, logger: str, message: str, fields: dict[str, object]) -> None:
        error = fields.get("error")
        self.put(
            Record(
                time.time(), level, logger, message, fields, error=error if isinstance(error, BaseException) else None
            )
        )


_log = _Log()


def get_logger(name: str) -> Logger:
    """A logger for a module or part. Cheap; keep it at module level."""
    return Logger(name)


def recent() -> list[tuple[int, Record]]:
    """The latest records of this process, the oldest first, each with its number: those that were said, written or not."""
    while True:
        try:
            return list(_log.recent)
        except RuntimeError:  # another thread said something meanwhile
            continue


def log_event(record: EventRecord) -> None:
    """The log line of an event: its sentence, and for machines its kind and facts."""
    event = record.event
    if event.level >= _log.level:
        facts = {"event": record.kind, "sequence": record.sequence, **record.facts}
        _log.put(
            Record(
                record.at,
                event.level,
                "atlas.events",
                event.line(),
                actor=event.actor,
                facts=facts,
                details=event.details(),
            )
        )


def log_unheard(event: Event) -> None:
    """Log an event that no bus was given for: here if the log runs, else by the stdlib's `logging`.

    There its logger is `atlas.events`, and WARNING and above are seen on stderr even in a program that configures nothing.
    """
    if _log.writer is not None:
        _log.put(
            Record(
                time.time(),
                event.level,
                "atlas.events",
                event.line(),
                actor=event.actor,
                facts={"event": event.kind, **event.facts()},
                details=event.details(),
            )
        )
        return
    logger = logging.getLogger("atlas.events")
    if logger.isEnabledFor(event.level):
        details = event.details()
        rows = () if details is None else details.lines()
        logger.log(event.level, "%s", "\n    ".join([one_line(redact(event.line())), *map(one_line, rows)]))


def start(
    level: str = "info",
    format: str = "text",  # noqa: A002  as the setting is called
    *,
    out: int = 1,
    err: int = 2,
    capacity: int = CAPACITY,
) -> LogWriter:
    """Start the writer's thread on the descriptors `out` and `err`, capture the stdlib's logging, flush at exit.

    ValueError for an unknown level or format; RuntimeError if the log runs already.
    """
    if _log.writer is not None:
        raise RuntimeError("the log has been started already; reconfigure() changes level and format")
    threshold, render = _level(level), RENDERINGS[_format(format)]
    writer = LogWriter(render, out=out, err=err, capacity=capacity)
    _log.writer = writer
    while _log.early:
        early = _log.early.popleft()
        if early.level >= threshold:
            writer.put(early)
    writer.start()
    _log.level = threshold
    _log.capture.install(threshold)
    QUEUE_DEPTH.from_source(lambda: [((stream.name,), len(stream.queue)) for stream in writer.streams])
    DROPPED.from_source(lambda: [((stream.name,), stream.dropped) for stream in writer.streams])
    WRITER_AGE.from_callback((), writer.age)
    WRITER_RESTARTS.from_callback((), lambda: writer.restarts)
    atexit.register(stop)
    return writer


def reconfigure(level: str | None = None, format: str | None = None) -> None:  # noqa: A002  as the setting is called
    """Change level and format while the log runs; None leaves as is. ValueError for unknown names."""
    threshold = _log.level if level is None else _level(level)
    render = None if format is None else RENDERINGS[_format(format)]
    _log.level = threshold
    _log.capture.set_level(threshold)
    if render is not None and _log.writer is not None:
        _log.writer.render = render


def check() -> None:
    """Replace a writer's thread that died or hangs. Called at each tick of the watchdog; never blocks."""
    if _log.writer is not None:
        _log.writer.check()


def flush(seconds: float = FLUSH_SECONDS) -> bool:
    """Wait up to `seconds` until everything said so far is written; whether it is. Blocks the caller's thread."""
    return _log.writer is None or _log.writer.flush(seconds)


def stop(seconds: float = FLUSH_SECONDS) -> bool:
    """Write what waits within `seconds`, end the thread, release the stdlib's logging; whether all was written.

    Blocks so long; harmless when the log does not run.
    """
    writer, _log.writer = _log.writer, None
    if writer is None:
        return True
    atexit.unregister(stop)
    _log.capture.remove()
    return writer.stop(seconds)


def _level(name: str) -> int:
    try:
        return LEVELS[name.lower()]
    except KeyError:
        raise ValueError(f"unknown log level {name!r}; known: {', '.join(LEVELS)}") from None


def _format(name: str) -> str:
    if name not in RENDERINGS:
        raise ValueError(f"unknown log format {name!r}; known: {', '.join(RENDERINGS)}")
    return name
