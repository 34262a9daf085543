"""Bad input gets a clear error that names what, where and what to do, the right exit code, and loses nothing."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import cast

import httpx
import pytest
import trio

from db.embedded import EmbeddedSettings, embedded_dsn
from tests.e2e.changes import watch
from tests.e2e.stack import Stack, stack
from tests.e2e.test_main_job import BUY, assert_bought_once
from tests.permissions import AS_NOBODY, NOBODY, OBEYING
from tests.postgres_cluster import Cluster

NOWHERE = "postgresql://atlas@127.0.0.1:1/atlas"


def edit(here: Stack, old: str, new: str) -> None:
    """Change the installation's supervisor.toml."""
    path = here.home / "supervisor.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


async def test_wrong_toml_names_file_line_and_key() -> None:
    async with stack() as here:
        edit(here, "[pool]\nsize = 10", '[pool]\nsizes = "ten"')
        refused = await here.atlas("run")
        assert refused.status == 78
        line = (here.home / "supervisor.toml").read_text().splitlines().index('sizes = "ten"') + 1
        assert f'supervisor.toml:{line}: pool.sizes: unknown key; did you mean "size"?' in refused.stderr


async def test_toml_that_is_no_toml_names_the_line() -> None:
    async with stack() as here:
        edit(here, "\n[pool]\n", "\n[pool\n")
        refused = await here.atlas("check")
        assert refused.status == 78
        assert "supervisor.toml:" in refused.stderr


async def test_a_taken_port_names_address_and_setting() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with stack({"ATLAS__ADMIN__PORT": str(port)}, migrated=True) as here:
            refused = await here.atlas("run", within=90)
            assert refused.status == 69
            assert f"127.0.0.1 port {port}" in refused.stderr
            assert "admin.port" in refused.stderr
            assert here.processes() == []


async def test_an_unreadable_data_directory_names_it_and_the_setting() -> None:
    async with stack() as here:
        (here.home / "data").write_text("in the way")
        refused = await here.atlas("run", within=90)
        assert refused.status == os.EX_CONFIG
        assert str(here.home / "data") in refused.stderr
        assert "embedded.data_dir" in refused.stderr


async def test_a_data_directory_that_may_not_be_read_names_it_and_the_setting() -> None:
    async with stack() as here:
        here.prefix = OBEYING
        (here.home / "data").mkdir(mode=0)
        refused = await here.atlas("run", within=90)
        assert refused.status == os.EX_NOPERM, refused.stderr
        assert f"the data directory {here.home}/data cannot be used by user" in refused.stderr
        assert "Permission denied" in refused.stderr
        assert "embedded.data_dir" in refused.stderr
        assert "Traceback" not in refused.stderr
        assert here.processes() == []


@pytest.mark.root
async def test_a_data_directory_of_root_is_refused_to_another_user() -> None:
    async with stack() as here:
        here.prefix = AS_NOBODY
        os.chown(here.home, NOBODY, NOBODY)
        (here.home / "data").mkdir(mode=0o700)
        refused = await here.atlas("run", within=90)
        assert refused.status == os.EX_NOPERM, refused.stderr
        assert f"the data directory {here.home}/data cannot be used by user {NOBODY}" in refused.stderr
        assert "embedded.data_dir" in refused.stderr


@pytest.mark.root
async def test_the_whole_service_runs_as_another_user_and_its_data_stay_that_users() -> None:
    async with stack() as here:
        here.prefix = AS_NOBODY
        os.chown(here.home, NOBODY, NOBODY)
        async with here.running():
            await here.ok("customer", "add", "42")
            await here.ok(*BUY, "--amount", "14900")
            for path in (here.home / "data").rglob("*"):
                assert path.lstat().st_uid == NOBODY, path
        assert here.processes() == []
        here.prefix = ()
        os.chown(here.home, 0, 0)
        refused = await here.atlas("run", within=90)  # as root, who would leave files of his own among that user's
        assert refused.status == os.EX_NOPERM, refused.stderr
        assert str(here.home / "data") in refused.stderr
        assert f"belongs to user {NOBODY}" in refused.stderr
        assert (here.home / "data" / "run").stat().st_uid == NOBODY, "a refused start changes nothing"


async def test_a_node_elsewhere_without_its_token_is_refused_with_both_keys() -> None:
    async with stack({"ATLAS__NODES__LOCAL__URL": "https://node.example:8700"}) as here:
        refused = await here.atlas("check")
        assert refused.status == os.EX_CONFIG
        assert "ATLAS__NODES__LOCAL__URL: nodes.local.url: " in refused.stderr
        assert "set token_file as well" in refused.stderr
        here.env["ATLAS__NODES__LOCAL__URL"] = "node.example:8700"
        assert "such as https://node.example:8700" in (await here.atlas("check")).stderr


@asynccontextmanager
async def server_of_version_14(cluster: Cluster, dsn: str) -> AsyncIterator[str]:
    """The real server, which says when one connects that it is a PostgreSQL 14; yields its DSN."""

    async def pass_on(source: trio.SocketStream, sink: trio.SocketStream, *, lies: bool) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for part in source:
                await sink.send_all(re.sub(rb"(server_version\0)\d\d", rb"\g<1>14", part) if lies else part)
            await sink.send_eof()

    async def serve(client: trio.SocketStream) -> None:
        server = await trio.open_unix_socket(f"{cluster.root}/.s.PGSQL.{cluster.port}")
        async with client, server, trio.open_nursery() as both:
            both.start_soon(partial(pass_on, client, server, lies=False))
            both.start_soon(partial(pass_on, server, client, lies=True))

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        port = listener.socket.getsockname()[1]
        name = dsn.partition("@/")[2].partition("?")[0]
        yield f"postgresql://atlas@127.0.0.1:{port}/{name}?sslmode=disable"
        nursery.cancel_scope.cancel()


