"""Keys that were paid for go live: at once, an outage costs no attempt, and somebody hears of those that do not."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest

from actors.keys.activation import Activation
from actors.keys.events import KeyFailed, KeyPostponed, KeySettled, KeysOverdue, KeysWait
from db.access.subscriptions import mark_revoked
from db.keys.activation import claim_activations, confirm_activation
from db.keys.claims import NodeConfirmation
from db.keys.nodes import register_node
from db.tx import Tx
from db.work.claims import Claimer
from tests.actors.node_fixtures import NEVER, NodeHarness, node_harness
from tests.vpn.agents import key


@pytest.fixture
async def harness(database_dsn: str, tmp_path: Path) -> AsyncIterator[NodeHarness]:
    async with node_harness(database_dsn, tmp_path) as harness:
        yield harness


def overdue(harness: NodeHarness) -> list[KeysOverdue]:
    return [event for event in harness.pool.events if isinstance(event, KeysOverdue)]


async def until_overdue(harness: NodeHarness, count: int = 1) -> KeysOverdue:
    async def is_said() -> bool:
        return len(overdue(harness)) >= count

    await harness.until(is_said)
    return overdue(harness)[-1]


async def test_a_purchase_wakes_the_worker_and_the_key_is_live_long_before_the_next_tick(harness: NodeHarness) -> None:
    await harness.activation()
    await harness.node("oslo")
    await harness.buy(1)
    await harness.until_status(1, "active")
    assert (await harness.key(1)).key_id in await harness.listed("oslo")
    assert await harness.at_rest() == []


RACE = (
    """
    CREATE FUNCTION placed_by_another() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF pg_trigger_depth() > 1 THEN RETURN NEW; END IF;
        INSERT INTO key_placements VALUES (NEW.*) ON CONFLICT DO NOTHING;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER placed_by_another BEFORE INSERT ON key_placements
    FOR EACH ROW EXECUTE FUNCTION placed_by_another()
    """,
)
"""As if whoever compares nodes had made the place a moment before: the claim's own insert returns nothing."""


async def test_a_key_that_another_gave_its_place_meanwhile_is_live_at_once(harness: NodeHarness) -> None:
    await harness.activation()
    await harness.node("oslo")

    async def race(tx: Tx) -> None:
        for statement in RACE:
            await tx.execute(statement)

    await harness.run(race)
    await harness.buy(1)
    await harness.until_status(1, "active")
    assert (await harness.key(1)).key_id in await harness.listed("oslo")
    assert await harness.value("SELECT max(attempts) FROM vpn_keys") == 0
    assert await harness.at_rest() == []


async def test_how_long_a_key_took_is_told_by_the_databases_clock_alone(harness: NodeHarness) -> None:
    await harness.move_clock(days=10)
    await harness.activation()
    await harness.node("oslo")
    await harness.buy(1)
    await harness.until_status(1, "active")

    async def is_told() -> bool:
        return any(isinstance(event, KeySettled) for event in harness.pool.events)

    await harness.until(is_told)
    [settled] = [event for event in harness.pool.events if isinstance(event, KeySettled)]
    assert 0 < settled.took < 60


async def test_what_was_revoked_while_the_node_was_being_told_is_taken_off_again(harness: NodeHarness) -> None:
    await harness.node("oslo")
    await harness.buy(1)
    [claim] = await harness.run(claim_activations, Claimer("test/activation", 1), 10, 60.0)
    await harness.run(mark_revoked, 1, actor="test")
    await harness.put_stranger("oslo", attrs.evolve(key(claim.key_id), uuid=claim.uuid, generation=claim.generation))
    outcome = await harness.run(confirm_activation, claim, [NodeConfirmation("oslo")])
    assert outcome.result.value == "unwanted"
    await harness.fast_expiry()
    harness.wake("fast_expiry")
    await harness.until_status(1, "removed")
    assert await harness.listed("oslo") == {}


