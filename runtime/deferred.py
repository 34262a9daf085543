"""A reply that is given later."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from outcome import Error, Value

if TYPE_CHECKING:
    from runtime.ask import PendingAsk

R = TypeVar("R")


class Deferred(Generic[R]):
    """The promise to answer a request after its handler has returned; made by `context.defer(message)`.

    The handler returns it and goes on to the next message. Whoever holds it answers once; if the incarnation dies
    before, the asker gets ActorCrashed. It is not awaited by anyone but the asker.
    """

    __slots__ = ("_ask",)

    def __init__(self, ask: PendingAsk | None) -> None:
        self._ask = ask

    @property
    def is_open(self) -> bool:
        """Whether somebody still waits for the answer: false once answered, timed out, cancelled, or told, not asked."""
        return self._ask is not None and self._ask.outcome is None

    @property
    def deadline(self) -> float:
        """Time on trio's clock after which nobody waits any more; infinity if nobody asked."""
        return float("inf") if self._ask is None else self._ask.deadline

    def reply(self, value: R) -> bool:
        """Answer. False if nobody waits any more: what was handed out with the reply is then still the caller's."""
        return self._ask is not None and self._ask.settle(Value(value))

    def fail(self, error: Exception) -> bool:
        """Answer with an error, raised at the asker. False if nobody waits any more."""
        return self._ask is not None and self._ask.settle(Error(error))
