"""The key's way onto a node: claimed, told, confirmed; and everything that can come in between."""

from datetime import timedelta

import pytest
import trio

from db.access.subscriptions import get_subscription, mark_revoked
from db.billing.grants import grant_trial
from db.keys.activation import (
    MAX_ATTEMPTS,
    ActivationResult,
    FailureResult,
    claim_activations,
    confirm_activation,
    fail_activation,
    postpone_activation,
)
from db.keys.claims import KeyClaim, NodeConfirmation
from db.keys.nodes import register_node
from db.work.claims import Claimer, enlist_claimer
from tests.db.database import Database
from tests.run_queue import PATIENCE

HERE = [NodeConfirmation("local", "boot-1")]


async def prepare(database: Database, *telegram_ids: int) -> Claimer:
    """A node, paying customers with pending keys, and a worker that may claim them."""
    await database.run(register_node, "local", {"host": "vpn.example", "port": 443}, inbounds=["vless-in"])
    for telegram_id in telegram_ids or (1001,):
        await database.add_customer(telegram_id)
        await database.buy(telegram_id, charge_id=f"charge-{telegram_id}")
    return await database.run(enlist_claimer, "main/activation")


async def claim(database: Database, owner: Claimer, limit: int = 50) -> list[KeyClaim]:
    return await database.run(claim_activations, owner, limit, 60.0)


async def test_a_claim_says_all_that_a_node_must_be_told(database: Database) -> None:
    owner = await prepare(database)
    [claimed] = await claim(database, owner)
    bought = await database.run(get_subscription, 1001)
    assert bought is not None
    assert bought.key is not None
    assert (claimed.key_id, claimed.uuid, claimed.expires_at) == (bought.key.key_id, bought.key.uuid, bought.expires_at)
    [place] = claimed.placements
    assert (place.node, place.inbounds) == ("local", ("vless-in",))
    assert str(claimed.uuid) not in repr(claimed)


async def test_a_confirmed_key_is_active_and_shows_its_node(database: Database) -> None:
    owner = await prepare(database)
    [claimed] = await claim(database, owner)
    outcome = await database.run(confirm_activation, claimed, HERE)
    assert outcome.result is ActivationResult.ACTIVATED
    view = await database.run(get_subscription, 1001)
    assert view is not None
    assert view.key is not None
    assert (view.is_running, view.key.status) == (True, "active")
    assert [(node.name, node.endpoint["port"]) for node in view.key.nodes] == [("local", 443)]
    assert str(view.key.uuid) not in repr(view)
    assert await claim(database, owner) == []
    assert await database.broken_invariants(at_rest=True) == []


async def test_confirming_twice_returns_the_existing_result(database: Database) -> None:
    owner = await prepare(database)
    [claimed] = await claim(database, owner)
    first = await database.run(confirm_activation, claimed, HERE)
    second = await database.run(confirm_activation, claimed, HERE)
    assert (second.result, second.activated_at) == (ActivationResult.ALREADY_ACTIVE, first.activated_at)
    assert await database.fetchval("SELECT count(*) FROM outbox WHERE kind = 'key_active'") == 1


async def test_claims_of_parallel_workers_do_not_overlap(database: Database) -> None:
    await prepare(database, *range(1, 21))
    claimed: list[str] = []

    async def work(name: str) -> None:
        owner = await database.run(enlist_claimer, name)
        claimed.extend(one.key_id for one in await claim(database, owner, limit=8))

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(work, f"worker-{number}/activation")
    assert len(claimed) == len(set(claimed)) == 20


async def test_a_claim_is_not_taken_from_a_living_peer_until_its_lease_ends(database: Database) -> None:
    owner = await prepare(database)
    peer = await database.run(enlist_claimer, "other/activation")
    [claimed] = await claim(database, owner)
    assert await claim(database, peer) == []
    assert await claim(database, owner) == []
    await database.move_clock(seconds=61)
    [taken] = await claim(database, peer)
    assert taken.epoch == claimed.epoch + 1
    lost = await database.run(confirm_activation, claimed, HERE)
    assert lost.result is ActivationResult.SUPERSEDED
    assert (await database.run(confirm_activation, taken, HERE)).result is ActivationResult.ACTIVATED


