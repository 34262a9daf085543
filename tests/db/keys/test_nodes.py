"""Nodes are registered by name, again and again, and remembered by their boot id."""

import pytest

from db.errors import UnknownNode
from db.keys.nodes import find_node, list_nodes, record_node_seen, register_node
from tests.db.database import Database


async def test_registering_again_brings_the_facts_up_to_date(database: Database) -> None:
    await database.run(register_node, "oslo", {"host": "old.example"}, inbounds=["a"])
    await database.run(register_node, "oslo", {"host": "new.example"}, inbounds=["a", "b"], flow="xtls-rprx-vision")
    [node] = await database.run(list_nodes)
    assert (node.endpoint, node.inbounds, node.flow) == ({"host": "new.example"}, ("a", "b"), "xtls-rprx-vision")


async def test_a_new_boot_is_noticed_once(database: Database) -> None:
    await database.run(register_node, "oslo", {}, inbounds=["a"])
    seen = [(await database.run(record_node_seen, "oslo", boot)).is_new_boot for boot in ("b1", "b1", "b2", "b2")]
    assert seen == [True, False, True, False]
    assert (await database.run(find_node, "oslo")).boot_id == "b2"


async def test_an_unknown_node_is_named(database: Database) -> None:
    with pytest.raises(UnknownNode, match="'bergen'"):
        await database.run(find_node, "bergen")
    with pytest.raises(UnknownNode, match="'bergen'"):
        await database.run(record_node_seen, "bergen", "b1")
