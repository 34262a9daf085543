"""Keeps an error that cannot be printed from ending trio: the one place where trio prints what a task raised.

When a child of a nursery, or its body, raises, trio notes `repr(error)` as the reason of the cancellation that follows, inside
its own loop: a `__repr__` that raises there is an internal error of trio, and ends the process. No code of an actor is between;
so the two methods are wrapped, and such an error goes on inside one that can be printed. The pin on trio is exact, and
the tests of containment fail when these methods change.
"""

from __future__ import annotations

from typing import Any

import trio
from outcome import Error

from runtime.error_text import error_text
from runtime.errors import AtlasError


class UnprintableError(AtlasError):
    """Stands for an error whose `repr` raised; that error is the `__cause__`."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error_text(error))
        self.__cause__ = error


def printable(error: BaseException) -> BaseException:
    """The error itself if `repr` of it works, else an UnprintableError."""
    try:
        repr(error)
    except BaseException:  # noqa: BLE001  # whatever its __repr__ raises is the reason to replace it
        return UnprintableError(error)
    return error


def protect_nurseries() -> None:
    """Let every nursery of this process survive errors that cannot be printed. Harmless when repeated."""
    nursery: Any = trio.Nursery
    if getattr(nursery._child_finished, "is_protected", False):
        return
    child_finished, nested_child_finished = nursery._child_finished, nursery._nested_child_finished

    def protected_child_finished(self: Any, task: Any, outcome: Any) -> None:
        # A cancelled child is the common case, and can be printed.
        if isinstance(outcome, Error) and not isinstance(outcome.error, trio.Cancelled):
            outcome = Error(printable(outcome.error))
        child_finished(self, task, outcome)

    async def protected_nested_child_finished(self: Any, error: BaseException | None) -> BaseException | None:
        if error is not None and not isinstance(error, trio.Cancelled):
            error = printable(error)
        found: BaseException | None = await nested_child_finished(self, error)
        return found

    protected_child_finished.is_protected = True  # type: ignore[attr-defined]  # read above
    nursery._child_finished = protected_child_finished
    nursery._nested_child_finished = protected_nested_child_finished
