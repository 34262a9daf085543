"""Reconciling real nodes on a real database: what was lost comes back, what nobody wants goes, and nothing on hearsay."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import TypeVar

import pytest

from actors.reconcile_events import NodeDrifted, NodeRestored, PassStopped, SurplusRemoved, UnlistedRemoved
from runtime.events import Event
from runtime.message import WakeUp
from runtime.testing import OnCrash
from tests.actors.lying_proxy import lists, lying_proxy
from tests.actors.node_house import NodeHouse, node_house
from tests.vpn.agents import key
from tests.vpn.faulty import faulty_proxy
from vpn.wire import spec_to_json

E = TypeVar("E", bound=Event)


@pytest.fixture
async def house(database_dsn: str, tmp_path: Path) -> AsyncIterator[NodeHouse]:
    """One node, `oslo`, and every worker."""
    async with node_house(database_dsn, tmp_path) as started:
        await started.activation()
        await started.fast_expiry()
        await started.reconcile()
        await started.node("oslo")
        yield started


def said(house: NodeHouse, kind: type[E]) -> list[E]:
    """The events of a kind so far."""
    return [event for event in house.pool.events if isinstance(event, kind)]


async def serve(house: NodeHouse, *telegram_ids: int) -> list[str]:
    """Customers whose keys are live; returns the ids of the keys."""
    for telegram_id in telegram_ids:
        await house.buy(telegram_id)
    for telegram_id in telegram_ids:
        await house.until_status(telegram_id, "active")
    return [(await house.key(telegram_id)).key_id for telegram_id in telegram_ids]


async def test_a_node_that_has_what_the_rows_say_is_equal_by_its_digest_alone(house: NodeHouse) -> None:
    await serve(house, 1, 2, 3)
    await house.look("equal")
    assert await house.value("SELECT verdict FROM reconcile_passes") == "equal"


async def test_keys_that_the_node_lost_are_put_back(house: NodeHouse) -> None:
    ids = await serve(house, 1, 2, 3)
    await house.lose("oslo", ids[0], ids[2])
    await house.look("drifted")
    assert sorted(await house.listed("oslo")) == sorted(ids)
    await house.look("equal")
    [restored] = said(house, NodeRestored)
    assert restored.keys == 2


async def test_a_key_whose_removal_the_node_remembers_is_put_back_with_a_newer_generation(house: NodeHouse) -> None:
    [key_id] = await serve(house, 1)
    before = (await house.key(1)).generation
    async with house.agents["oslo"].client() as client:
        await client.remove(key_id, before + 7)
    await house.look("drifted")
    await house.until_status(1, "active")
    assert (await house.key(1)).generation > before + 7
    assert list(await house.listed("oslo")) == [key_id]
    await house.look("equal")


async def test_a_key_that_was_changed_on_the_node_is_put_right(house: NodeHouse) -> None:
    [key_id] = await serve(house, 1)
    changed = key(key_id, generation=(await house.key(1)).generation + 3)
    await house.put_stranger("oslo", changed)
    await house.look("drifted")
    await house.until_status(1, "active")
    listed = await house.listed("oslo")
    assert listed[key_id].spec.uuid == (await house.key(1)).uuid
    await house.look("equal")


async def test_an_unknown_key_is_removed_after_a_second_sighting_older_than_the_grace_and_not_before(
    house: NodeHouse,
) -> None:
    ids = await serve(house, 1)
    await house.put_stranger("oslo", key("stranger"))
    await house.look("drifted")
    await house.look("drifted")  # a second sighting, but too soon
    assert sorted(await house.listed("oslo")) == sorted([*ids, "stranger"])
    await house.move_clock(seconds=121)
    await house.look("drifted")
    assert list(await house.listed("oslo")) == ids
    [removed] = said(house, SurplusRemoved)
    assert removed.key_id == "stranger"
    assert await house.value("SELECT count(*) FROM key_sightings") == 0
    await house.look("equal")


async def test_one_sighting_is_not_enough_however_old(house: NodeHouse) -> None:
    await serve(house, 1)
    await house.put_stranger("oslo", key("stranger"))
    await house.look("drifted")
    await house.lose("oslo", "stranger")
    await house.look("equal")
    await house.put_stranger("oslo", key("stranger"))
    await house.move_clock(seconds=500)
    await house.look("drifted")
    assert "stranger" in await house.listed("oslo")


async def test_a_key_that_became_wanted_in_quarantine_stays(house: NodeHouse) -> None:
    [key_id] = await serve(house, 1)
    uuid = (await house.listed("oslo"))[key_id].spec.uuid
    await house.revoke(1)
    await house.until_status(1, "removed")
    generation = (await house.key(1)).generation
    await house.put_stranger("oslo", key(key_id, uuid=uuid, generation=generation + 1))
    await house.look("drifted")
    await house.buy(1, charge="again")
    await house.move_clock(seconds=121)
    await house.look()
    await house.until_status(1, "active")
    await house.look("equal")
    assert list(await house.listed("oslo")) == [key_id]
    assert said(house, SurplusRemoved) == []


async def test_a_removed_key_that_came_back_on_the_node_is_removed_again(house: NodeHouse) -> None:
    [key_id] = await serve(house, 1)
    await house.revoke(1)
    await house.until_status(1, "removed")
    await house.put_stranger("oslo", key(key_id, generation=(await house.key(1)).generation + 1))
    await house.look("drifted")
    await house.move_clock(seconds=121)
    await house.look("drifted")
    assert await house.listed("oslo") == {}
    assert (await house.key(1)).status == "removed"


async def test_no_more_keys_are_removed_in_a_pass_than_its_limit(database_dsn: str, tmp_path: Path) -> None:
    async with node_house(database_dsn, tmp_path) as house:
        await house.reconcile(removals=2)
        await house.node("oslo")
        for number in range(5):
            await house.put_stranger("oslo", key(f"stranger{number}"))
        await house.look("drifted")
        await house.move_clock(seconds=121)
        left = []
        for _ in range(3):
            await house.look("drifted")
            left.append(len(await house.listed("oslo")))
        assert left == [3, 1, 0]


async def test_a_surplus_that_is_too_large_removes_nothing_and_opens_a_case(database_dsn: str, tmp_path: Path) -> None:
    async with node_house(database_dsn, tmp_path) as house:
        await house.activation()
        await house.reconcile(surplus_floor=2)
        await house.node("oslo")
        [key_id] = await serve(house, 1)
        for number in range(3):
            await house.put_stranger("oslo", key(f"stranger{number}"))
        await house.lose("oslo", key_id)
        await house.look("implausible")
        await house.move_clock(seconds=121)
        await house.look("implausible")
        assert len(await house.listed("oslo")) == 4, "the strangers stay, and the payer is back"
        assert said(house, PassStopped)
        assert not house.refs["reconcile"].address.readiness[0]
        assert await house.value("SELECT count(*) FROM cases WHERE kind = 'node_implausible'") == 1


async def test_a_node_that_is_added_later_gets_the_existing_keys(house: NodeHouse) -> None:
    ids = await serve(house, 1, 2)
    await house.node("rome")  # which wakes the worker

    async def has_all() -> bool:
        return sorted(await house.listed("rome")) == sorted(ids)

    async def is_noted() -> bool:
        return [node.name for node in (await house.key(1)).nodes] == ["oslo", "rome"]

    await house.until(has_all)
    await house.until(is_noted)
    await house.look("equal", node="rome")
    assert await house.at_rest() == []


async def test_a_node_that_lost_everything_gets_everything_back_in_one_request(
    database_dsn: str, tmp_path: Path
) -> None:
    async with node_house(database_dsn, tmp_path) as house:
        await house.activation()
        await house.reconcile(restore_from=5)
        await house.node("oslo")
        ids = await serve(house, *range(1, 8))
        await house.lose("oslo", *ids)
        await house.look("drifted")
        assert sorted(await house.listed("oslo")) == sorted(ids)
        await house.look("equal")
        assert await house.at_rest() == []


async def test_a_pass_is_worked_off_page_by_page(database_dsn: str, tmp_path: Path) -> None:
    async with node_house(database_dsn, tmp_path) as house:
        await house.activation()
        await house.reconcile(page_size=2)
        await house.node("oslo")
        ids = await serve(house, *range(1, 8))
        await house.lose("oslo", ids[0], ids[6])
        await house.put_stranger("oslo", key("a-stranger"))
        await house.put_stranger("oslo", key("z-stranger"))
        await house.look("drifted")
        assert sorted(await house.listed("oslo")) == sorted([*ids, "a-stranger", "z-stranger"])
        assert await house.value("SELECT count(*) FROM key_sightings") == 2


@pytest.mark.parametrize("how", ["lost request", "crash"])
async def test_what_is_missing_of_earlier_pages_is_looked_at_again_unless_it_was_put_back(
    database_dsn: str, tmp_path: Path, how: str
) -> None:
    async with node_house(database_dsn, tmp_path) as house:
        await house.activation()
        ref = await house.reconcile(on_crash=OnCrash.RESTART, page_size=2)
        agent = await house.agent("oslo")
        proxy = await house.stack.enter_async_context(lying_proxy(agent.url))
        await house.node("oslo", proxy.url)
        first = min(await serve(house, *range(1, 7)))
        await house.look()
        await house.lose("oslo", first)
        if how == "crash":
            house.pool.system.services.failpoints.arm("reconcile", "compared", 2)
            ref.tell(WakeUp())
            await house.pool.system.up(ref, 2)
        else:
            proxy.refused = "POST /v1/batch"
            await house.look("failed")
            proxy.refused = None
        assert first not in await house.listed("oslo")
        await house.look("drifted")
        assert first in await house.listed("oslo")
        await house.look("equal")


async def test_each_node_is_told_of_with_its_own_figures(house: NodeHouse) -> None:
    await house.node("rome")
    ids = await serve(house, 1, 2, 3)
    await house.look("equal")
    await house.lose("oslo", *ids)
    await house.put_stranger("rome", key("stranger"))
    await house.look("drifted", node="rome")
    figures = {event.node: (event.missing, event.surplus) for event in said(house, NodeDrifted)}
    assert figures == {"oslo": (3, 0), "rome": (0, 1)}


async def test_a_list_that_does_not_end_is_not_read_on(database_dsn: str, tmp_path: Path) -> None:
    async with node_house(database_dsn, tmp_path) as house:
        await house.activation()
        await house.reconcile()
        agent = await house.agent("oslo")
        proxy = await house.stack.enter_async_context(lying_proxy(agent.url))
        await house.node("oslo", proxy.url)
        await serve(house, 1)
        await house.put_stranger("oslo", key("stranger"))
        names = (f"x{number:012d}" for number in count())

        def go_on(told: dict[str, object]) -> None:
            told["keys"] = [spec_to_json(key(next(names))) | {"state": "serving"} for _ in range(500)]
            told["next"] = told["keys"][-1]["key_id"]  # type: ignore[index]  # a list

        proxy.lie = lists(go_on)
        await house.look("implausible")
        assert proxy.lied == 1


@pytest.mark.parametrize("restore_from", [3, 500])
async def test_a_node_that_cannot_list_gets_back_what_it_lost(
    database_dsn: str, tmp_path: Path, restore_from: int
) -> None:
    async with node_house(database_dsn, tmp_path) as house:
        await house.activation()
        await house.reconcile(restore_from=restore_from, page_size=2)
        agent = await house.agent("oslo")
        async with faulty_proxy(agent.url) as proxy:
            proxy.unknown = (b"GET /v1/users?",)
            await house.node("oslo", proxy.url)
            ids = await serve(house, *range(1, 6))
            await house.look("equal")
            await house.lose("oslo", *ids)
            await house.look("told again")
            assert sorted(await house.listed("oslo")) == sorted(ids)
            await house.look("equal")
            assert await house.at_rest() == []


async def test_what_nobody_wants_on_a_node_that_cannot_list_goes_after_the_grace_and_payers_stay(
    database_dsn: str, tmp_path: Path
) -> None:
    async with node_house(database_dsn, tmp_path) as house:
        await house.activation()
        await house.reconcile(surplus_floor=1)
        agent = await house.agent("oslo")
        async with faulty_proxy(agent.url) as proxy:
            proxy.unknown = (b"GET /v1/users?",)
            await house.node("oslo", proxy.url)
            ids = await serve(house, 1, 2)
            await house.put_stranger("oslo", key("stranger"))
            before = (await house.state("oslo")).boot_id
            for _ in range(2):
                await house.look("told again")
            assert "stranger" in await house.listed("oslo"), "the grace is not over"
            await house.move_clock(seconds=121)
            await house.put_stranger("oslo", key("another"))
            await house.look("implausible")
            assert len(await house.listed("oslo")) == 4, "so many are not believed"
            async with agent.client() as client:
                await client.remove("another", 1)
            await house.look("told again")
            assert sorted(await house.listed("oslo")) == sorted(ids)
            assert (await house.state("oslo")).boot_id == before
            [removed] = said(house, UnlistedRemoved)
            assert removed.keys == 1
            await house.look("equal")
