from __future__ import annotations

import threading
import time

import attrs
import trio

from runtime.core import beats
from runtime.core.actor import Actor, handler
from runtime.message import Message
from runtime.testing.system import actor_system
from runtime.watchdog.loop_position import MAX_FRAMES, LoopPosition, loop_position


@attrs.frozen
class Look(Message):
    pass


class Looker:
    """Looks at the loop's thread from another thread while the loop stands."""

    def __init__(self) -> None:
        self.loop = threading.get_ident()
        self.seen: LoopPosition | None = None

    def look(self) -> None:
        thread = threading.Thread(target=self._look)
        thread.start()
        thread.join()

    def _look(self) -> None:
        self.seen = loop_position(self.loop)

    @property
    def position(self) -> LoopPosition:
        assert self.seen is not None
        return self.seen


@attrs.define(eq=False)
class Watched(Actor):
    looker: Looker
    done: trio.Event

    @handler
    async def look(self, message: Look) -> None:
        assert message == Look()
        self.looker.look()
        self.done.set()


@attrs.define(eq=False)
class Tasker(Actor):
    looker: Looker
    done: trio.Event

    @handler
    async def look(self, message: Look) -> None:
        self.context.start_task(self._work, message, name="work")

    async def _work(self, message: Look) -> None:
        assert message == Look()
        await trio.lowlevel.checkpoint()
        self.looker.look()
        self.done.set()


async def test_a_handler_that_blocks_is_named_with_its_message_and_stack() -> None:
    looker, done = Looker(), trio.Event()
    async with actor_system() as system:
        before = time.monotonic()
        (await system.start(Watched(looker, done), name="pool.main")).tell(Look())
        await done.wait()
    position = looker.position
    assert (position.actor, position.message) == ("pool.main", "Look")
    assert position.handling_since is not None
    assert before <= position.handling_since <= time.monotonic()
    stack = "\n".join(position.stack)
    assert "Watched.look" in stack
    assert "test_loop_position.py" in stack
    assert stack.index("unrolled_run") < stack.index("Watched.look") < stack.index("Looker.look"), "innermost last"
    lines = position.lines(position.handling_since + 6.24)
    assert lines[0] == "  handling: actor pool.main, message Look, for 6.2 s"
    assert lines[1].startswith("  trio task: ")


async def test_a_task_that_blocks_is_named_with_its_actor_even_if_another_was_active_last() -> None:
    looker, done = Looker(), trio.Event()
    async with actor_system() as system:
        (await system.start(Tasker(looker, done), name="reconcile")).tell(Look())
        await done.wait()
    assert (looker.position.actor, looker.position.task) == ("reconcile", "reconcile/work")


async def test_code_outside_all_actors_is_named_by_its_task() -> None:
    looker = Looker()
    looker.look()
    assert "test_code_outside_all_actors" in looker.position.task
    assert looker.position.lines(0.0)[0] == "  handling: no actor's message"


def test_without_a_task_the_slot_tells_who_was_handed_a_message_last() -> None:
    before = beats.current
    try:
        beats.current = ("pool.main", "Acquire", 10.0)
        position = loop_position(threading.get_ident())
        assert (position.actor, position.message, position.handling_since) == ("pool.main", "Acquire", 10.0)
        assert position.lines(12.0)[:2] == [
            "  handling: actor pool.main, message Acquire, for 2.0 s",
            "  trio task: none: the loop waits for events",
        ]
    finally:
        beats.current = before


def test_a_thread_that_is_gone_has_no_stack() -> None:
    assert loop_position(-1).stack == ()


def test_a_very_deep_stack_shows_its_innermost_frames() -> None:
    def dive(depth: int) -> LoopPosition:
        return dive(depth - 1) if depth else loop_position(threading.get_ident())

    position = dive(200)
    assert len(position.stack) == MAX_FRAMES
    assert position.stack[-1].endswith("loop_position")
