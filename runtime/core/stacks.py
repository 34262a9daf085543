"""Where trio's tasks stand, and which of them work for an actor."""

from __future__ import annotations

import linecache
from collections.abc import Iterator
from types import FrameType

import trio

from runtime.core.ask import current_call_context


def all_tasks() -> Iterator[trio.lowlevel.Task]:
    """Every task of the running loop, trio's own and those in its system nursery included."""
    root = trio.lowlevel.current_root_task()
    left = [] if root is None else [root]
    while left:
        task = left.pop()
        yield task
        left += reversed([child for nursery in task.child_nurseries for child in nursery.child_tasks])


def tasks_of(child: object) -> list[trio.lowlevel.Task]:
    """The tasks that work for an actor (given by its address), wherever they hang: its own, and what these started."""
    return [
        task
        for task in all_tasks()
        if (call := task.context.get(current_call_context)) is not None and call.address is child
    ]


def stack_of(task: trio.lowlevel.Task, child: object = None) -> str:
    """Where a task, the tasks it opened nurseries for, and all others that work for `child` stand.

    One block per task, innermost call last. "" if all of them have ended.
    """
    below = list(_with_children(task))
    beside = [other for other in tasks_of(child) if other not in below] if child is not None else []
    return "\n".join(block for each in (*below, *beside) if (block := _one_stack(each)))


def _with_children(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    yield task
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _with_children(child)


def _one_stack(task: trio.lowlevel.Task) -> str:
    lines = [_one_line(frame, number) for frame, number in task.iter_await_frames()]
    return "\n".join([f"task {task.name}", *lines]) if lines else ""


def _one_line(frame: FrameType, number: int) -> str:
    code = frame.f_code
    source = linecache.getline(code.co_filename, number).strip()
    return f"  {code.co_filename}:{number} in {code.co_qualname}: {source}"
