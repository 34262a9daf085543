"""One holder at a time, on database time; whoever lost it finds out at the next renewal."""

import trio

from db.work.leader_leases import Epoch, acquire_epoch, release_epoch, renew_epoch
from tests.db.database import Database


async def test_of_many_who_want_it_one_gets_it_and_the_others_learn_who(database: Database) -> None:
    answers: list[Epoch] = []

    async def want(name: str) -> None:
        answers.append(await database.run(acquire_epoch, "reconcile", name, 30.0))

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(want, f"process-{number}")
    [winner] = [answer for answer in answers if answer.is_mine]
    assert {answer.holder for answer in answers} == {winner.holder}


async def test_a_holder_that_is_late_loses_it_and_its_renewal_says_so(database: Database) -> None:
    first = await database.run(acquire_epoch, "reconcile", "first", 30.0)
    assert await database.run(renew_epoch, first, 30.0)
    assert not (await database.run(acquire_epoch, "reconcile", "second", 30.0)).is_mine
    await database.move_clock(seconds=31)
    second = await database.run(acquire_epoch, "reconcile", "second", 30.0)
    assert (second.is_mine, second.epoch) == (True, first.epoch + 1)
    assert not await database.run(renew_epoch, first, 30.0)
    assert not await database.run(release_epoch, first)


async def test_a_released_singleton_is_free_at_once(database: Database) -> None:
    first = await database.run(acquire_epoch, "reconcile", "first", 30.0)
    assert await database.run(release_epoch, first)
    assert (await database.run(acquire_epoch, "reconcile", "second", 30.0)).is_mine


async def test_a_holder_that_has_provably_ended_is_followed_at_once(database: Database) -> None:
    first = await database.run(acquire_epoch, "reconcile", "first", 30.0)
    asked: list[Epoch] = []

    def is_dead(found: Epoch) -> bool:
        asked.append(found)
        return found.holder == "first"

    second = await database.run(acquire_epoch, "reconcile", "second", 30.0, is_dead)
    assert (second.is_mine, second.epoch) == (True, first.epoch + 1)
    assert not await database.run(renew_epoch, first, 30.0)
    third = await database.run(acquire_epoch, "reconcile", "third", 30.0, is_dead)
    assert (third.is_mine, third.holder) == (False, "second")
    assert [found.holder for found in asked] == ["first", "second"]
    assert 25 < third.seconds_left <= 30


async def test_of_several_who_follow_a_dead_holder_at_once_one_gets_it(database: Database) -> None:
    await database.run(acquire_epoch, "reconcile", "dead", 30.0)
    answers: list[Epoch] = []

    async def follow(name: str) -> None:
        answers.append(await database.run(acquire_epoch, "reconcile", name, 30.0, lambda found: found.holder == "dead"))

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(follow, f"process-{number}")
    assert [answer.is_mine for answer in answers].count(True) == 1
