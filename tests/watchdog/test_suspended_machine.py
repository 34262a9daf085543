"""A process that was stopped and continued: nobody is to blame, once.

The pauses are longer than every stale limit and shorter than the timer in C, which knows the clock and nothing else: after
a longer SIGSTOP it may end the process with status 1 before anybody can forgive. (A suspended machine is no such case: its
monotonic clock stands still, and the timer with it.)

SIGSTOP stands for the suspended machine, the frozen container and the paused virtual machine. Here, and only here, time
itself is what is tested: while the process is stopped there is nothing that could be awaited.
"""

from __future__ import annotations

import signal

import trio

from tests.stopping import stop
from tests.watchdog.watched_process import WORKER_STALE, Watched, watched

BLOCKER = """
[actor.reconcile]
actor = "{actors}:LoopBlocker"
args = {{ how = "sleep" }}
"""


async def suspend(process: Watched, seconds: float) -> None:
    stop(process.process.pid)
    await trio.sleep(seconds)
    process.process.send_signal(signal.SIGCONT)


async def test_a_pause_shorter_than_any_limit_leaves_no_trace() -> None:
    async with watched("") as process:
        await process.out.until("atlas is up")
        await suspend(process, 0.2)
        assert set((await process.incarnations()).values()) == {1}
        assert await process.stop() == 0
        assert process.complaints == []


async def test_a_pause_beyond_every_limit_is_forgiven_once_while_the_loop_does_not_turn() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(everybody_serves_on)
        nursery.start_soon(a_loop_that_stands_is_forgiven_one_pause_and_not_the_next)


async def everybody_serves_on() -> None:
    """One stale beat alone cannot be had here: a process that does not run is silent altogether."""
    async with watched("") as process:
        await process.out.until("atlas is up")
        for pause in (1, 2):
            await suspend(process, WORKER_STALE + 0.5)
            await process.err.until("the process paused for", times=pause)
            await process.out.until("the event loop stood for", times=pause)  # so it has turned since
        assert set((await process.incarnations()).values()) == {1}
        assert await process.stop() == 0
        assert "restarting it" not in process.err
        assert "stale" not in process.err


async def a_loop_that_stands_is_forgiven_one_pause_and_not_the_next() -> None:
    async with watched(BLOCKER) as process:
        await process.out.until("blocks the loop")
        await suspend(process, WORKER_STALE + 0.5)
        await process.err.until("the process paused for")
        assert await process.exit() == 70
        assert process.err.text.count("all beats count from now on") == 1
