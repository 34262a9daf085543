"""The nursery that all incarnations of one supervision tree live in.

Flat on purpose: a supervisor can end although a child of it ignores cancellation, and report that child, instead of
hanging together with it; and nesting supervisors costs no depth. What is alive is known by the supervisors, and the
ground does not close before the last task is gone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar

import attrs
import trio

from runtime.incarnation import Incarnation


@attrs.define(eq=False)
class Ground:
    """Where incarnations are spawned, and the way for a fatal error to the root of the tree."""

    nursery: trio.Nursery
    on_fatal: Callable[[BaseException], None] | None = None
    """Set by the root supervisor while it lives."""

    def spawn(self, incarnation: Incarnation) -> None:
        """Let an incarnation begin."""
        self.nursery.start_soon(incarnation.live, name=f"{incarnation.child.name}#{incarnation.number}")

    def report_fatal(self, error: BaseException) -> None:
        """Ask the root supervisor for an ordered shutdown that ends in this error."""
        if self.on_fatal is not None:
            self.on_fatal(error)


_ground: ContextVar[Ground | None] = ContextVar("atlas_supervision_ground", default=None)


def current_ground() -> Ground | None:
    """The ground of the tree that the calling task belongs to."""
    return _ground.get()


@asynccontextmanager
async def open_ground() -> AsyncIterator[Ground]:
    """A ground for the supervision tree that is run inside the block.

    The block's own error comes out as it is. Leaving waits for unstopped children, under any cancellation: a process
    that will not wait looks at the supervisor's `unstopped` inside the block and leaves with `os._exit`.
    """
    error: BaseException | None = None
    async with trio.open_nursery() as nursery:
        ground = Ground(nursery)
        token = _ground.set(ground)
        try:
            yield ground
        except BaseException as raised:  # noqa: BLE001  # raised again below, outside the nursery that would wrap it
            error = raised
        finally:
            _ground.reset(token)
    if error is not None:
        raise error
