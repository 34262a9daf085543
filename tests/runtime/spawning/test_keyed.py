"""One child a key: it comes with the first message for its key and goes when it has idled."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest
import trio
import trio.testing

from runtime.child import StopReason
from runtime.core.actor import Actor, handler
from runtime.core.keyed import Keyed
from runtime.core.ref import Ref
from runtime.core.spawned import SpawnOptions
from runtime.errors import ActorDead, TooManyChildren
from runtime.message import Delivery, Message, Request
from runtime.restart_limits import NO_BACKOFF
from runtime.testing.system import OnCrash, actor_system


@attrs.frozen
class Add(Message):
    number: int


@attrs.frozen
class Total(Request[int]):
    """What was added since this one began."""


@attrs.frozen
class Fall(Message):
    """Crash."""


@attrs.define(eq=False)
class Account(Actor):
    key: int
    began: list[int]
    may_end: trio.Event | None = None
    fails: bool = False
    total: int = attrs.field(init=False, default=0)

    async def on_start(self) -> None:
        self.began.append(self.key)
        if self.fails:
            raise RuntimeError("no")

    @handler
    async def add(self, message: Add) -> None:
        self.total += message.number

    @handler
    async def get_total(self, _: Total) -> int:
        return self.total

    @handler
    async def fall(self, _: Fall) -> None:
        raise RuntimeError("told to")

    async def on_stop(self, reason: StopReason) -> None:
        if self.may_end is not None:
            await self.may_end.wait()


@attrs.frozen
class Use(Request[Keyed[int]]):
    """The accounts themselves."""


@attrs.define(eq=False)
class Bank(Actor):
    make: Callable[[int], Actor]
    max_children: int = 1000
    accounts: Keyed[int] = attrs.field(init=False)

    async def on_start(self) -> None:
        self.accounts = self.context.keyed(
            self.make, idle=60.0, max_children=self.max_children, options=SpawnOptions(backoff=NO_BACKOFF)
        )

    @handler
    async def use(self, _: Use) -> Keyed[int]:
        return self.accounts


async def opened(ref: Ref) -> Keyed[int]:
    return await ref.ask(Use(), within=1)


# S-1208
async def test_a_key_has_one_actor_from_its_first_message_on(mock_clock: trio.testing.MockClock) -> None:
    began: list[int] = []
    async with actor_system() as system:
        accounts = await opened(await system.start(Bank(lambda key: Account(key, began))))
        assert [accounts.tell(7, Add(1)), accounts.tell(7, Add(2)), accounts.tell(8, Add(5))] == [Delivery.ACCEPTED] * 3
        assert (await accounts.ask(7, Total(), within=1), await accounts.ask(8, Total(), within=1)) == (3, 5)
        assert (sorted(began), sorted(accounts), 7 in accounts) == ([7, 8], [7, 8], True)
        assert system.services.registry.lookup("bank.7").incarnation > 0


# S-1208
async def test_one_that_idles_is_stopped_and_the_next_message_starts_another(
    mock_clock: trio.testing.MockClock,
) -> None:
    began: list[int] = []
    async with actor_system() as system:
        accounts = await opened(await system.start(Bank(lambda key: Account(key, began))))
        accounts.tell(7, Add(1))
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(40.0)
        accounts.tell(7, Add(1))
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(40.0)
        await trio.testing.wait_all_tasks_blocked()
        assert await accounts.ask(7, Total(), within=1) == 2, "it had something to do 40 s ago"
        mock_clock.jump(60.0)
        await trio.testing.wait_all_tasks_blocked()
        assert (list(accounts), len(system.services.spawned)) == ([], 0)
        assert (await accounts.ask(7, Total(), within=1), began) == (0, [7, 7])


# S-1208
async def test_what_comes_while_one_stops_is_handled_by_the_next(mock_clock: trio.testing.MockClock) -> None:
    began: list[int] = []
    async with actor_system() as system:
        may_end = trio.Event()
        accounts = await opened(await system.start(Bank(lambda key: Account(key, began, may_end))))
        accounts.tell(7, Add(1))
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(60.0)
        await trio.testing.wait_all_tasks_blocked()
        assert accounts.tell(7, Add(5)) is Delivery.ACCEPTED
        await trio.testing.wait_all_tasks_blocked()
        assert began == [7], "two of one key never run at once"
        may_end.set()
        await trio.testing.wait_all_tasks_blocked()
        assert (await accounts.ask(7, Total(), within=1), began) == (5, [7, 7])


# S-1208
async def test_one_key_too_many_is_full_and_a_crash_keeps_its_key() -> None:
    began: list[int] = []
    async with actor_system() as system:
        bank = await system.start(Bank(lambda key: Account(key, began), max_children=1))
        accounts = await opened(bank)
        accounts.tell(7, Fall())
        while began != [7, 7]:  # turns of the loop, not a time
            await trio.lowlevel.checkpoint()
        assert accounts.tell(8, Add(1)) is Delivery.FULL
        with pytest.raises(TooManyChildren):
            await accounts.ask(8, Total(), within=1)
        await accounts.stop(7)
        assert accounts.tell(8, Add(1)) is Delivery.ACCEPTED


# S-1208
async def test_one_that_does_not_start_answers_at_once_and_harms_no_other() -> None:
    async with actor_system() as system:
        bank = await system.start(Bank(lambda key: Account(key, [], fails=key == 7)), on_crash=OnCrash.FAIL)
        accounts = await opened(bank)
        with pytest.raises(ActorDead, match="start_failed"):
            await accounts.ask(7, Total(), within=600)
        assert (list(accounts), await accounts.ask(8, Total(), within=1)) == ([], 0)
