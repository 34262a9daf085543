"""Errors as text: the one renderer for all of them. It never raises, and what it gives is bounded and redacted.

An exception is whatever an actor raised. Its `__str__` may raise anything, its text may be hundreds of megabytes, its chain of
causes or its groups may have thousands of members. So texts are cut before they are searched for secrets, frames, causes and
leaves are counted, and nothing here trusts a method of the error. The stdlib's `TracebackException` visits every leaf and
cause, and renders all of each text.

`summarise` takes from an error what must be taken while its frames exist, and reads no file; the text, with the lines of source,
is made when it is asked for: by the log's thread, mostly.
"""

from __future__ import annotations

import functools
import linecache
import reprlib
from collections import deque
from collections.abc import Iterator
from types import TracebackType

import attrs

from runtime.redaction import one_line, redact, some_lines

MAX_LINE = 500
"""Characters of an error in one line."""
MAX_TEXT = 4_000
"""Characters of one error's text in a traceback."""
MAX_ERRORS = 25
"""Errors in one traceback, causes, contexts and leaves together; each of them takes at most MAX_TEXT and all frames."""
MAX_LEAVES = 15
MAX_DEPTH = 8
"""Groups within groups that are shown; for the look through a group for a certain error there is no limit but MAX_VISITED."""
OUTER_FRAMES, INNER_FRAMES = 10, 30
"""Frames shown of the outer and of the inner end of a traceback; a recursion has a thousand."""
MAX_NOTES = 10
MAX_SOURCE = 200
MAX_VISITED = 10_000
"""Members of groups that `leaves` gives at most."""
_MARGIN = 1_024
"""More than the longest secret that redaction knows: what was cut in the middle of one is dropped with so many characters."""
_PLAIN_STR = (BaseException.__str__, KeyError.__str__)

_repr = reprlib.Repr()
_repr.maxlevel = 4
_repr.maxstring = _repr.maxother = _repr.maxlong = MAX_LINE
_repr.maxdict = _repr.maxlist = _repr.maxtuple = _repr.maxset = _repr.maxfrozenset = _repr.maxdeque = 20


def error_text(error: BaseException, limit: int = MAX_LINE) -> str:
    """`Type: text` on one line, redacted, `limit` characters at most and how many more there are. Never raises."""
    return one_line(_head(error, limit))


def message_of(error: BaseException, limit: int = MAX_TEXT) -> str:
    """The error's own text without its type, redacted, line breaks kept, at most `limit` characters. Never raises."""
    return some_lines(cut_redacted(_text(error, limit), limit))


def cut_redacted(text: str, limit: int, before: str = "") -> str:
    """At most `limit` characters of `before` and `text`, redacted. Takes no longer for a longer text, and splits no secret."""
    length = len(before) + len(text)
    part = before + text[: limit + _MARGIN]
    shown = redact(part)
    if len(part) < length:
        # The end may be half a secret, which no pattern knows.
        shown = shown[:-_MARGIN]
    elif len(shown) <= limit:
        return shown
    shown = shown[:limit]
    return f"{shown}… ({length - len(shown)} more characters)"


def show_value(value: object) -> str:
    """What `repr` gives, but of bounded size, whatever it is. Never raises."""
    try:
        return _repr.repr(value)
    except BaseException as failure:  # noqa: BLE001  its __repr__ is anybody's code
        return f"<{type(value).__name__} that cannot be shown: {type(failure).__name__}>"


def leaves(error: BaseException | None) -> Iterator[BaseException]:
    """The error itself, or all that is in it if it is a group, at any depth; MAX_VISITED of them at most."""
    waiting: list[BaseException] = [] if error is None else [error]
    for _ in range(MAX_VISITED):
        if not waiting:
            return
        found = waiting.pop()
        if isinstance(found, BaseExceptionGroup):
            waiting.extend(reversed(_members(found)))
        else:
            yield found


