"""Another key for a customer: the old one goes when the new one is on its nodes, and not before."""

import pytest

from db.access.subscriptions import KeyView, SubscriptionView, expire_page, get_subscription, mark_revoked
from db.errors import BusinessError
from db.keys.activation import MAX_ATTEMPTS, ActivationResult, claim_activations, confirm_activation, fail_activation
from db.keys.claims import KeyClaim, NodeConfirmation
from db.keys.nodes import register_node
from db.keys.reissue import request_reissue
from db.keys.removal import claim_removals, confirm_removal
from db.work.claims import Claimer, enlist_claimer
from tests.db.database import Database

NODES = ("first", "second")


async def prepare(database: Database, nodes: tuple[str, ...] = ("first",)) -> Claimer:
    """A customer whose key is active on these nodes."""
    for order, name in enumerate(nodes):
        await database.run(register_node, name, {"host": name}, inbounds=["in"], placement_order=order)
    await database.add_customer()
    await database.buy()
    owner = await database.run(enlist_claimer, "main/activation")
    [claimed] = await claim(database, owner)
    await database.run(confirm_activation, claimed, [NodeConfirmation(name) for name in nodes])
    return owner


async def claim(database: Database, owner: Claimer) -> list[KeyClaim]:
    return await database.run(claim_activations, owner, 50, 60.0)


async def request(database: Database, idempotency_key: str = "r-1") -> str:
    return await database.run(request_reissue, 1001, actor="operator", idempotency_key=idempotency_key)


async def shown(database: Database) -> tuple[SubscriptionView, KeyView]:
    view = await database.run(get_subscription, 1001)
    assert view is not None
    assert view.key is not None
    return view, view.key


async def test_the_old_link_shows_until_the_new_key_is_confirmed_and_the_end_stays(
    database: Database,
) -> None:
    owner = await prepare(database)
    before, old = await shown(database)
    new_key = await request(database)
    assert (await shown(database))[1].key_id == old.key_id
    [claimed] = await claim(database, owner)
    assert (claimed.key_id, claimed.generation) == (new_key, old.generation + 1)
    assert claimed.uuid != old.uuid
    outcome = await database.run(confirm_activation, claimed, [NodeConfirmation("first")])
    assert outcome.result is ActivationResult.ACTIVATED
    after, new = await shown(database)
    assert (new.key_id, new.status, after.expires_at) == (new_key, "active", before.expires_at)
    [removal] = await database.run(claim_removals, owner, 50, 60.0)
    assert removal.key_id == old.key_id
    await database.run(confirm_removal, removal, [NodeConfirmation("first")])
    assert await database.broken_invariants(at_rest=True) == []


async def test_the_customer_is_told_once_and_the_audit_trail_says_who_asked(database: Database) -> None:
    owner = await prepare(database)
    await request(database)
    [claimed] = await claim(database, owner)
    await database.run(confirm_activation, claimed, [NodeConfirmation("first")])
    await database.run(confirm_activation, claimed, [NodeConfirmation("first")])
    assert await database.fetchval("SELECT count(*) FROM outbox WHERE kind = 'key_reissued'") == 1
    assert await database.fetchval("SELECT count(*) FROM outbox WHERE kind = 'key_active'") == 1
    assert await database.fetchval("SELECT actor FROM audit WHERE action = 'reissue_requested'") == "operator"


async def test_with_one_of_two_nodes_away_the_old_key_stays_on_both(database: Database) -> None:
    owner = await prepare(database, NODES)
    _, old = await shown(database)
    await request(database)
    [claimed] = await claim(database, owner)
    partly = await database.run(confirm_activation, claimed, [NodeConfirmation("first")])
    assert partly.result is ActivationResult.PARTLY
    assert await database.run(claim_removals, owner, 50, 60.0) == []
    _, key = await shown(database)
    assert (key.key_id, len(key.nodes)) == (old.key_id, 2)
    whole = await database.run(confirm_activation, claimed, [NodeConfirmation("second")])
    assert whole.result is ActivationResult.ACTIVATED
    assert [removal.key_id for removal in await database.run(claim_removals, owner, 50, 60.0)] == [old.key_id]


