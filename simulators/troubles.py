"""What can be wrong with a provider for a while."""

from __future__ import annotations

from collections import deque

import attrs
import trio

Json = dict[str, object]


@attrs.define
class Troubles:
    """Faults that a test gives a provider: statuses for the next requests, and a gate that holds requests up.

    `before` are statuses that the next requests are answered with instead of being done, `after` those that they are
    answered with although they were done. While `gate` is set and not open, every request waits at it; `someone_waits`
    is set once one does.
    """

    before: deque[int] = attrs.field(factory=deque)
    after: deque[int] = attrs.field(factory=deque)
    gate: trio.Event | None = None
    someone_waits: trio.Event = attrs.field(factory=trio.Event)

    async def pass_gate(self) -> None:
        """Wait until the gate opens, if there is one."""
        if self.gate is not None:
            self.someone_waits.set()
            await self.gate.wait()

    def refuse(self) -> int:
        """The status to answer with instead of working, or 0."""
        return self.before.popleft() if self.before else 0

    def spoil(self) -> int:
        """The status to answer with although the work was done, or 0."""
        return self.after.popleft() if self.after else 0