@attrs.frozen
class Frame:
    """One line of a traceback."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


@attrs.frozen
class ErrorSummary:
    """What is kept of an error: texts and places, no frame and no object of it."""

    head: str
    """`Type: text`, redacted; may have several lines."""
    notes: tuple[str, ...] = ()
    frames: tuple[Frame, ...] = ()
    """Outermost first."""
    left_out: int = 0
    """Frames that are missing after the first OUTER_FRAMES."""
    before: ErrorSummary | None = None
    """Its cause, or the error during whose handling it was raised."""
    is_cause: bool = False
    leaves: tuple[ErrorSummary, ...] = ()
    more_leaves: int = 0
    more_before: bool = False
    """Its causes go on, but are not shown."""

    @property
    def where(self) -> str:
        """The innermost frame, `file:line in function`; of a group, that of its first leaf. Empty if there is none."""
        if self.leaves and (found := self.leaves[0].where):
            return found
        return str(self.frames[-1]) if self.frames else ""

    def lines(self) -> Iterator[str]:
        """As Python shows it, causes first, without line ends; redacted."""
        chain: list[ErrorSummary] = [self]
        while (earlier := chain[-1].before) is not None:
            chain.append(earlier)
        if chain[-1].more_before:
            yield "(earlier causes are not shown)"
            yield ""
        for error in reversed(chain):
            yield from error._own_lines()
            if error is not self:
                follower = chain[chain.index(error) - 1]
                yield ""
                yield (
                    "The above exception was the direct cause of the following exception:"
                    if follower.is_cause
                    else "During handling of the above exception, another exception occurred:"
                )
                yield ""

    def _own_lines(self) -> Iterator[str]:
        if self.frames:
            yield "Traceback (most recent call last):"
        for number, frame in enumerate(self.frames):
            if self.left_out and number == OUTER_FRAMES:
                yield f"  … {self.left_out} frames are not shown"
            yield from _frame_lines(frame)
        yield from self.head.split("\n")
        yield from self.notes
        for number, leaf in enumerate(self.leaves, 1):
            yield f"  +---------------- {number} of {len(self.leaves) + self.more_leaves}"
            for line in leaf.lines():
                yield f"  | {line}"
        if self.more_leaves:
            yield f"  +---------------- {self.more_leaves} more are not shown"


@functools.lru_cache(maxsize=1_024)  # what crashes once mostly crashes again, in the same places
def _frame_lines(frame: Frame) -> tuple[str, ...]:
    place = f'  File "{frame.file}", line {frame.line}, in {frame.function}'
    source = linecache.getline(frame.file, frame.line).strip()
    return (redact(place), f"    {redact(source[:MAX_SOURCE])}") if source else (redact(place),)


def summarise(error: BaseException) -> ErrorSummary:
    """Take from an error what a report needs: bounded, redacted where a text is the error's own. Never raises, reads no file."""
    try:
        return _Summaries().of(error, MAX_DEPTH)
    except BaseException as failure:  # noqa: BLE001  a crash must not be made worse by its report
        return ErrorSummary(f"{_name(error)} that cannot be shown: {type(failure).__name__}")


