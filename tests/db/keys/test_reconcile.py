"""Whoever lost the singleton writes nothing of a pass any more, not even that a key is gone from its node."""

from __future__ import annotations

import pytest

from db.keys.nodes import register_node
from db.keys.sightings import forget_sighting
from db.work.leader_leases import LostEpoch, acquire_epoch, release_epoch
from tests.db.database import Database


async def test_a_sighting_is_forgotten_by_the_holder_of_the_epoch_only(database: Database) -> None:
    async with database.connect() as connection:
        await register_node(connection, "oslo", {}, inbounds=["main"])
        await connection.execute(
            "INSERT INTO key_sightings (node_id, key_id, first_pass, last_pass, generation) "
            "SELECT id, 'stranger', 1, 1, 1 FROM vpn_nodes"
        )
    held = await database.run(acquire_epoch, "reconcile", "first", 30.0)
    await database.run(release_epoch, held)
    now = await database.run(acquire_epoch, "reconcile", "second", 30.0)
    assert now.is_mine
    with pytest.raises(LostEpoch):
        await database.run(forget_sighting, held, "oslo", "stranger")
    assert await database.count("key_sightings") == 1
    await database.run(forget_sighting, now, "oslo", "stranger")
    assert await database.count("key_sightings") == 0