async def test_the_same_request_again_is_one_reissue(database: Database) -> None:
    await prepare(database)
    assert await request(database) == await request(database)
    assert await database.count("vpn_keys") == 2


async def test_a_second_request_replaces_the_key_that_is_under_way_as_well(database: Database) -> None:
    owner = await prepare(database)
    await request(database)
    last = await request(database, "r-2")
    for claimed in await claim(database, owner):
        await database.run(confirm_activation, claimed, [NodeConfirmation("first")])
    for removal in await database.run(claim_removals, owner, 50, 60.0):
        await database.run(confirm_removal, removal, [NodeConfirmation("first")])
    assert (await shown(database))[1].key_id == last
    assert await database.fetchval("SELECT count(*) FROM vpn_keys WHERE activation_status = 'active'") == 1
    assert await database.fetchval("SELECT count(*) FROM reissues WHERE result = 'replaced'") == 2
    assert await database.broken_invariants(at_rest=True) == []


async def test_who_is_revoked_in_between_loses_both_keys(database: Database) -> None:
    owner = await prepare(database)
    await request(database)
    [claimed] = await claim(database, owner)
    await database.run(mark_revoked, 1001, actor="operator")
    outcome = await database.run(confirm_activation, claimed, [NodeConfirmation("first")])
    assert outcome.result is ActivationResult.UNWANTED
    removals = await database.run(claim_removals, owner, 50, 60.0)
    assert len(removals) == 2
    for removal in removals:
        await database.run(confirm_removal, removal, [NodeConfirmation("first")])
    assert await database.broken_invariants(at_rest=True) == []


async def test_who_pays_again_after_it_gets_the_new_key(database: Database) -> None:
    owner = await prepare(database)
    new_key = await request(database)
    await database.move_clock(days=31)
    await database.run(expire_page, 0, 100)
    await database.buy(charge_id="again")
    [claimed] = await claim(database, owner)
    assert claimed.key_id == new_key
    await database.run(confirm_activation, claimed, [NodeConfirmation("first")])
    for removal in await database.run(claim_removals, owner, 50, 60.0):
        await database.run(confirm_removal, removal, [NodeConfirmation("first")])
    assert (await shown(database))[1].key_id == new_key
    assert await database.fetchval("SELECT count(*) FROM money_i10_nodes_have_the_active") == 0


async def test_a_new_key_that_no_node_takes_is_taken_back_and_the_old_one_stays(database: Database) -> None:
    owner = await prepare(database)
    _, old = await shown(database)
    await request(database)
    for attempt in range(MAX_ATTEMPTS):
        await database.move_clock(hours=attempt)
        [claimed] = await claim(database, owner)
        await database.run(fail_activation, claimed, "refused")
    view, key = await shown(database)
    assert (key.key_id, key.status, view.is_running) == (old.key_id, "active", True)
    assert await database.fetchval("SELECT kind FROM cases") == "reissue_failed"
    assert await database.fetchval("SELECT result FROM reissues") == "failed"


async def refuse(database: Database, owner: Claimer, *key_ids: str, serve: str = "", start: int = 0) -> None:
    """The node refuses these keys until they are given up, and takes the one named ``serve`` when it is told."""
    for attempt in range(MAX_ATTEMPTS):
        await database.move_clock(hours=start + attempt)
        for claimed in await claim(database, owner):
            if claimed.key_id in key_ids:
                await database.run(fail_activation, claimed, "refused")
            elif claimed.key_id == serve:
                await database.run(confirm_activation, claimed, [NodeConfirmation("first")])


async def clear_away(database: Database, owner: Claimer) -> None:
    """The node lets go of everything that is not wanted."""
    for removal in await database.run(claim_removals, owner, 50, 60.0):
        await database.run(confirm_removal, removal, [NodeConfirmation("first")])


async def balance_of(database: Database) -> int:
    held: int = await database.fetchval("SELECT sum(balance) FROM accounts WHERE customer_id IS NOT NULL")
    return held