class _Summaries:
    """One walk through an error and all that belongs to it: nothing twice, nothing without limit."""

    def __init__(self) -> None:
        self._left = MAX_ERRORS
        self._seen: set[int] = set()

    def of(self, error: BaseException, depth: int) -> ErrorSummary:
        chain, more = self._chain(error)
        summary: ErrorSummary | None = None
        for each, is_cause in reversed(chain):
            summary = self._one(each, depth, summary, is_cause=is_cause, more_before=more and summary is None)
        assert summary is not None, "the error itself is in its chain"
        return summary

    def _chain(self, error: BaseException) -> tuple[list[tuple[BaseException, bool]], bool]:
        """The error and what came before it, newest first, each with whether the next is its cause; whether there are more."""
        chain: list[tuple[BaseException, bool]] = []
        current: BaseException | None = error
        while current is not None and id(current) not in self._seen and self._left > 0:
            self._seen.add(id(current))
            self._left -= 1
            cause = current.__cause__
            chain.append((current, cause is not None))
            if cause is None and not current.__suppress_context__:
                cause = current.__context__
            current = cause
        if not chain:
            chain.append((error, False))
        return chain, current is not None and id(current) not in self._seen

    def _one(
        self, error: BaseException, depth: int, before: ErrorSummary | None, *, is_cause: bool, more_before: bool
    ) -> ErrorSummary:
        frames, left_out = _frames(error.__traceback__)
        shown: list[ErrorSummary] = []
        more = 0
        if isinstance(error, BaseExceptionGroup):
            members = _members(error)
            for member in members[:MAX_LEAVES] if depth > 0 else ():
                if self._left <= 0:
                    break
                if id(member) not in self._seen:
                    shown.append(self.of(member, depth - 1))
            more = len(members) - len(shown)
        return ErrorSummary(
            head=_head(error, MAX_TEXT),
            notes=_notes(error),
            frames=frames,
            left_out=left_out,
            before=before,
            is_cause=is_cause,
            leaves=tuple(shown),
            more_leaves=more,
            more_before=more_before,
        )


def _frames(traceback: TracebackType | None) -> tuple[tuple[Frame, ...], int]:
    outer: list[TracebackType] = []
    inner: deque[TracebackType] = deque(maxlen=INNER_FRAMES)
    left_out = 0
    while traceback is not None:
        if len(outer) < OUTER_FRAMES:
            outer.append(traceback)
        else:
            left_out += len(inner) == INNER_FRAMES
            inner.append(traceback)
        traceback = traceback.tb_next
    found = []
    for each in (*outer, *inner):
        code = each.tb_frame.f_code
        found.append(Frame(code.co_filename, each.tb_lineno, code.co_qualname))
    return tuple(found), left_out


def _members(group: BaseExceptionGroup[BaseException]) -> tuple[BaseException, ...]:
    # Not `group.exceptions`: a subclass may have put something of its own in its place.
    members: tuple[BaseException, ...] = BaseExceptionGroup.exceptions.__get__(group)
    return members


def _notes(error: BaseException) -> tuple[str, ...]:
    try:
        notes = error.__dict__.get("__notes__")
    except BaseException:  # noqa: BLE001  __dict__ may be a property of its class
        return ()
    if not isinstance(notes, list):
        return ()
    return tuple(cut_redacted(note, MAX_LINE) for note in notes[:MAX_NOTES] if type(note) is str)


def _head(error: BaseException, limit: int) -> str:
    text = _text(error, limit)
    return cut_redacted(text, limit, f"{_name(error)}: ") if text else _name(error)


def _name(error: BaseException) -> str:
    # Not `type(error).__name__`: a metaclass may have put something of its own in its place.
    name: str = type.__dict__["__name__"].__get__(type(error))
    return name[:100]


def _text(error: BaseException, limit: int) -> str:
    """What `str` gives; where that only shows the arguments, they are shown in bounded size."""
    try:
        kind = type(error)
        if kind.__str__ in _PLAIN_STR:
            args: tuple[object, ...] = BaseException.args.__get__(error)  # type: ignore[attr-defined]  # a descriptor of C
            if not args:
                return ""
            if len(args) > 1:
                return show_value(args)
            if type(args[0]) is not str or kind.__str__ is KeyError.__str__:
                return show_value(args[0])
            return args[0]
        if isinstance(error, BaseExceptionGroup) and kind.__str__ is BaseExceptionGroup.__str__:
            message: str = BaseExceptionGroup.message.__get__(error)
            count = len(_members(error))
            return f"{cut_redacted(message, limit)} ({count} sub-exception{'' if count == 1 else 's'})"
        return str.__str__(str(error)).rstrip()
    except BaseException as failure:  # noqa: BLE001  its __str__ is anybody's code, and may raise anything
        return f"<its text cannot be shown: {_name(failure)}>"
