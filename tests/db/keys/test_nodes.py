"""Nodes are registered by name, again and again, and remembered by their boot id."""

import pytest

from db.errors import UnknownNode
from db.keys.nodes import record_node_seen, register_node
from tests.db.database import Database


async def test_registering_again_brings_the_facts_up_to_date(database: Database) -> None:
    await database.run(register_node, "oslo", {"host": "old.example"}, inbounds=["a"])
    node = await database.run(
        register_node, "oslo", {"host": "new.example"}, inbounds=["a", "b"], flow="xtls-rprx-vision"
    )
    assert (node.endpoint, node.inbounds, node.flow) == ({"host": "new.example"}, ("a", "b"), "xtls-rprx-vision")
    assert await database.count('vpn_nodes WHERE endpoint = \'{"host": "new.example"}\'') == 1
    assert await database.count("vpn_nodes") == 1


async def test_a_new_boot_is_noticed_once(database: Database) -> None:
    await database.run(register_node, "oslo", {}, inbounds=["a"])
    seen = [(await database.run(record_node_seen, "oslo", boot)).is_new_boot for boot in ("b1", "b1", "b2", "b2")]
    assert seen == [True, False, True, False]
    assert await database.fetchval("SELECT boot_id FROM vpn_nodes WHERE name = 'oslo'") == "b2"


async def test_an_unknown_node_is_named(database: Database) -> None:
    with pytest.raises(UnknownNode, match="'bergen'"):
        await database.run(record_node_seen, "bergen", "b1")
