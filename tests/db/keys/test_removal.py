"""Ends are marked first, nodes told after, removals confirmed last; and a renewal in between wins."""

import json

from db.access.subscriptions import expire_page, get_subscription, mark_revoked
from db.keys.activation import claim_activations, confirm_activation
from db.keys.claims import NodeConfirmation
from db.keys.nodes import register_node
from db.keys.removal import RemovalResult, claim_removals, confirm_removal, fail_removal, postpone_removal
from db.work.claims import Claimer, enlist_claimer
from db.work.notices import payload_problems
from tests.db.database import Database

HERE = [NodeConfirmation("local", "boot-1")]


async def prepare(database: Database, *telegram_ids: int) -> Claimer:
    """A node and customers whose keys are active on it."""
    await database.run(register_node, "local", {"host": "vpn.example"}, inbounds=["vless-in"])
    owner = await database.run(enlist_claimer, "main/fast_expiry")
    for telegram_id in telegram_ids or (1001,):
        await database.add_customer(telegram_id)
        await database.buy(telegram_id, charge_id=f"charge-{telegram_id}")
    for claimed in await database.run(claim_activations, owner, 100, 60.0):
        await database.run(confirm_activation, claimed, HERE)
    return owner


async def test_a_revoked_key_is_marked_then_claimed_then_confirmed_removed(database: Database) -> None:
    owner = await prepare(database)
    assert await database.run(mark_revoked, 1001, actor="operator")
    view = await database.run(get_subscription, 1001)
    assert view is not None
    assert view.key is not None
    assert (view.state, view.is_running, view.key.status) == ("revoked", False, "removing")
    [claimed] = await database.run(claim_removals, owner, 10, 60.0)
    assert [place.node for place in claimed.placements] == ["local"]
    assert await database.run(confirm_removal, claimed, HERE) is RemovalResult.REMOVED
    assert await database.run(confirm_removal, claimed, HERE) is RemovalResult.ALREADY_REMOVED
    assert await database.broken_invariants(at_rest=True) == []


async def test_revoking_twice_changes_nothing(database: Database) -> None:
    await prepare(database)
    assert await database.run(mark_revoked, 1001, actor="operator")
    assert not await database.run(mark_revoked, 1001, actor="operator")
    assert await database.fetchval("SELECT count(*) FROM entitlement_events WHERE kind = 'revoke'") == 1


async def test_expiry_takes_who_is_due_and_nobody_else(database: Database) -> None:
    await prepare(database, 1001, 1002, 1003)
    await database.buy(1002, charge_id="renewal")
    await database.move_clock(days=31)
    page = await database.run(expire_page, 0, 100)
    assert (len(page.subscription_ids), page.more) == (2, False)
    renewed = await database.run(get_subscription, 1002)
    assert renewed is not None
    assert renewed.is_running
    assert await database.fetchval("SELECT count(*) FROM vpn_keys WHERE activation_status = 'removing'") == 2
    told = await database.fetchval("SELECT json_agg(payload)::text FROM outbox WHERE kind = 'access_expired'")
    assert [payload_problems("access_expired", payload) for payload in json.loads(told)] == [[], []]


async def test_whoever_sends_messages_is_woken_when_access_ends(database: Database) -> None:
    await prepare(database)
    await database.move_clock(days=31)
    heard: list[str] = []
    async with database.connect() as listener:
        await listener.listen("atlas_wake", lambda *told: heard.append(told[-1]))
        await database.run(expire_page, 0, 100)
        await listener.fetchval("SELECT 1")
    assert "notifications" in heard


async def test_expiry_walks_in_pages_by_id(database: Database) -> None:
    await prepare(database, *range(1, 6))
    await database.move_clock(days=31)
    seen: list[int] = []
    after, more = 0, True
    while more:
        page = await database.run(expire_page, after, 2)
        seen += page.subscription_ids
        after, more = page.last_id, page.more
    assert len(seen) == 5
    assert seen == sorted(seen)


