"""A task that belongs to an actor's incarnation."""

from __future__ import annotations

import trio


class ActorTask:
    """A handle to a task started with `context.start_task`."""

    __slots__ = ("_done", "name", "scope")

    def __init__(self, name: str) -> None:
        self.name = name
        self.scope = trio.CancelScope()
        self._done = trio.Event()

    def cancel(self) -> None:
        """End it at its next checkpoint. That is not a crash. Harmless when it has ended."""
        self.scope.cancel(reason=f"task {self.name} was cancelled by its actor")

    @property
    def is_done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._done.is_set()

    async def wait(self) -> None:
        """Wait for its end. Never raises its error: a crash of the task is a crash of the actor."""
        await self._done.wait()

    def finished(self) -> None:
        """For the runtime: the task has ended."""
        self._done.set()