async def test_an_outage_counts_no_attempt_and_alerts_from_half_an_hour_on(harness: NodeHarness) -> None:
    await harness.activation()
    await harness.node("oslo")
    await harness.agents["oslo"].kill()
    await harness.buy(1)

    async def is_postponed() -> bool:
        return any(isinstance(event, KeyPostponed) for event in harness.pool.events)

    await harness.until(is_postponed)
    assert overdue(harness) == [], "a moment is no alert"
    await harness.move_clock(minutes=29)
    before = sum(isinstance(event, KeyPostponed) for event in harness.pool.events)

    async def is_tried_again() -> bool:
        harness.wake("activation")
        return sum(isinstance(event, KeyPostponed) for event in harness.pool.events) > before

    await harness.until(is_tried_again)
    assert overdue(harness) == []
    await harness.move_clock(minutes=61)
    harness.wake("activation")
    alert = await until_overdue(harness)
    assert (alert.level, alert.count, alert.attempts) == (logging.ERROR, 1, 0)
    assert alert.waited > 1800
    assert alert.key_id in alert.line()
    assert await harness.value("SELECT max(attempts) FROM vpn_keys") == 0
    await harness.agent("oslo")
    await harness.until_status(1, "active")


async def test_real_failures_alert_from_the_second_and_the_fifth_is_a_case_and_a_refund(
    harness: NodeHarness,
) -> None:
    actor = Activation(interval=NEVER, alert_cooldown=0.0)
    harness.refs["activation"] = await harness.pool.system.start(actor, name="activation")
    await harness.node("oslo")
    await harness.value("UPDATE vpn_nodes SET inbounds = '{nowhere}' RETURNING 1")
    await harness.buy(1)
    for attempt in range(1, 6):
        failed = await until_failed(harness, attempt)
        assert (failed.attempts, failed.outcome) == (attempt, "gave_up" if attempt == 5 else "retry")
        if attempt > 1:  # one failure is no alert
            assert (await until_overdue(harness, attempt - 1)).attempts == attempt
        await harness.move_clock(hours=attempt)  # past any delay between two attempts
        harness.wake("activation")
    assert [event.attempts for event in overdue(harness)] == [2, 3, 4, 5]
    assert (await harness.view(1)).state == "revoked"
    assert await harness.value("SELECT string_agg(kind, ',') FROM cases") == "activation_failed"
    assert await harness.value("SELECT max(balance) > 0 FROM accounts WHERE kind = 'credit'") is True


async def until_failed(harness: NodeHarness, count: int) -> KeyFailed:
    def failures() -> list[KeyFailed]:
        return [event for event in harness.pool.events if isinstance(event, KeyFailed)]

    async def is_so() -> bool:
        return len(failures()) >= count

    await harness.until(is_so)
    return failures()[count - 1]


async def test_a_node_taken_out_of_the_configuration_is_one_warning_however_many_keys_wait(
    harness: NodeHarness,
) -> None:
    await harness.activation()
    await harness.node("oslo")
    await harness.run(register_node, "rome", {"host": "rome"}, inbounds=["vless"])
    for telegram_id in range(1, 6):
        await harness.buy(telegram_id)
    for minutes in (5, 10, 15):
        await harness.move_clock(minutes=minutes)
        before = sum(isinstance(event, KeyPostponed) for event in harness.pool.events)

        async def is_tried_again(before: int = before) -> bool:
            harness.wake("activation")
            return sum(isinstance(event, KeyPostponed) for event in harness.pool.events) >= before + 5

        await harness.until(is_tried_again)
    said = [event for event in harness.pool.events if event.actor == "activation"]
    loud = [event for event in said if event.level >= logging.WARNING]
    assert [type(event) for event in loud] == [KeysWait]
    assert "keys wait for node rome: it is not in this configuration" in loud[0].line()
    assert [node.name for node in (await harness.key(1)).nodes] == ["oslo"], "the other node serves meanwhile"


async def test_alerts_about_keys_keep_a_cooldown_between_them(harness: NodeHarness) -> None:
    await harness.activation()
    await harness.node("oslo")
    await harness.agents["oslo"].kill()
    await harness.buy(1)
    for hours in (1, 2, 3):
        await harness.move_clock(hours=hours)
        harness.wake("activation")
        before = sum(isinstance(event, KeyPostponed) for event in harness.pool.events)

        async def is_tried_again(before: int = before) -> bool:
            return sum(isinstance(event, KeyPostponed) for event in harness.pool.events) > before

        await harness.until(is_tried_again)
    assert len(overdue(harness)) == 1
