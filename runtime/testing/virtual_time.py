"""Runs of the loop that can be repeated: a clock that jumps, and a schedule that a seed decides. For tests."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar, TypeVarTuple

import trio
import trio.testing
from trio._core import _run as trio_run

R = TypeVar("R")
PosArgs = TypeVarTuple("PosArgs")


def run_virtual(main: Callable[[*PosArgs], Awaitable[R]], *args: *PosArgs, seed: int) -> R:
    """Like `trio.run`, in virtual time, with the order of tasks and all of the module `random` decided by `seed`.

    Whenever every task waits, the clock jumps to the next deadline: hours pass in milliseconds. The same seed gives the
    same run, as long as `main` uses nothing from outside: no sockets, processes, threads or wall clock. (Sets of
    strings need a fixed PYTHONHASHSEED to be the same in another process.) Starts at time 0. Not for use inside a loop.
    """
    with seeded(seed):
        return trio.run(main, *args, clock=trio.testing.MockClock(autojump_threshold=0))


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """While the block runs, `seed` decides trio's order of tasks and the numbers of the module `random`.

    For a run of the loop that starts inside the block. Afterwards both are as they were.
    """
    # trio has this switch for exactly this purpose, and no public name for it; its version is pinned.
    before = trio_run._r, trio_run._ALLOW_DETERMINISTIC_SCHEDULING, random.getstate()
    trio_run._r = random.Random(seed)  # noqa: S311  # it is to be guessed
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # Final for everybody but its users
    random.seed(seed)
    try:
        yield
    finally:
        trio_run._r, trio_run._ALLOW_DETERMINISTIC_SCHEDULING = before[:2]  # type: ignore[misc]  # as above
        random.setstate(before[2])
