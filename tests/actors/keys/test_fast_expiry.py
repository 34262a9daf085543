"""The end of access: marked in the database first, gone from the node after, and never for who has paid meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest

from actors.announcements import AccessEnded, Announcement, KeyActive
from actors.keys.fast_expiry import FastExpiry
from db.access.subscriptions import expire_page
from db.billing.grants import grant_trial
from db.customers import add_customer
from tests.actors.locks import IMPATIENT, locked
from tests.actors.node_fixtures import NEVER, NodeHarness, node_harness


@pytest.fixture
async def harness(database_dsn: str, tmp_path: Path) -> AsyncIterator[NodeHarness]:
    async with node_harness(database_dsn, tmp_path, database=IMPATIENT) as harness:
        await harness.activation()
        await harness.node("oslo")
        yield harness


async def until(harness: NodeHarness, query: str, wanted: object) -> None:
    async def is_so() -> bool:
        return await harness.value(query) == wanted

    await harness.until(is_so)


async def test_access_that_has_ended_is_marked_and_its_key_leaves_the_node(harness: NodeHarness) -> None:
    listener = await harness.pool.system.probe()
    harness.pool.system.services.topics.subscribe(Announcement, listener.ref.address)
    await harness.buy(1)
    await harness.until_status(1, "active")
    await harness.move_clock(days=31)
    await harness.fast_expiry()
    harness.wake("fast_expiry")
    await harness.until_status(1, "removed")
    assert (await harness.view(1)).state == "expired"
    assert await harness.listed("oslo") == {}
    active, ended = await listener.receive(KeyActive), await listener.receive(AccessEnded)
    assert attrs.astuple(active) == attrs.astuple(ended)
    assert active.key_id == (await harness.key(1)).key_id


async def test_whoever_pays_between_the_mark_and_the_removal_keeps_the_key(harness: NodeHarness) -> None:
    await harness.buy(1)
    await harness.until_status(1, "active")
    key = (await harness.key(1)).key_id
    await harness.move_clock(days=31)
    await harness.run(expire_page)
    assert (await harness.view(1)).state == "expired"
    await harness.buy(1, "second")
    await harness.fast_expiry()
    harness.wake("fast_expiry")
    await harness.until_status(1, "active")
    assert (await harness.view(1)).is_running
    assert {*await harness.listed("oslo")} == {key}
    assert await harness.at_rest() == []


async def test_paid_time_overrides_the_end_of_a_trial(harness: NodeHarness) -> None:
    await harness.buy(2)  # so that somebody does end
    await harness.until_status(2, "active")

    await harness.run(add_customer, 1)
    await harness.run(grant_trial, 1, actor="front_end:test")
    await harness.buy(1)
    await harness.until_status(1, "active")
    await harness.fast_expiry()
    await harness.move_clock(days=30, hours=1)
    harness.wake("fast_expiry")
    await harness.until_status(2, "removed")
    assert (await harness.view(1)).is_running, "the paid month was added to the trial's end"
    assert (await harness.key(1)).status == "active"


async def test_marking_leaves_half_of_the_budget_to_removals_and_goes_on_where_it_stopped(harness: NodeHarness) -> None:
    for number in range(1, 22):
        await harness.buy(number)
    await until(harness, "SELECT count(*) FROM vpn_keys WHERE activation_status = 'active'", 21)
    await harness.value(
        "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM pg_sleep(0.05); RETURN NEW; END$$"
    )
    await harness.value(
        "CREATE TRIGGER dawdle BEFORE UPDATE ON subscriptions FOR EACH ROW WHEN (NEW.state = 'expired') "
        "EXECUTE FUNCTION dawdle()"
    )
    await harness.revoke(21)
    await harness.move_clock(days=31)
    worker = FastExpiry(interval=NEVER, start_jitter=(NEVER, NEVER), budget=0.4, page_size=1)
    harness.refs["fast_expiry"] = await harness.pool.system.start(worker, name="fast_expiry")
    harness.wake("fast_expiry")
    await harness.until_status(21, "removed")
    running = await harness.value("SELECT count(*) FROM subscriptions WHERE state = 'active'")
    assert isinstance(running, int)
    assert running > 0, "the revoked key did not wait for all the marking"
    await until(harness, "SELECT count(*) FROM subscriptions WHERE state = 'active'", 0)
    await until(harness, "SELECT count(*) FROM vpn_keys WHERE activation_status = 'removed'", 21)
    assert await harness.listed("oslo") == {}


async def test_a_page_that_cannot_be_marked_now_keeps_no_removal_waiting(harness: NodeHarness) -> None:
    await harness.buy(1)
    await harness.buy(2)
    await until(harness, "SELECT count(*) FROM vpn_keys WHERE activation_status = 'active'", 2)
    await harness.revoke(2)
    await harness.move_clock(days=31)
    _, other = await harness.pool.holder("other")
    async with locked(
        other,
        "SELECT FROM vpn_keys k JOIN subscriptions s ON s.id = k.subscription_id "
        "WHERE s.state = 'active' FOR UPDATE OF k",
    ):
        await harness.fast_expiry()
        harness.wake("fast_expiry")
        await harness.until_status(2, "removed")
        assert (await harness.view(1)).state == "active", "marking takes its key along, and that is locked"
    harness.wake("fast_expiry")
    await harness.until_status(1, "removed")
    assert harness.refs["fast_expiry"].incarnation == 1