async def test_a_claim_of_an_earlier_incarnation_is_taken_over_at_once(database: Database) -> None:
    owner = await prepare(database)
    [claimed] = await claim(database, owner)
    successor = await database.run(enlist_claimer, owner.name)
    [taken] = await claim(database, successor)
    assert taken.key_id == claimed.key_id
    assert await database.run(fail_activation, claimed, "too late") is FailureResult.LOST


async def test_an_outage_of_the_node_counts_no_attempt_and_comes_back_after_the_delay(database: Database) -> None:
    owner = await prepare(database)
    [claimed] = await claim(database, owner)
    assert await database.run(postpone_activation, claimed, 30.0, "connection refused")
    assert await claim(database, owner) == []
    await database.move_clock(seconds=31)
    [again] = await claim(database, owner)
    assert again.attempts == 0


async def test_after_five_failures_the_key_is_given_up_and_what_was_paid_is_credited(database: Database) -> None:
    owner = await prepare(database)
    for attempt in range(MAX_ATTEMPTS):
        await database.move_clock(hours=attempt)
        [claimed] = await claim(database, owner)
        result = await database.run(fail_activation, claimed, "the node refused")
        assert result is (FailureResult.RETRY if attempt < MAX_ATTEMPTS - 1 else FailureResult.GAVE_UP)
    await database.move_clock(hours=MAX_ATTEMPTS)
    assert await claim(database, owner) == []
    assert await database.fetchval("SELECT activation_status FROM vpn_keys") == "removing"
    assert await database.fetchval("SELECT balance FROM accounts WHERE kind = 'credit'") == 14900
    assert (
        await database.fetchval("SELECT details->>'compensated' FROM cases WHERE kind = 'activation_failed'") == "14900"
    )
    assert (
        await database.fetchval("SELECT count(*) FROM outbox WHERE kind = 'case_opened' AND customer_id IS NULL") == 1
    )


async def give_up(database: Database, owner: Claimer, start: int = 0) -> None:
    """The node refuses all keys until they are given up."""
    for attempt in range(MAX_ATTEMPTS):
        await database.move_clock(hours=start + attempt)
        for claimed in await claim(database, owner):
            await database.run(fail_activation, claimed, "the node refused")


async def test_who_buys_after_a_key_was_given_up_gets_another_uuid_than_the_refused_one(
    database: Database,
) -> None:
    owner = await prepare(database)
    refused = await database.fetchval("SELECT key_id FROM vpn_keys")
    await give_up(database, owner)
    bought = await database.buy(charge_id="again")
    assert bought.key_id != refused
    [claimed] = await claim(database, owner)
    assert claimed.key_id == bought.key_id
    assert (await database.run(confirm_activation, claimed, HERE)).result is ActivationResult.ACTIVATED
    assert await database.fetchval("SELECT count(DISTINCT uuid) FROM vpn_keys") == 2


async def test_who_buys_in_a_trial_with_a_refused_key_gets_another_and_that_one_goes(
    database: Database,
) -> None:
    await database.run(register_node, "local", {"host": "vpn.example"}, inbounds=["vless-in"])
    await database.add_customer()
    await database.run(grant_trial, 1001, actor="front_end:test")
    owner = await database.run(enlist_claimer, "main/activation")
    await give_up(database, owner)
    view = await database.run(get_subscription, 1001)
    assert view is not None
    assert view.is_running, "nothing is credited for a trial, so nothing ends"
    assert await database.fetchval("SELECT activation_status FROM vpn_keys") == "failed"
    bought = await database.buy()
    [claimed] = await claim(database, owner)
    assert claimed.key_id == bought.key_id
    await database.run(confirm_activation, claimed, HERE)
    assert (
        await database.fetchval("SELECT string_agg(activation_status, ' ' ORDER BY id) FROM vpn_keys")
        == "removing active"
    )


