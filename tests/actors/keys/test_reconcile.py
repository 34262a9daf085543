"""Reconciling real nodes on a real database: what was lost comes back, what nobody wants goes, and nothing on hearsay."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import TypeVar

import pytest
import trio

from actors.keys.events import NodeDrifted, NodeRestored, PassStopped, SurplusRemoved, UnlistedRemoved
from runtime import Event, WakeUp
from runtime.testing import OnCrash
from tests.actors.node_fixtures import NodeHarness, node_harness
from tests.actors.nodes.lying_proxy import lists
from tests.vpn.agents import key
from tests.vpn.node.faulty_proxy import faulty_proxy
from vpn.node.wire import spec_to_json

E = TypeVar("E", bound=Event)


@pytest.fixture
async def harness(database_dsn: str, tmp_path: Path) -> AsyncIterator[NodeHarness]:
    """One node, `oslo`, and every worker."""
    async with node_harness(database_dsn, tmp_path) as started:
        await started.activation()
        await started.fast_expiry()
        await started.reconcile()
        await started.node("oslo")
        yield started


def said(harness: NodeHarness, kind: type[E]) -> list[E]:
    """The events of a kind so far."""
    return [event for event in harness.pool.events if isinstance(event, kind)]


async def serve(harness: NodeHarness, *telegram_ids: int) -> list[str]:
    """Customers whose keys are live; returns the ids of the keys."""
    for telegram_id in telegram_ids:
        await harness.buy(telegram_id)
    for telegram_id in telegram_ids:
        await harness.until_status(telegram_id, "active")
    return [(await harness.key(telegram_id)).key_id for telegram_id in telegram_ids]


async def test_a_node_that_has_what_the_rows_say_is_equal_by_its_digest_alone(harness: NodeHarness) -> None:
    await serve(harness, 1, 2, 3)
    await harness.look("equal")
    assert await harness.value("SELECT verdict FROM reconcile_passes") == "equal"


async def test_keys_that_the_node_lost_are_put_back(harness: NodeHarness) -> None:
    ids = await serve(harness, 1, 2, 3)
    await harness.lose("oslo", ids[0], ids[2])
    await harness.look("drifted")
    assert sorted(await harness.listed("oslo")) == sorted(ids)
    await harness.look("equal")
    [restored] = said(harness, NodeRestored)
    assert restored.keys == 2


async def test_a_key_whose_removal_the_node_remembers_is_put_back_with_a_newer_generation(harness: NodeHarness) -> None:
    [key_id] = await serve(harness, 1)
    before = (await harness.key(1)).generation
    async with harness.agents["oslo"].client() as client:
        await client.remove(key_id, before + 7)
    await harness.look("drifted")
    await harness.until_status(1, "active")
    assert (await harness.key(1)).generation > before + 7
    assert list(await harness.listed("oslo")) == [key_id]
    await harness.look("equal")


async def test_a_key_that_was_changed_on_the_node_is_put_right(harness: NodeHarness) -> None:
    [key_id] = await serve(harness, 1)
    changed = key(key_id, generation=(await harness.key(1)).generation + 3)
    await harness.put_stranger("oslo", changed)
    await harness.look("drifted")
    await harness.until_status(1, "active")
    listed = await harness.listed("oslo")
    assert listed[key_id].spec.uuid == (await harness.key(1)).uuid
    await harness.look("equal")


async def test_an_unknown_key_is_removed_at_a_second_sighting_after_the_grace_not_before(
    harness: NodeHarness,
) -> None:
    ids = await serve(harness, 1)
    await harness.put_stranger("oslo", key("stranger"))
    await harness.look("drifted")
    await harness.look("drifted")  # a second sighting, but too soon
    assert sorted(await harness.listed("oslo")) == sorted([*ids, "stranger"])
    await harness.move_clock(seconds=121)
    await harness.look("drifted")
    assert list(await harness.listed("oslo")) == ids
    [removed] = said(harness, SurplusRemoved)
    assert removed.key_id == "stranger"
    assert await harness.value("SELECT count(*) FROM key_sightings") == 0
    await harness.look("equal")


async def test_one_sighting_is_not_enough_however_old(harness: NodeHarness) -> None:
    await serve(harness, 1)
    await harness.put_stranger("oslo", key("stranger"))
    await harness.look("drifted")
    await harness.lose("oslo", "stranger")
    await harness.look("equal")
    await harness.put_stranger("oslo", key("stranger"))
    await harness.move_clock(seconds=500)
    await harness.look("drifted")
    assert "stranger" in await harness.listed("oslo")


async def test_a_key_that_was_taken_off_and_is_wanted_again_is_put_back_and_stays(harness: NodeHarness) -> None:
    [key_id] = await serve(harness, 1)
    uuid = (await harness.listed("oslo"))[key_id].spec.uuid
    await harness.revoke(1)
    await harness.until_status(1, "removed")
    generation = (await harness.key(1)).generation
    await harness.put_stranger("oslo", key(key_id, uuid=uuid, generation=generation + 1))
    await harness.look("drifted")
    assert await harness.listed("oslo") == {}
    await harness.buy(1, charge="again")
    await harness.move_clock(seconds=121)
    await harness.look()
    await harness.until_status(1, "active")
    await harness.look("equal")
    assert list(await harness.listed("oslo")) == [key_id]
    assert said(harness, SurplusRemoved) == []


async def test_a_removed_key_that_came_back_on_the_node_is_removed_at_once(harness: NodeHarness) -> None:
    [key_id] = await serve(harness, 1)
    await harness.revoke(1)
    await harness.until_status(1, "removed")
    await harness.put_stranger("oslo", key(key_id, generation=(await harness.key(1)).generation + 1))
    await harness.look("drifted")
    assert await harness.listed("oslo") == {}
    assert (await harness.key(1)).status == "removed"
    assert await harness.at_rest() == []
    await harness.look("equal")


async def test_no_more_keys_are_removed_in_a_pass_than_its_limit(database_dsn: str, tmp_path: Path) -> None:
    async with node_harness(database_dsn, tmp_path) as harness:
        await harness.reconcile(removals=2)
        await harness.node("oslo")
        for number in range(5):
            await harness.put_stranger("oslo", key(f"stranger{number}"))
        await harness.look("drifted")
        await harness.move_clock(seconds=121)
        left = []
        for _ in range(3):
            await harness.look("drifted")
            left.append(len(await harness.listed("oslo")))
        assert left == [3, 1, 0]


async def test_a_surplus_that_is_too_large_removes_nothing_and_opens_a_case(database_dsn: str, tmp_path: Path) -> None:
    async with node_harness(database_dsn, tmp_path) as harness:
        await harness.activation()
        await harness.reconcile(surplus_floor=2)
        await harness.node("oslo")
        [key_id] = await serve(harness, 1)
        for number in range(3):
            await harness.put_stranger("oslo", key(f"stranger{number}"))
        await harness.lose("oslo", key_id)
        await harness.look("implausible")
        await harness.move_clock(seconds=121)
        await harness.look("implausible")
        assert len(await harness.listed("oslo")) == 4, "the strangers stay, and the payer is back"
        assert said(harness, PassStopped)
        assert not harness.refs["reconcile"].address.readiness[0]
        assert await harness.value("SELECT count(*) FROM cases WHERE kind = 'node_implausible'") == 1


async def test_a_node_that_could_not_be_compared_is_ready_again_soon_after_the_cure(
    database_dsn: str, tmp_path: Path
) -> None:
    async with node_harness(database_dsn, tmp_path) as harness:
        ref = await harness.reconcile(surplus_floor=0, retry_troubled=0.2)
        await harness.node("oslo")
        await harness.put_stranger("oslo", key("stranger"))
        ref.tell(WakeUp())

        async def is_in_trouble() -> bool:
            return [(each.about, each.kind) for each in ref.address.troubles()] == [("nodes.oslo", "comparing")]

        async def is_ready() -> bool:
            return ref.address.readiness == (True, "")

        await harness.until(is_in_trouble)
        await harness.lose("oslo", "stranger")
        await harness.until(is_ready)
        assert len(said(harness, PassStopped)) == 1, "it is said once, however often it is looked at"


async def test_a_node_that_is_added_later_gets_the_existing_keys(harness: NodeHarness) -> None:
    ids = await serve(harness, 1, 2)
    await harness.node("rome")  # which wakes the worker

    async def has_all() -> bool:
        return sorted(await harness.listed("rome")) == sorted(ids)

    async def is_noted() -> bool:
        return [node.name for node in (await harness.key(1)).nodes] == ["oslo", "rome"]

    await harness.until(has_all)
    await harness.until(is_noted)
    await harness.look("equal", node="rome")
    assert await harness.at_rest() == []


async def test_a_node_that_lost_everything_gets_everything_back_in_one_request(
    database_dsn: str, tmp_path: Path
) -> None:
    async with node_harness(database_dsn, tmp_path) as harness:
        await harness.activation()
        await harness.reconcile(restore_from=5)
        await harness.node("oslo")
        ids = await serve(harness, *range(1, 8))
        await harness.lose("oslo", *ids)
        await harness.look("drifted")
        assert sorted(await harness.listed("oslo")) == sorted(ids)
        await harness.look("equal")
        assert await harness.at_rest() == []


async def test_a_pass_is_worked_off_page_by_page(database_dsn: str, tmp_path: Path) -> None:
    async with node_harness(database_dsn, tmp_path) as harness:
        await harness.activation()
        await harness.reconcile(page_size=2)
        await harness.node("oslo")
        ids = await serve(harness, *range(1, 8))
        await harness.lose("oslo", ids[0], ids[6])
        await harness.put_stranger("oslo", key("a-stranger"))
        await harness.put_stranger("oslo", key("z-stranger"))
        await harness.look("drifted")
        assert sorted(await harness.listed("oslo")) == sorted([*ids, "a-stranger", "z-stranger"])
        assert await harness.value("SELECT count(*) FROM key_sightings") == 2


@pytest.mark.parametrize("how", ["lost request", "crash"])
async def test_what_is_missing_of_earlier_pages_is_looked_at_again_unless_it_was_put_back(
    database_dsn: str, tmp_path: Path, how: str
) -> None:
    async with node_harness(database_dsn, tmp_path) as harness:
        await harness.activation()
        ref = await harness.reconcile(on_crash=OnCrash.RESTART, page_size=2)
        proxy = await harness.node_behind_proxy("oslo")
        first = min(await serve(harness, *range(1, 7)))
        await harness.look()
        await harness.lose("oslo", first)
        if how == "crash":
            harness.pool.system.services.failpoints.arm("reconcile", "compared", 2)
            ref.tell(WakeUp())
            await harness.pool.system.up(ref, 2)
        else:
            proxy.refused = "POST /v1/batch"
            await harness.look("failed")
            proxy.refused = None
        assert first not in await harness.listed("oslo")
        await harness.look("drifted")
        assert first in await harness.listed("oslo")
        await harness.look("equal")


async def test_a_list_that_is_older_than_a_confirmation_makes_no_key_missing(database_dsn: str, tmp_path: Path) -> None:
    async with node_harness(database_dsn, tmp_path) as harness:
        await harness.activation()
        await harness.reconcile()
        proxy = await harness.node_behind_proxy("oslo")
        await serve(harness, 1)
        await harness.look()
        await harness.put_stranger("oslo", key("stranger"))
        proxy.withheld = "GET /v1/users?"

        async def is_listed() -> bool:
            return proxy.held > 0

        async with trio.open_nursery() as nursery:
            nursery.start_soon(harness.look, "drifted")
            await harness.until(is_listed)
            await serve(harness, 2)
            proxy.release()
        assert said(harness, NodeRestored) == []
        assert await harness.value("SELECT count(*) FROM key_placements WHERE missing_since IS NOT NULL") == 0
        assert [event.missing for event in said(harness, NodeDrifted)] == [0]


async def test_each_node_is_told_of_with_its_own_figures(harness: NodeHarness) -> None:
    await harness.node("rome")
    ids = await serve(harness, 1, 2, 3)
    await harness.look("equal")
    await harness.lose("oslo", *ids)
    await harness.put_stranger("rome", key("stranger"))
    await harness.look("drifted", node="rome")
    figures = {event.node: (event.missing, event.surplus) for event in said(harness, NodeDrifted)}
    assert figures == {"oslo": (3, 0), "rome": (0, 1)}


async def test_a_list_that_does_not_end_is_not_read_on(database_dsn: str, tmp_path: Path) -> None:
    async with node_harness(database_dsn, tmp_path) as harness:
        await harness.activation()
        await harness.reconcile()
        proxy = await harness.node_behind_proxy("oslo")
        await serve(harness, 1)
        await harness.put_stranger("oslo", key("stranger"))
        names = (f"x{number:012d}" for number in count())

        def go_on(told: dict[str, object]) -> None:
            told["keys"] = [spec_to_json(key(next(names))) | {"state": "serving"} for _ in range(500)]
            told["next"] = told["keys"][-1]["key_id"]  # type: ignore[index]  # a list

        proxy.lie = lists(go_on)
        await harness.look("implausible")
        assert proxy.lied == 1


@pytest.mark.parametrize("restore_from", [3, 500])
async def test_a_node_that_cannot_list_gets_back_what_it_lost(
    database_dsn: str, tmp_path: Path, restore_from: int
) -> None:
    async with node_harness(database_dsn, tmp_path) as harness:
        await harness.activation()
        await harness.reconcile(restore_from=restore_from, page_size=2)
        agent = await harness.agent("oslo")
        async with faulty_proxy(agent.url) as proxy:
            proxy.unknown = (b"GET /v1/users?",)
            await harness.node("oslo", proxy.url)
            ids = await serve(harness, *range(1, 6))
            await harness.look("equal")
            await harness.lose("oslo", *ids)
            await harness.look("told again")
            assert sorted(await harness.listed("oslo")) == sorted(ids)
            await harness.look("equal")
            assert await harness.at_rest() == []


async def test_a_node_that_cannot_list_loses_unwanted_keys_after_the_grace_payers_stay(
    database_dsn: str, tmp_path: Path
) -> None:
    async with node_harness(database_dsn, tmp_path) as harness:
        await harness.activation()
        await harness.reconcile(surplus_floor=1)
        agent = await harness.agent("oslo")
        async with faulty_proxy(agent.url) as proxy:
            proxy.unknown = (b"GET /v1/users?",)
            await harness.node("oslo", proxy.url)
            ids = await serve(harness, 1, 2)
            await harness.put_stranger("oslo", key("stranger"))
            before = (await harness.state("oslo")).boot_id
            for _ in range(2):
                await harness.look("told again")
            assert "stranger" in await harness.listed("oslo"), "the grace is not over"
            await harness.move_clock(seconds=121)
            await harness.put_stranger("oslo", key("another"))
            await harness.look("implausible")
            assert len(await harness.listed("oslo")) == 4, "so many are not believed"
            async with agent.client() as client:
                await client.remove("another", 1)
            await harness.look("told again")
            assert sorted(await harness.listed("oslo")) == sorted(ids)
            assert (await harness.state("oslo")).boot_id == before
            [removed] = said(harness, UnlistedRemoved)
            assert removed.keys == 1
            await harness.look("equal")