async def test_a_renewal_after_a_failed_reissue_goes_to_the_working_key_and_no_other(
    database: Database,
) -> None:
    owner = await prepare(database)
    _, old = await shown(database)
    failed = await request(database)
    await refuse(database, owner, failed)
    await clear_away(database, owner)
    paid = await database.buy(charge_id="renewal")
    assert paid.key_id == old.key_id
    [claimed] = await claim(database, owner)
    assert claimed.key_id == old.key_id
    await database.run(confirm_activation, claimed, [NodeConfirmation("first")])
    view, key = await shown(database)
    assert (key.key_id, key.status, view.is_running) == (old.key_id, "active", True)
    assert await balance_of(database) == 0
    assert await database.count("money_i10_nodes_have_the_active") == 0


async def test_a_renewal_while_the_new_key_is_refused_never_costs_the_customer_the_access(database: Database) -> None:
    owner = await prepare(database)
    _, old = await shown(database)
    refused = await request(database)
    await refuse(database, owner, refused)
    # What an earlier version left behind: the refused key is wanted again beside the one that works.
    async with database.connect() as connection:
        await connection.execute(
            "UPDATE vpn_keys SET given_up_at = NULL, wanted = 'present', activation_status = 'pending' WHERE key_id = $1",
            refused,
        )
    await database.buy(charge_id="renewal")
    await refuse(database, owner, refused, serve=old.key_id, start=10)
    view, key = await shown(database)
    assert (key.key_id, key.status, view.is_running) == (old.key_id, "active", True)
    assert await balance_of(database) == 0
    await clear_away(database, owner)
    assert await database.count("money_i10_nodes_have_the_active") == 0


async def test_who_lapses_after_a_failed_reissue_and_pays_again_gets_the_link_that_worked(database: Database) -> None:
    owner = await prepare(database)
    _, old = await shown(database)
    failed = await request(database)
    await refuse(database, owner, failed)
    await database.move_clock(days=31)
    await database.run(expire_page, 0, 100)
    await clear_away(database, owner)
    assert (await shown(database))[1].key_id == old.key_id
    assert (await database.buy(charge_id="again")).key_id == old.key_id
    assert [claimed.key_id for claimed in await claim(database, owner)] == [old.key_id]


async def test_of_two_keys_that_are_both_refused_only_the_last_one_takes_the_access_along(database: Database) -> None:
    await database.run(register_node, "first", {"host": "first"}, inbounds=["in"])
    await database.add_customer()
    await database.buy()
    owner = await database.run(enlist_claimer, "main/activation")
    first = (await shown(database))[1].key_id
    second = await request(database)
    await refuse(database, owner, first)
    view, key = await shown(database)
    assert (key.key_id, view.is_running, await balance_of(database)) == (second, True, 0)
    await refuse(database, owner, second, start=10)
    view, _ = await shown(database)
    assert (view.is_running, await balance_of(database)) == (False, 14900)
    assert await database.fetchval("SELECT count(*) FROM cases WHERE kind = 'activation_failed'") == 2
    assert await database.fetchval("SELECT result FROM reissues") == "failed"


async def test_a_replaced_link_never_works_again_even_if_the_new_key_is_given_up_later(database: Database) -> None:
    owner = await prepare(database)
    _, leaked = await shown(database)
    new = await request(database)
    await refuse(database, owner, serve=new)
    await database.move_clock(days=31)
    await database.run(expire_page, 0, 100)
    await clear_away(database, owner)
    await database.buy(charge_id="again")
    await refuse(database, owner, new, start=31 * 24)
    assert await balance_of(database) == 14900
    paid = await database.buy(charge_id="once more")
    assert paid.key_id not in (leaked.key_id, new)


async def test_without_a_running_subscription_there_is_nothing_to_reissue(database: Database) -> None:
    await prepare(database)
    await database.run(mark_revoked, 1001, actor="operator")
    with pytest.raises(BusinessError, match="no subscription that runs"):
        await request(database)


async def test_an_idempotency_key_is_one_customers(database: Database) -> None:
    await prepare(database)
    await database.add_customer(1002)
    await request(database)
    with pytest.raises(BusinessError, match="another customer's"):
        await database.run(request_reissue, 1002, actor="operator", idempotency_key="r-1")