async def test_retries_are_delayed_longer_each_time(database: Database) -> None:
    owner = await prepare(database)
    delays = []
    for attempt in range(3):
        await database.move_clock(hours=attempt)
        [claimed] = await claim(database, owner)
        await database.run(fail_activation, claimed, "refused")
        delays.append(await database.fetchval("SELECT next_attempt_at - atlas_now() FROM vpn_keys"))
    bounds = [(2.5, 5), (5, 10), (10, 20)]
    # The server's clock runs on between the two statements, so the lower bounds get a second of slack.
    assert all(
        timedelta(seconds=low - 1) <= delay <= timedelta(seconds=high)
        for delay, (low, high) in zip(delays, bounds, strict=True)
    )


async def test_a_renewal_while_the_node_is_being_told_fences_the_old_confirmation(database: Database) -> None:
    owner = await prepare(database)
    [claimed] = await claim(database, owner)
    renewed = await database.buy(charge_id="second")
    outcome = await database.run(confirm_activation, claimed, HERE)
    assert outcome.result is ActivationResult.SUPERSEDED
    [newer] = await claim(database, owner)
    assert (newer.expires_at, newer.generation) == (renewed.expires_at, claimed.generation + 1)
    assert newer.key_id == claimed.key_id
    assert (await database.run(confirm_activation, newer, HERE)).result is ActivationResult.ACTIVATED
    assert await database.broken_invariants(at_rest=True) == []


async def test_a_key_revoked_while_the_node_is_being_told_is_refused_and_removed(database: Database) -> None:
    owner = await prepare(database)
    [claimed] = await claim(database, owner)
    assert await database.run(mark_revoked, 1001, actor="operator")
    outcome = await database.run(confirm_activation, claimed, HERE)
    assert outcome.result is ActivationResult.UNWANTED
    assert await database.fetchval("SELECT activation_status FROM vpn_keys") == "removing"
    assert await database.fetchval("SELECT applied FROM key_placements") == "present"


async def test_without_a_node_the_purchase_stands_and_the_key_waits_for_one(database: Database) -> None:
    await database.add_customer()
    await database.buy()
    owner = await database.run(enlist_claimer, "main/activation")
    assert await claim(database, owner) == []
    await database.run(register_node, "local", {"host": "vpn.example"}, inbounds=["vless-in"])
    assert len(await claim(database, owner)) == 1


async def test_a_new_key_goes_to_every_accepting_node_in_their_order(database: Database) -> None:
    await database.run(register_node, "full", {}, inbounds=["in"], accepts_keys=False, placement_order=1)
    await database.run(register_node, "second", {}, inbounds=["in"], placement_order=20)
    await database.run(register_node, "first", {}, inbounds=["in"], placement_order=10)
    await database.add_customer()
    await database.buy()
    owner = await database.run(enlist_claimer, "main/activation")
    [claimed] = await claim(database, owner)
    assert [place.node for place in claimed.placements] == ["first", "second"]


async def test_a_key_whose_subscription_has_ended_is_not_activated(database: Database) -> None:
    owner = await prepare(database)
    await database.move_clock(days=31)
    assert await claim(database, owner) == []


async def test_a_purchase_wakes_the_activation_worker_when_it_commits(database: Database) -> None:
    heard: list[str] = []
    woken = trio.Event()
    await database.add_customer()

    async with database.connect() as listener:

        def hear(_connection: object, _pid: int, _channel: str, payload: str) -> None:
            heard.append(payload)
            if "activation" in heard:
                woken.set()

        await listener.listen("atlas_wake", hear)
        await database.buy()
        with trio.fail_after(PATIENCE):
            await woken.wait()
    assert "activation" in heard


@pytest.mark.parametrize("differing", ["00", "ff"])
async def test_two_keys_that_differ_only_in_the_bytes_xray_ignores_are_one_key(
    database: Database, differing: str
) -> None:
    await prepare(database)
    with pytest.raises(Exception, match="vpn_keys_one_identity"):
        async with database.connect() as connection:
            await connection.execute(
                """
                INSERT INTO vpn_keys (key_id, subscription_id, uuid, generation, wanted, activation_status)
                SELECT 'k0000000000', subscription_id, overlay(uuid::text PLACING $1 FROM 15 FOR 2)::uuid, 9, 'present', 'pending'
                FROM vpn_keys
                """,
                differing,
            )