async def test_a_page_full_of_rows_that_others_hold_still_moves_on(database: Database) -> None:
    await prepare(database, 1, 2, 3)
    await database.move_clock(days=31)
    async with database.connect() as other:
        await other.execute("BEGIN")
        await other.execute("SELECT FROM subscriptions ORDER BY id LIMIT 2 FOR UPDATE")
        first = await database.run(expire_page, 0, 2)
        assert (first.subscription_ids, first.more) == ((), True)
        second = await database.run(expire_page, first.last_id, 2)
        assert len(second.subscription_ids) == 1
        await other.execute("ROLLBACK")
    assert len((await database.run(expire_page, 0, 100)).subscription_ids) == 2


async def test_a_renewal_before_the_removal_is_confirmed_drops_the_removal(database: Database) -> None:
    owner = await prepare(database)
    await database.move_clock(days=31)
    await database.run(expire_page, 0, 100)
    [claimed] = await database.run(claim_removals, owner, 10, 60.0)
    renewed = await database.buy(charge_id="renewal")
    assert await database.run(confirm_removal, claimed, HERE) is RemovalResult.DROPPED
    assert await database.run(claim_removals, owner, 10, 60.0) == []
    [again] = await database.run(claim_activations, owner, 10, 60.0)
    assert (again.key_id, again.generation > claimed.generation) == (claimed.key_id, True)
    assert again.expires_at == renewed.expires_at


async def test_a_customer_who_comes_back_gets_the_key_they_had(database: Database) -> None:
    owner = await prepare(database)
    before = await database.run(get_subscription, 1001)
    await database.move_clock(days=31)
    await database.run(expire_page, 0, 100)
    [claimed] = await database.run(claim_removals, owner, 10, 60.0)
    await database.run(confirm_removal, claimed, HERE)
    await database.buy(charge_id="comeback")
    after = await database.run(get_subscription, 1001)
    assert before is not None
    assert before.key is not None
    assert after is not None
    assert after.key is not None
    assert (after.key.uuid, after.is_running) == (before.key.uuid, True)


async def test_a_late_activation_of_a_removed_key_is_removed_again(database: Database) -> None:
    await database.run(register_node, "local", {}, inbounds=["in"])
    owner = await database.run(enlist_claimer, "main/fast_expiry")
    await database.add_customer()
    await database.buy()
    [activation] = await database.run(claim_activations, owner, 10, 60.0)
    await database.run(mark_revoked, 1001, actor="operator")
    [removal] = await database.run(claim_removals, owner, 10, 60.0)
    assert await database.run(confirm_removal, removal, HERE) is RemovalResult.REMOVED
    await database.run(confirm_activation, activation, HERE)
    [again] = await database.run(claim_removals, owner, 10, 60.0)
    assert again.generation > removal.generation


async def test_a_removal_is_never_given_up_but_becomes_a_case(database: Database) -> None:
    owner = await prepare(database)
    await database.run(mark_revoked, 1001, actor="operator")
    for attempt in range(6):
        await database.move_clock(hours=attempt)
        [claimed] = await database.run(claim_removals, owner, 10, 60.0)
        assert await database.run(fail_removal, claimed, "refused") == attempt + 1
    assert await database.fetchval("SELECT count(*) FROM cases WHERE kind = 'removal_failed'") == 1
    await database.move_clock(hours=7)
    [claimed] = await database.run(claim_removals, owner, 10, 60.0)
    assert await database.run(postpone_removal, claimed, 30.0, "connection refused")


async def test_a_key_that_was_never_on_a_node_needs_no_removal(database: Database) -> None:
    await database.add_customer()
    await database.buy()
    owner = await database.run(enlist_claimer, "main/fast_expiry")
    await database.run(mark_revoked, 1001, actor="operator")
    assert await database.run(claim_removals, owner, 10, 60.0) == []
    assert await database.fetchval("SELECT activation_status FROM vpn_keys") == "removed"


async def test_a_removal_claimed_before_a_renewal_confirms_nothing_after_the_next_end(database: Database) -> None:
    owner = await prepare(database)
    await database.run(mark_revoked, 1001, actor="operator")
    [old] = await database.run(claim_removals, owner, 10, 60.0)
    await database.buy(charge_id="renewal")
    await database.run(mark_revoked, 1001, actor="operator")
    assert await database.run(confirm_removal, old, HERE) is RemovalResult.DROPPED
    [new] = await database.run(claim_removals, owner, 10, 60.0)
    assert new.generation == old.generation + 2
    assert await database.run(confirm_removal, new, HERE) is RemovalResult.REMOVED
