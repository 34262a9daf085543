"""Counts the files, functions and moves that a piece of work passes in the four rooms; `tools/trips.py` uses it.

What is counted, between `begin()` and `end()`:

* A **file** of `runtime/`, `actors/`, `db/` or `vpn/` is passed when one of its functions runs. Everything else (trio, asyncpg,
  attrs, the standard library, tests, tools) is looked through: a call from a file of the rooms by way of the standard library
  into another file of the rooms is a move from the one to the other.
* A **function** is passed when it is entered, resumed, left or suspended. Methods, closures, lambdas and generators are
  functions; a comprehension is part of the function around it; what attrs generates is not counted.
* A **move** is a call or a return between two different files: from the nearest caller on the stack that belongs to the rooms
  into the function, and back. A coroutine or generator is called each time that it is resumed, and returns each time that
  it waits, so that a chain of awaits through n files costs n - 1 moves when it falls asleep, and again when it wakes up. An
  exception that leaves a function is a return. Where no caller belongs to the rooms (trio resumes a task, a library calls
  back) there is no move, so that the order in which trio runs tasks does not count.
* Of the moves, **awaits** are those that suspend a coroutine or generator, or resume it. The others are plain calls and returns.

Counted is the thread that calls `begin()`: neither the log's writer nor another process is.
"""

from __future__ import annotations

import dis
import sys
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Final

import attrs
import trio

ROOT: Final = Path(__file__).parent.parent
ROOMS: Final = ("runtime", "actors", "db", "vpn")
_COMPREHENSIONS: Final = frozenset({"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"})
_RESUME: Final = dis.opmap["RESUME"]
_YIELD: Final = dis.opmap["YIELD_VALUE"]


@attrs.define
class Trace:
    """What one piece of work passed."""

    functions: dict[tuple[str, str], None] = attrs.field(factory=dict)
    """File and qualified name, in the order in which they were first passed."""
    moves: Counter[tuple[str, str]] = attrs.field(factory=Counter)
    """How often it went from one file to another."""
    awaits: int = 0
    """How many of the moves suspended or resumed a coroutine or generator."""

    @property
    def files(self) -> list[str]:
        """In the order in which they were first passed."""
        return list(dict.fromkeys(file for file, _ in self.functions))

    def functions_of(self, file: str) -> list[str]:
        """The functions of one file, in the order in which they were first passed."""
        return [function for where, function in self.functions if where == file]

    def pairs(self) -> list[tuple[str, str, int]]:
        """Two files and the moves between them, both directions together; most moves first."""
        found: Counter[tuple[str, str]] = Counter()
        for (start, end), count in self.moves.items():
            found[min(start, end), max(start, end)] += count
        ordered = sorted(found.items(), key=lambda each: (-each[1], each[0]))
        return [(one, other, count) for (one, other), count in ordered]


class MoveCounter:
    """Makes one Trace after another. A thread has room for one profiler, so that only one of these can count at a time."""

    def __init__(self, root: Path = ROOT) -> None:
        """`root` is the directory of the four rooms."""
        self.trace = Trace()
        """What was counted last, or is being counted."""
        self._root = root
        self._files: dict[CodeType, str | None] = {}
        self._ignored: set[trio.lowlevel.Task] = set()
        self._seen: set[trio.lowlevel.Task] = set()

    def begin(self) -> None:
        """Count from now on, from nothing."""
        self.trace = Trace()
        self._seen = set()
        sys.setprofile(self._note)

    def end(self) -> None:
        """Count no more. Harmless if nothing is being counted."""
        sys.setprofile(None)

    def ignore_caller(self) -> None:
        """Leave the calling task out from now on."""
        self._ignored.add(trio.lowlevel.current_task())

    async def ignore_clocks(self, seconds: float) -> None:
        """Leave out, from now on, each task that does something during this time, in which there is nothing to do.

        What such a task does is done periodically, whatever else happens.
        """
        self.begin()
        try:
            await trio.sleep(seconds)
        finally:
            self.end()
        self._ignored |= self._seen

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        if event not in ("call", "return"):
            return
        file = self._file(frame.f_code)
        if file is None or self._is_ignored():
            return
        self.trace.functions[file, _function(frame.f_code)] = None
        caller, outer = frame.f_back, None
        while caller is not None and (outer := self._file(caller.f_code)) is None:
            caller = caller.f_back
        if outer is None or outer == file:
            return
        if event == "call":
            self.trace.moves[outer, file] += 1
            self.trace.awaits += _is_resumed(frame)
        else:
            self.trace.moves[file, outer] += 1
            self.trace.awaits += _is_suspended(frame)

    def _is_ignored(self) -> bool:
        try:
            task = trio.lowlevel.current_task()
        except RuntimeError:
            return False  # trio's loop itself calls, or there is none
        self._seen.add(task)
        return task in self._ignored

    def _file(self, code: CodeType) -> str | None:
        """The file's path from the root, with forward slashes, if it belongs to the rooms."""
        if code not in self._files:
            path = Path(code.co_filename)
            inside = path.relative_to(self._root) if path.is_relative_to(self._root) else Path()
            self._files[code] = inside.as_posix() if inside.parts and inside.parts[0] in ROOMS else None
        return self._files[code]


def _function(code: CodeType) -> str:
    """The function's qualified name; of a comprehension, that of the function around it."""
    parts = code.co_qualname.split(".")
    while parts[-1] in _COMPREHENSIONS:
        del parts[-2:]  # with the `<locals>` before it
        if not parts:
            return "<module>"
    return ".".join(parts)


def _is_resumed(frame: FrameType) -> bool:
    """Whether a frame that is entered had begun before. Only a first entry stands at `RESUME 0`."""
    code, at = frame.f_code.co_code, frame.f_lasti
    return code[at] != _RESUME or code[at + 1] & 3 != 0


def _is_suspended(frame: FrameType) -> bool:
    """Whether a frame that is left waits. One that an exception ends where it waited is counted here as well."""
    return frame.f_code.co_code[frame.f_lasti] == _YIELD
