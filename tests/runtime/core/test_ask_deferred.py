from __future__ import annotations

import math

import attrs
import pytest
import trio

from runtime.core.actor import Actor, handler
from runtime.core.ask import Deferred
from runtime.errors import ActorCrashed
from runtime.message import Message, Request
from runtime.testing.system import OnCrash, actor_system


@attrs.frozen
class Borrow(Request[str]):
    """Deferred until Give."""


@attrs.frozen
class Count(Request[int]):
    """Answered at once."""


@attrs.frozen
class Forget(Request[str]):
    """The handler defers, and returns something else."""


@attrs.frozen
class Reuse(Request[str]):
    """The handler returns the Deferred of another request."""


@attrs.frozen
class Steal(Request[str]):
    """The handler defers another request than the one it handles."""


@attrs.frozen
class Give(Message):
    text: str


@attrs.frozen
class Refuse(Message):
    text: str


@attrs.define(eq=False)
class Library(Actor):
    """Role: owes answers. Owns what it owes. On crash: the askers are told."""

    shelf: list[Deferred[str]]
    outcomes: list[bool]

    @handler
    async def borrow(self, message: Borrow) -> Deferred[str]:
        deferred = self.context.defer(message)
        self.shelf.append(deferred)
        return deferred

    @handler
    async def count(self, _: Count) -> int:
        return len(self.shelf)

    @handler
    async def forget(self, message: Forget) -> str | Deferred[str]:
        self.context.defer(message)
        return "forgotten"

    @handler
    async def reuse(self, _: Reuse) -> Deferred[str]:
        return self.shelf[0]

    @handler
    async def steal(self, _: Steal) -> Deferred[str]:
        return self.context.defer(Borrow())

    @handler
    async def give(self, message: Give) -> None:
        self.outcomes.append(self.shelf.pop(0).reply(message.text))

    @handler
    async def refuse(self, message: Refuse) -> None:
        self.outcomes.append(self.shelf.pop(0).fail(KeyError(message.text)))


async def test_the_handler_goes_on_while_the_answer_is_owed() -> None:
    shelf: list[Deferred[str]] = []
    outcomes: list[bool] = []
    answers: list[str] = []
    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(Library(shelf, outcomes))

        async def borrow() -> None:
            answers.append(await ref.ask(Borrow(), within=5))

        nursery.start_soon(borrow)
        await trio.testing.wait_all_tasks_blocked()
        assert await ref.ask(Count(), within=1) == 1
        assert shelf[0].is_open
        assert shelf[0].deadline == pytest.approx(trio.current_time() + 5, abs=1)
        ref.tell(Give("a book"))
    assert answers == ["a book"]
    assert outcomes == [True]


async def test_a_deferred_request_can_be_answered_with_an_error() -> None:
    outcomes: list[bool] = []
    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(Library([], outcomes))

        async def borrow() -> None:
            with pytest.raises(KeyError, match="lent"):
                await ref.ask(Borrow(), within=5)

        nursery.start_soon(borrow)
        await trio.testing.wait_all_tasks_blocked()
        ref.tell(Refuse("lent"))
    assert outcomes == [True]
    assert ref.incarnation == 1


async def test_an_answer_that_reaches_nobody_says_so() -> None:
    shelf: list[Deferred[str]] = []
    outcomes: list[bool] = []
    async with actor_system() as system:
        ref = await system.start(Library(shelf, outcomes))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: ref.ask(Borrow(), within=5))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert not shelf[0].is_open
        ref.tell(Give("a book"))
        await trio.testing.wait_all_tasks_blocked()
        assert outcomes == [False]


async def test_the_second_answer_is_refused() -> None:
    shelf: list[Deferred[str]] = []
    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(Library(shelf, []))
        nursery.start_soon(lambda: ref.ask(Borrow(), within=5))
        await trio.testing.wait_all_tasks_blocked()
        assert shelf[0].reply("first")
        assert not shelf[0].reply("second")
        assert not shelf[0].fail(KeyError("third"))


async def test_a_request_that_was_told_can_be_deferred_and_its_answer_goes_nowhere() -> None:
    shelf: list[Deferred[str]] = []
    async with actor_system() as system:
        ref = await system.start(Library(shelf, []))
        ref.tell(Borrow())
        assert await ref.ask(Count(), within=1) == 1  # and the next request is not confused by it
        assert (shelf[0].is_open, shelf[0].deadline, shelf[0].reply("x")) == (False, math.inf, False)


@pytest.mark.parametrize(
    ("message", "error"),
    [(Forget(), "must return the Deferred that it made"), (Steal(), "can only defer the request it handles now")],
)
async def test_a_handler_defers_the_request_it_handles_and_returns_that(message: Request[str], error: str) -> None:
    async with actor_system() as system:
        ref = await system.start(Library([], []), on_crash=OnCrash.STOP)
        with pytest.raises(ActorCrashed, match=error):
            await ref.ask(message, within=5)


async def test_returning_the_deferred_of_another_request_is_an_error() -> None:
    async with actor_system() as system, trio.open_nursery() as nursery:
        ref = await system.start(Library([], []), on_crash=OnCrash.STOP)

        async def borrow() -> None:
            with pytest.raises(ActorCrashed, match="owed the reply to Borrow"):
                await ref.ask(Borrow(), within=5)

        nursery.start_soon(borrow)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ActorCrashed, match="must return the Deferred that it made"):
            await ref.ask(Reuse(), within=5)
