"""The admin listener: what it answers, to whom, and where it refuses to listen."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import attrs
import httpx
import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from actors.desk.admin import Admin, AdminSettings
from actors.desk.backlog import BacklogWatch
from actors.health.housekeeping import VIOLATIONS
from runtime import Actor, AddressState, Ignore, Ref, StartRefused, open_tree_nursery, unwrap_group
from runtime.config import Secret
from runtime.testing import ActorSystem, OnCrash, actor_system
from tests.actors.pool_fixtures import pool_harness

TOKEN = Secret("a-token-of-this-test")


class Reluctant(Actor):
    """Runs, but cannot do its work."""

    async def on_start(self) -> None:
        self.context.ready(False, "still looking for its keys")


@attrs.define(eq=False)
class Site(Actor):
    """Stands for one of several nodes."""

    name: str
    required: Literal["any", "all"] | int
    is_well: bool

    async def on_start(self) -> None:
        self.context.one_of("nodes", self.name, self.required)
        self.context.trouble("away", "" if self.is_well else "it is away")
        self.context.trouble("clock", "", blocks=False)


@attrs.define(eq=False)
class Prober(Actor):
    """Looks at all nodes and finds one that is in trouble."""

    found: str

    async def on_start(self) -> None:
        self.context.trouble("packets", f"no packet passes through {self.found}", about=f"nodes.{self.found}")


class Declining(Actor):
    """Has nothing to do here."""

    async def on_start(self) -> None:
        raise Ignore("nothing to do")


@asynccontextmanager
async def serving(settings: AdminSettings) -> AsyncIterator[tuple[ActorSystem, Ref, httpx.AsyncClient]]:
    async with actor_system() as system:
        ref = await system.start(Admin(settings), name="admin", on_crash=OnCrash.RESTART)
        url = system.address(ref).facts["listening"]
        async with httpx.AsyncClient(base_url=url, trust_env=False) as browser:
            yield system, ref, browser


async def test_ready_turns_503_with_the_reason_of_whoever_is_not() -> None:
    async with serving(AdminSettings(port=0)) as (system, _, browser):
        assert (await browser.get("/readyz")).json() == {"ready": True, "not_ready": {}, "degraded": {}}
        await system.start(Reluctant(), name="reluctant")
        answer = await browser.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["not_ready"] == {"reluctant": "still looking for its keys"}
        assert (await browser.get("/livez")).status_code == 200
        assert (await browser.get("/startupz")).status_code == 200


async def test_who_declined_to_run_is_not_waited_for() -> None:
    async with serving(AdminSettings(port=0)) as (system, _, browser):
        with pytest.RaisesGroup(Ignore, flatten_subgroups=True, allow_unwrapped=True):
            async with trio.open_nursery() as nursery, open_tree_nursery() as tree:
                idle = ActorSystem(nursery, system.services, tree)
                await idle.start(Declining(), name="declining")
        assert system.services.registry.find("declining").state is AddressState.DEAD
        assert (await browser.get("/readyz")).json() == {"ready": True, "not_ready": {}, "degraded": {}}


@pytest.mark.parametrize(
    ("required", "are_well", "is_ready"),
    [
        ("any", (True, False, False), True),
        ("any", (False, False, False), False),
        ("all", (True, True, False), False),
        ("all", (True, True, True), True),
        (2, (True, True, False), True),
        (2, (True, False, False), False),
        (4, (True, True, True), False),
        (0, (False, False, False), True),
    ],
)
async def test_it_is_ready_while_as_many_of_the_nodes_as_are_required_are_well(
    required: Literal["any", "all"] | int, are_well: tuple[bool, ...], is_ready: bool
) -> None:
    async with serving(AdminSettings(port=0)) as (system, _, browser):
        away = {}
        for name, is_well in zip(("bern", "oslo", "rome"), are_well, strict=True):
            await system.start(Site(name, required, is_well), name=f"node.{name}")
            if not is_well:
                away[f"node.{name}"] = "it is away"
        answer = await browser.get("/readyz")
        assert answer.status_code == (200 if is_ready else 503)
        said = answer.json()
        if required == 4:
            assert said["not_ready"] == {"nodes": "4 nodes are required and 3 are configured: correct nodes.required"}
        else:
            assert (said["not_ready"], said["degraded"]) == (({}, away) if is_ready else (away, {}))


async def test_what_an_actor_says_about_one_node_counts_for_that_node_alone() -> None:
    async with serving(AdminSettings(port=0)) as (system, _, browser):
        for name in ("oslo", "rome"):
            await system.start(Site(name, "any", is_well=True), name=f"node.{name}")
        await system.start(Prober("rome"), name="prober")
        said = await browser.get("/readyz")
        assert (said.status_code, said.json()["degraded"]) == (200, {"prober": "no packet passes through rome"})
        await system.start(Prober("oslo"), name="other")
        assert (await browser.get("/readyz")).status_code == 503


async def test_metrics_are_prometheus_text() -> None:
    async with serving(AdminSettings(port=0)) as (_, _, browser):
        answer = await browser.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert list(text_string_to_metric_families(answer.text)) is not None


async def test_with_a_token_metrics_are_for_whoever_has_it_and_probes_for_all() -> None:
    async with serving(AdminSettings(port=0, token=TOKEN)) as (_, _, browser):
        assert (await browser.get("/metrics")).status_code == 401
        wrong = {"authorization": "Bearer something-else"}
        assert (await browser.get("/metrics", headers=wrong)).status_code == 401
        right = {"authorization": f"Bearer {TOKEN.reveal()}"}
        assert (await browser.get("/metrics", headers=right)).status_code == 200
        assert (await browser.get("/livez")).status_code == 200


async def test_on_loopback_it_answers_to_this_machines_names_and_to_those_of_its_proxies() -> None:
    """A page of a stranger's can send a browser here under its own name (DNS rebinding)."""
    async with serving(AdminSettings(port=0, hosts=("atlas.example",))) as (_, _, browser):
        for host in (
            "localhost",
            "LOCALHOST:8600",
            "127.0.0.1:1",
            "127.1.2.3",
            "[::1]:8600",
            "Atlas.Example",
            "atlas.example:443",
        ):
            assert (await browser.get("/metrics", headers={"host": host})).status_code == 200, host
        for host in (
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example:8600",
            "192.0.2.1",
            "[2001:db8::1]",
            "",
        ):
            refused = await browser.get("/metrics", headers={"host": host})
            assert refused.status_code == 421 and "admin.hosts" in refused.text, host


