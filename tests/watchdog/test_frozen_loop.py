"""A loop that does not turn: what is reported while it stands, what happens after it, and when the process leaves."""

from __future__ import annotations

import re
from typing import Any

import trio

from tests.watchdog.demo_actors import letters_for
from tests.watchdog.watched_process import HEALTHCHECK_STALE, LONG, LOOP_STALE, WORKER_STALE, side_by_side, watched

BLOCKER = """
[actor.reconcile]
actor = "{{actors}}:LoopBlocker"
args = {{{{ how = "{how}", seconds = {seconds} }}}}
needs = ["ticker", "healthcheck"]
"""
STACKS = {"sleep": "sleep_long", "lock": "take_a_lock_twice"}


def blocker(how: str, seconds: float) -> str:
    return BLOCKER.format(how=how, seconds=letters_for(seconds) if how == "regex" and seconds else seconds)


async def test_a_block_shorter_than_any_limit_is_nobodys_business() -> None:
    await side_by_side(short_block, ("sleep", 1.0), ("lock", 1.0), ("regex", 0.2))


async def short_block(how: str, seconds: float) -> None:
    # Limits, of a pause as well, that a busy machine does not reach by itself.
    limits: dict[str, Any] = {"interval": 1.0, "event_loop_stale": 5 * LOOP_STALE, "worker_stale": 5 * WORKER_STALE}
    async with watched(blocker(how, seconds), healthcheck_stale=5 * HEALTHCHECK_STALE, **limits) as process:
        await process.out.until("lets the loop go on")
        assert set((await process.incarnations()).values()) == {1}
        assert await process.stop() == 0
        assert process.complaints == []


async def test_a_stale_loop_is_reported_with_stack_actor_and_message_and_serves_on() -> None:
    """A loop that stands silences the worker and the health check with it, so that "the loop alone" is a matter of limits:
    the other two are given longer than the block. There is nothing to repair from within: it is reported."""
    await side_by_side(long_block, ("sleep",), ("lock",))


async def long_block(how: str) -> None:
    async with watched(blocker(how, 2.0), worker_stale=LONG, healthcheck_stale=LONG) as process:
        await process.err.until("CRITICAL the event loop has not turned for")
        await process.err.until("demo_actors.py:")
        await process.err.until("the event loop turns again after")
        assert "lets the loop go on" in await process.out.until("lets the loop go on"), "reported while it stood"
        told = process.err.text
        assert re.search(r"handling: actor reconcile, message Begin, for \d+\.\d s", told)
        assert re.search(rf"demo_actors\.py:\d+ {STACKS[how]}$", told, re.MULTILINE)
        assert told.count("CRITICAL the event loop") == 1
        assert set((await process.incarnations()).values()) == {1}
        assert await process.stop() == 0


async def test_all_three_beats_stale_leave_with_70_and_say_why() -> None:
    """The lock taken twice on the loop's thread is what killed the system before this one, for good and in silence."""
    await side_by_side(block_for_good, ("sleep",), ("lock",))


async def block_for_good(how: str) -> None:
    async with watched(blocker(how, 0)) as process:
        assert await process.exit() == 70
        told = process.err.text
        assert "CRITICAL all three heartbeats are stale, leaving with status 70" in told
        assert re.search(
            r"beats: event_loop \d+\.\d s, worker \d+\.\d s \(ticker is \w+\), healthcheck \d+\.\d s", told
        ), told
        assert re.search(r"handling: actor reconcile, message Begin, for \d+\.\d s", told)
        assert re.search(rf"demo_actors\.py:\d+ {STACKS[how]}$", told, re.MULTILINE)
        assert "blocks the loop" in process.out, "what was logged before the end is not lost"
        assert "restarting it" not in told, "nobody on a frozen loop is blamed"


async def test_an_interpreter_held_for_a_while_is_noticed_and_for_good_ends_with_1() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(held_for_a_while)
        nursery.start_soon(held_for_good)


async def held_for_a_while() -> None:
    """While one piece of C code holds the interpreter lock, no Python thread runs: a report with a stack *during* it is
    impossible below the C timer's limit. The nearest true thing: afterwards the loop says for how long it stood, the
    pause is forgiven to everybody, and the process serves on."""
    async with watched(blocker("regex", 2.5), gil_timer=LONG) as process:
        await process.out.until("the event loop stood for")
        await process.err.until("the process paused for")
        assert set((await process.incarnations()).values()) == {1}
        assert "stale" not in process.err
        assert await process.stop() == 0


async def held_for_good() -> None:
    """Documented as "wedged with the GIL held"."""
    async with watched(blocker("regex", 0), gil_timer=4.0) as process:
        assert await process.exit() == 1
        told = process.err.text
        assert "Timeout (0:00:04" in told
        assert re.search(r'demo_actors\.py", line \d+ in hold_the_interpreter', told)
        assert "leaving with status 70" not in told
