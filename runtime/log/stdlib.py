"""The stdlib's logging, warnings and forgotten exceptions, captured into our queue without a handler lock."""

from __future__ import annotations

import logging
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from runtime.log.record import Record

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

NOISY = ("asyncio", "hpack", "httpcore", "httpx")
"""Loggers that say nothing of use below WARNING: a line per request, among others."""


class LockFreeHandler(logging.Handler):
    """A stdlib handler that appends to our queue. It has no lock: the queue needs none, and a lock could freeze the loop."""

    def __init__(self, put: Callable[[Record], None]) -> None:
        super().__init__()
        self._put = put

    def createLock(self) -> None:  # noqa: N802  the stdlib's name
        """No lock at all."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Filter and emit, without the lock that the base class would take."""
        if not self.filter(record):
            return False
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Turn the record into ours and queue it. Never raises."""
        try:
            message = record.getMessage()
        except Exception as misfit:  # noqa: BLE001  a wrong format string must not stop the one who logs it
            message = f"{record.msg!r} with arguments that do not fit: {type(misfit).__name__}"
        error = record.exc_info[1] if record.exc_info else None
        fields = {"error": error} if error is not None else None
        self._put(Record(record.created, _rounded(record.levelno), record.name, message, fields, error=error))


class StdlibCapture:
    """Installs the handler and the hooks, and puts back what was there before."""

    def __init__(self, put: Callable[[Record], None]) -> None:
        self._put = put
        self._handlers: list[logging.Handler] | None = None
        self._level = logging.WARNING
        self._quieted: list[logging.Logger] = []
        self._hooks = (sys.unraisablehook, threading.excepthook, warnings.showwarning)

    def install(self, level: int) -> None:
        """Take over the root logger, warnings, and exceptions that cannot be caught (finalisers, threads)."""
        root = logging.getLogger()
        self._handlers, self._level = root.handlers[:], root.level
        root.handlers[:] = [LockFreeHandler(self._put)]
        root.setLevel(level)
        for name in NOISY:
            logger = logging.getLogger(name)
            if logger.level == logging.NOTSET:
                logger.setLevel(logging.WARNING)
                self._quieted.append(logger)
        self._hooks = (sys.unraisablehook, threading.excepthook, warnings.showwarning)
        sys.unraisablehook = self._unraisable
        threading.excepthook = self._thread_died
        warnings.showwarning = self._warning

    def set_level(self, level: int) -> None:
        """Change what passes."""
        if self._handlers is not None:
            logging.getLogger().setLevel(level)

    def remove(self) -> None:
        """Put back what was there before `install`."""
        if self._handlers is None:
            return
        root = logging.getLogger()
        root.handlers[:] = self._handlers
        root.setLevel(self._level)
        self._handlers = None
        for logger in self._quieted:
            logger.setLevel(logging.NOTSET)
        self._quieted.clear()
        sys.unraisablehook, threading.excepthook, warnings.showwarning = self._hooks

    def _say(self, level: int, logger: str, message: str, error: BaseException | None = None) -> None:
        fields = {"error": error} if error is not None else None
        self._put(Record(time.time(), level, logger, message, fields, error=error))

    def _unraisable(self, args: UnraisableHookArgs) -> None:
        what = args.err_msg or "exception ignored in"
        self._say(logging.ERROR, "python.unraisable", f"{what} {args.object!r}", args.exc_value)

    def _thread_died(self, args: threading.ExceptHookArgs) -> None:
        if args.exc_type is not SystemExit:
            name = args.thread.name if args.thread is not None else "?"
            self._say(logging.ERROR, "python.thread", f"thread {name} died", args.exc_value)

    def _warning(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        self._say(logging.WARNING, "python.warnings", f"{filename}:{lineno}: {category.__name__}: {message}")


def _rounded(level: int) -> int:
    """The stdlib knows any number; we know five levels."""
    return max(logging.DEBUG, min(logging.CRITICAL, level // 10 * 10))