async def test_a_server_that_is_too_old_is_refused_with_its_version(cluster: Cluster, empty_database_dsn: str) -> None:
    async with (
        server_of_version_14(cluster, empty_database_dsn) as dsn,
        stack({"ATLAS__DATABASE__DSN": dsn}) as here,
    ):
        for words in (("run",), ("customer", "add", "42"), ("db", "migrate")):
            refused = await here.atlas(*words, within=120)
            assert refused.status == os.EX_CONFIG, refused.stderr
            assert "PostgreSQL 14" in refused.stderr
            assert "15" in refused.stderr
            assert "database.dsn" in refused.stderr
            assert "Traceback" not in refused.stderr


async def test_embedded_binaries_that_are_too_old_end_the_start_with_words() -> None:
    async with stack() as here:
        old = here.home / "old" / "postgres"
        old.parent.mkdir()
        old.write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 14.12'\n")
        old.chmod(0o755)
        here.env["ATLAS__EMBEDDED__BINARIES"] = str(old.parent)
        refused = await here.atlas("run", within=120)
        assert refused.status == os.EX_CONFIG
        assert f"PostgreSQL 14.12 in {old.parent} is too old" in refused.stderr
        assert "embedded.binaries" in refused.stderr


async def test_money_is_recorded_while_no_supervisor_runs_and_the_key_goes_live_after(empty_database_dsn: str) -> None:
    async with stack({"ATLAS__DATABASE__DSN": empty_database_dsn}) as here:
        await here.ok("db", "migrate")
        await here.ok("customer", "add", "42")
        assert (await here.atlas("status")).status == os.EX_UNAVAILABLE, "nothing runs"
        await here.ok(*BUY, "--amount", "14900")
        async with watch(empty_database_dsn) as seen:
            assert await seen.status_of(42) == "pending"
            async with here.running():
                await seen.until_status(42, "active")
                await assert_bought_once(seen, 42)


async def test_an_unreachable_database_is_named_and_keeps_no_command_waiting() -> None:
    async with stack({"ATLAS__DATABASE__DSN": NOWHERE}) as here:
        refused = await here.atlas("customer", "add", "42")
        assert refused.status == 69
        assert "127.0.0.1" in refused.stderr
        assert "database.dsn" in refused.stderr


async def test_an_unreachable_database_is_a_state_of_the_running_system_not_its_end() -> None:
    async with stack({"ATLAS__DATABASE__DSN": NOWHERE}) as here, here.running():
        shown = await here.status()
        pool = next(
            child for child in cast("list[dict[str, object]]", shown["children"]) if child["name"] == "pool.main"
        )
        assert (pool["state"], pool["incarnation"], pool["ready"]) == ("running", 1, False)
        assert "127.0.0.1:1" in str(pool["why_not_ready"])
        assert "database.dsn" in here.log
        facts = cast("dict[str, str]", (await here.ok("inspect", "admin", "--json")).json["facts"])
        async with httpx.AsyncClient(trust_env=False) as browser:
            assert (await browser.get(f"{facts['listening']}/livez")).status_code == 200
            unready = await browser.get(f"{facts['listening']}/readyz")
        assert unready.status_code == 503
        assert "pool.main" in unready.json()["not_ready"]


async def test_a_node_that_refuses_is_named_and_loses_no_purchase() -> None:
    environment = {"ATLAS__NODES__LOCAL__URL": "http://127.0.0.1:1", "ATLAS__NODES__LOCAL__TOKEN": "x" * 32}
    async with stack(environment, migrated=True) as here, here.running():
        await here.ok("customer", "add", "42")
        bought = await here.ok(
            *(*BUY, "--amount", "14900", "--json"),
        )
        assert bought.json["result"] == "entitlement"
        shown = await here.ok("subscription", "42", "--json")
        assert shown.json["state"] == "activating"
        status = await here.status()
        node = next(
            child for child in cast("list[dict[str, object]]", status["children"]) if child["name"] == "node.local"
        )
        assert (node["state"], node["incarnation"], node["ready"]) == ("running", 1, False)
        assert "127.0.0.1:1" in str(node["why_not_ready"])
        assert (await here.ok(*BUY, "--amount", "14900", "--json")).json["replayed"] is True
        async with watch(embedded_dsn(EmbeddedSettings(data_dir=here.home / "data"))) as seen:
            assert await seen.value("SELECT count(*) FROM money_in") == 1
            assert await seen.value("SELECT max(attempts) FROM vpn_keys") == 0, "an outage costs no attempt"


async def test_what_there_is_not_is_named_with_what_there_is() -> None:
    """One installation answers for all of them: each only asks, and none changes what another sees."""
    payment = ("--provider", "manual", "--charge", "c-1", "--amount", "14900")
    async with stack(migrated=True) as here, here.running():
        await here.ok("customer", "add", "42")
        for customer, tariff, days, status, words in (
            ("7", "basic", "30", 67, ("no customer", "7")),
            ("42", "basik", "30", 65, ("basik", "basic", "plus")),
            ("42", "basic", "31", 65, ("31", "30 d", "365 d")),
        ):
            bought = ("buy", "--customer", customer, "--tariff", tariff, "--days", days)
            refused = await here.atlas(*bought, *payment)
            assert refused.status == status, refused.stderr
            for word in words:
                assert word in refused.stderr
        for command in ("subscription", "revoke"):
            refused = await here.atlas(command, "4711")
            assert refused.status == 67
            assert "4711" in refused.stderr
        refused = await here.atlas("buy", "--customer", "forty-two")
        assert refused.status == 64, "a wrong option is a usage error"
        assert "forty-two" in refused.stderr
