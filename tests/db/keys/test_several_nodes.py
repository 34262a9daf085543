"""A key on several nodes: each node is confirmed for itself, and a retired one is waited for no more."""

from db.access.subscriptions import get_subscription, mark_revoked
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
from db.keys.nodes import make_keys_due, record_node_seen, register_node, retire_nodes
from db.keys.removal import RemovalResult, claim_removals, confirm_removal, postpone_removal
from db.work.claims import Claimer, enlist_claimer
from tests.db.database import Database


async def prepare(database: Database, *names: str) -> Claimer:
    """Nodes in this order, and a customer who has paid."""
    for order, name in enumerate(names):
        await database.run(register_node, name, {"host": name}, inbounds=["in"], placement_order=order)
    await database.add_customer()
    await database.buy()
    return await database.run(enlist_claimer, "main/activation")


async def claim(database: Database, owner: Claimer) -> KeyClaim:
    [claimed] = await database.run(claim_activations, owner, 50, 60.0)
    return claimed


def places(claimed: KeyClaim) -> list[str]:
    return [place.node for place in claimed.placements]


async def links(database: Database) -> list[str]:
    view = await database.run(get_subscription, 1001)
    assert view is not None
    assert view.key is not None
    return [node.name for node in view.key.nodes]


async def test_a_node_that_has_the_key_is_shown_while_another_is_waited_for(database: Database) -> None:
    owner = await prepare(database, "oslo", "rome")
    claimed = await claim(database, owner)
    outcome = await database.run(confirm_activation, claimed, [NodeConfirmation("oslo")])
    assert outcome.result is ActivationResult.PARTLY
    assert await links(database) == ["oslo"]
    assert await database.fetchval("SELECT count(*) FROM outbox WHERE kind = 'key_active'") == 1


async def test_only_the_nodes_that_are_behind_are_told_again(database: Database) -> None:
    owner = await prepare(database, "oslo", "rome")
    claimed = await claim(database, owner)
    await database.run(confirm_activation, claimed, [NodeConfirmation("oslo")])
    assert await database.run(postpone_activation, claimed, 0.0, "rome is away")
    again = await claim(database, owner)
    assert places(again) == ["rome"]
    outcome = await database.run(confirm_activation, again, [NodeConfirmation("rome")])
    assert outcome.result is ActivationResult.ACTIVATED
    assert await links(database) == ["oslo", "rome"]
    assert await database.broken_invariants(at_rest=True) == []


async def test_a_key_that_every_node_has_is_settled_without_telling_any(database: Database) -> None:
    owner = await prepare(database, "oslo")
    claimed = await claim(database, owner)
    await database.run(confirm_activation, claimed, [NodeConfirmation("oslo")])
    await database.fetchval("UPDATE vpn_keys SET activation_status = 'pending'")
    again = await claim(database, owner)
    assert places(again) == []
    assert (await database.run(confirm_activation, again, [])).result is ActivationResult.ACTIVATED


async def test_a_renewal_reaches_a_node_that_was_added_meanwhile(database: Database) -> None:
    owner = await prepare(database, "oslo")
    await database.run(confirm_activation, await claim(database, owner), [NodeConfirmation("oslo")])
    await database.run(register_node, "rome", {}, inbounds=["in"])
    await database.buy(charge_id="renewal")
    assert places(await claim(database, owner)) == ["oslo", "rome"]


async def test_a_key_that_one_node_serves_is_not_given_up_because_another_refuses_it(database: Database) -> None:
    owner = await prepare(database, "oslo", "rome")
    claimed = await claim(database, owner)
    await database.run(confirm_activation, claimed, [NodeConfirmation("oslo")])
    for attempt in range(MAX_ATTEMPTS + 1):
        assert await database.run(fail_activation, claimed, "rome refuses") is FailureResult.RETRY
        await database.move_clock(hours=attempt + 1)
        claimed = await claim(database, owner)
    assert await database.fetchval("SELECT kind FROM cases") == "placement_refused"
    assert await links(database) == ["oslo"]


async def test_what_a_node_knows_newer_is_overtaken_by_the_next_attempt(database: Database) -> None:
    owner = await prepare(database, "oslo")
    claimed = await claim(database, owner)
    await database.run(fail_activation, claimed, "a newer generation is known", 41)
    await database.move_clock(minutes=1)
    assert (await claim(database, owner)).generation == 42


async def test_a_key_is_removed_once_it_is_off_every_node(database: Database) -> None:
    owner = await prepare(database, "oslo", "rome")
    await database.run(
        confirm_activation, await claim(database, owner), [NodeConfirmation("oslo"), NodeConfirmation("rome")]
    )
    await database.run(mark_revoked, 1001, actor="operator")
    [removal] = await database.run(claim_removals, owner, 50, 60.0)
    assert await database.run(confirm_removal, removal, [NodeConfirmation("rome")]) is RemovalResult.PARTLY
    await database.run(postpone_removal, removal, 0.0, "oslo is away")
    [again] = await database.run(claim_removals, owner, 50, 60.0)
    assert places(again) == ["oslo"]
    assert await database.run(confirm_removal, again, [NodeConfirmation("oslo")]) is RemovalResult.REMOVED
    assert await database.broken_invariants(at_rest=True) == []


async def test_a_node_that_is_back_makes_its_keys_due_and_no_others(database: Database) -> None:
    owner = await prepare(database, "oslo", "rome")
    claimed = await claim(database, owner)
    await database.run(confirm_activation, claimed, [NodeConfirmation("oslo")])
    await database.run(postpone_activation, claimed, 60.0, "rome is away")
    assert await database.run(make_keys_due, "oslo") == 0
    assert await database.run(make_keys_due, "rome") == 1
    assert places(await claim(database, owner)) == ["rome"]


async def test_a_node_neither_configured_nor_seen_is_retired_and_nothing_waits_for_it(
    database: Database,
) -> None:
    owner = await prepare(database, "oslo", "rome")
    for name in ("oslo", "rome"):
        await database.run(record_node_seen, name, "b1")
    claimed = await claim(database, owner)
    await database.run(confirm_activation, claimed, [NodeConfirmation("oslo")])
    await database.run(postpone_activation, claimed, 60.0, "no actor is named node.rome")
    assert await database.run(retire_nodes, ["oslo"], 600.0) == []
    await database.move_clock(minutes=11)
    assert await database.run(retire_nodes, ["oslo"], 600.0) == ["rome"]
    again = await claim(database, owner)
    assert places(again) == []
    assert (await database.run(confirm_activation, again, [])).result is ActivationResult.ACTIVATED
    assert await links(database) == ["oslo"]


async def test_a_retired_node_that_registers_again_is_a_node_again(database: Database) -> None:
    await prepare(database, "oslo")
    await database.move_clock(minutes=11)
    assert await database.run(retire_nodes, [], 600.0) == ["oslo"]
    assert await database.count("vpn_nodes WHERE retired_at IS NOT NULL") == 1
    assert (await database.run(register_node, "oslo", {}, inbounds=["in"])).retired_at is None
    assert await database.count("vpn_nodes WHERE retired_at IS NULL") == 1
