"""The actor that is measured."""

from __future__ import annotations

import attrs

from runtime import Actor, Message, Request, handler


@attrs.frozen
class Add(Message):
    """Count this."""

    n: int


@attrs.frozen
class GetTotal(Request[int]):
    """Answered with the count."""


@attrs.define(eq=False)
class Counter(Actor):
    """Role: does next to nothing, so that messaging is what is measured. Owns a number. On crash: starts at 0."""

    total: int = attrs.field(init=False, default=0)

    @handler
    async def add(self, message: Add) -> None:
        """Count."""
        self.total += message.n

    @handler
    async def get(self, _: GetTotal) -> int:
        """Answer."""
        return self.total
