"""A database and a node of one's own: each is one setting, and the embedded part stays away."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from runtime.child_process import lines
from tests.e2e import socks
from tests.e2e.changes import watch
from tests.e2e.customer import client
from tests.e2e.origin import PAGE, origin
from tests.e2e.stack import Stack, stack
from tests.e2e.test_main_job import BUY, assert_bought_once, assert_money_holds, dsn_of

TOKEN = "a-token-of-this-test-only-0123456789"


@asynccontextmanager
async def agent_of_ones_own(here: Stack) -> AsyncIterator[str]:
    """`atlas node run`, started by hand as on a VPN host; yields its address."""
    token_file = here.home / "node-token"
    token_file.write_text(TOKEN)
    token_file.chmod(0o600)
    process = here.spawn("node", "run", "--data-dir", str(here.home / "own-node"), "--token-file", str(token_file))
    assert process.stdout is not None
    try:
        with trio.fail_after(90):
            announced = await anext(lines(process.stdout))
        yield str(json.loads(announced)["listening"])
    finally:
        with trio.CancelScope(shield=True):
            await process.stop(signal.SIGTERM, grace=30)
            await process.close()


async def test_the_main_job_runs_on_a_database_and_a_node_of_ones_own(empty_database_dsn: str) -> None:
    async with stack({"ATLAS__DATABASE__DSN": empty_database_dsn}) as here, agent_of_ones_own(here) as url:
        text = (here.home / "supervisor.toml").read_text()
        assert "[nodes.local]" in text
        own = f'[nodes.local]\nurl = "{url}"\ntoken_file = "node-token"'
        (here.home / "supervisor.toml").write_text(text.replace("[nodes.local]", own, 1))
        async with here.running(), origin() as site, watch(empty_database_dsn) as seen:
            assert not (here.home / "data" / "postgres").exists()
            await here.ok("customer", "add", "42")
            await here.ok(*BUY, "--amount", "14900")
            await seen.until_status(42, "active")
            await assert_bought_once(seen, 42)
            link = str((await here.ok("subscription", "42", "--json")).json["link"])
            async with client(here, link) as proxy:
                assert await socks.fetch(proxy, site.port) == PAGE
            await assert_money_holds(seen)


async def test_a_node_that_refuses_our_token_is_named_and_costs_a_purchase_no_attempt() -> None:
    async with (
        stack({"ATLAS__NODES__LOCAL__TOKEN": "not-the-token-0123456789"}, migrated=True) as here,
        agent_of_ones_own(here) as url,
    ):
        here.env["ATLAS__NODES__LOCAL__URL"] = url
        async with here.running(), watch(dsn_of(here)) as seen:
            await here.ok("customer", "add", "42")
            await here.ok(*BUY, "--amount", "14900")
            shown = (await here.ok("subscription", "42", "--json")).json
            assert shown["state"] == "activating"
            assert "correct this node's token" in here.log
            assert "not-the-token" not in here.log
            assert await seen.value("SELECT max(attempts) FROM vpn_keys") == 0