async def test_a_taken_port_refuses_the_start_and_names_the_setting() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.RaisesGroup(StartRefused, flatten_subgroups=True, allow_unwrapped=True) as refused:
            async with serving(AdminSettings(port=port)):
                pass
    error = unwrap_group(refused.value)
    assert isinstance(error, StartRefused)
    assert error.exit_code == os.EX_UNAVAILABLE
    assert f"port {port}" in str(error)
    assert "admin.port" in str(error)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])  # noqa: S104 - refused, not bound
async def test_an_address_beyond_loopback_needs_a_token(host: str) -> None:
    with pytest.RaisesGroup(StartRefused, flatten_subgroups=True, allow_unwrapped=True):
        async with serving(AdminSettings(host=host, port=0)):
            pass


@pytest.mark.parametrize(
    "hostile",
    [
        b"\x00\xff\xfe\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    ],
)
async def test_malformed_http_ends_its_own_connection_only(hostile: bytes) -> None:
    async with serving(AdminSettings(port=0)) as (_, ref, browser):
        stream = await trio.open_tcp_stream("127.0.0.1", int(str(browser.base_url.port)))
        async with stream:
            await stream.send_all(hostile)
            with trio.move_on_after(0.5):
                await stream.receive_some()
        assert (await browser.get("/livez")).status_code == 200
        assert ref.incarnation == 1


async def test_it_listens_again_after_a_crash_and_leaves_no_socket_behind() -> None:
    async with serving(AdminSettings(port=0)) as (system, ref, browser):
        await system.kill(ref)
        await system.up(ref, 2)
        with pytest.raises(httpx.ConnectError):
            await browser.get("/livez")  # the first incarnation's own port
        url = system.address(ref).facts["listening"]
        async with httpx.AsyncClient(base_url=url, trust_env=False) as again:
            assert (await again.get("/livez")).status_code == 200


async def test_a_database_without_what_the_desk_counts_is_shown_as_trouble(
    empty_database_dsn: str,
) -> None:
    for values in VIOLATIONS.samples():  # the figures are the process's: tests before this one have left some
        VIOLATIONS.labels(*values).set(0)
    async with pool_harness(empty_database_dsn) as harness:
        watch = BacklogWatch(harness.pool)
        with trio.move_on_after(5) as patience:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch.run)
                while not watch.trouble:
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
        assert not patience.cancelled_caught
        assert "does not exist" in watch.trouble
        assert [row.label for row in watch.facts() if row.is_wrong] == ["database"]
