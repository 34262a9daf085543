"""An operator has this installation rule a node, deliberately."""

from __future__ import annotations

import os

import trio

from db.driver.session import open_session
from db.keys.node_owner import OwnerClaim, pending_claim
from db.keys.nodes import register_node
from db.tx import Tx
from tests.actors.commands.conftest import Atlas


def on_database(*, claim: bool) -> OwnerClaim | None:
    """The change of a nonce that waits for node oslo, which is added first if not `claim`."""

    async def use(tx: Tx) -> OwnerClaim | None:
        if claim:
            return await pending_claim(tx, "oslo")
        await register_node(tx, "oslo", {"host": "localhost"}, inbounds=["vless"])
        return None

    async def run() -> OwnerClaim | None:
        async with open_session(os.environ["ATLAS__DATABASE__DSN"], "test") as session:
            return await session.run("test", use)

    return trio.run(run)


def test_a_node_is_taken_or_given_a_code_and_nothing_by_halves(atlas: Atlas) -> None:
    on_database(claim=False)
    waiting = on_database(claim=True)
    assert waiting is not None and not waiting.is_taking and waiting == on_database(claim=True), (
        "said until it is answered"
    )
    for words in ((), ("--take", "--code", "x")):
        atlas("node", "own", "oslo", *words, fails=64)
    assert "nowhere" in atlas("node", "own", "nowhere", "--take", fails=65)
    assert on_database(claim=True) == waiting
    assert "oslo" in atlas("node", "own", "oslo", "--take", text=True)
    taking = on_database(claim=True)
    assert taking is not None and taking.is_taking and taking.nonce != waiting.nonce
    atlas("node", "own", "oslo", "--code", "one-time", text=True)
    coded = on_database(claim=True)
    assert coded is not None and coded.code == "one-time" and "one-time" not in repr(coded)
