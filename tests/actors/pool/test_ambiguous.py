"""A connection that is lost amid COMMIT: whether it happened is open, the caller hears exactly that, and can find out."""

from __future__ import annotations

import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio

from actors.pool.settings import PoolSettings
from db.driver.classify import Fault, classify
from db.errors import AmbiguousCommit, ConnectionLost, LeaseExpired, LeaseRevoked
from db.lease.lease import OpenLease
from db.tx import Tx
from tests.actors.pool_fixtures import pool_harness
from tests.postgres_cluster import Cluster

SMALL = PoolSettings(size=2, reserved=0)
COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"


class Proxy:
    """Stands between a pool and its server, and cuts the line at the next COMMIT, before it is heard or after."""

    def __init__(self, server: str, *, heard: bool) -> None:
        self.server = server
        self.heard = heard
        self.armed = False
        self.cut_at = COMMIT
        """What a client says just before its line is cut."""

    async def serve(self, client: trio.SocketStream) -> None:
        """Pass on what both say until one of them ends."""
        async with await trio.open_unix_socket(self.server) as server, client, trio.open_nursery() as nursery:
            nursery.start_soon(self._answers, server, client, nursery.cancel_scope)
            async for data in client:
                if not (self.armed and self.cut_at in data):
                    await server.send_all(data)
                    continue
                self.armed = False
                nursery.cancel_scope.cancel()
                if self.heard:
                    with trio.CancelScope(shield=True):
                        await server.send_all(data)
                        await server.receive_some()  # it has committed; nobody else will read this
                return
            nursery.cancel_scope.cancel()

    @staticmethod
    async def _answers(server: trio.SocketStream, client: trio.SocketStream, scope: trio.CancelScope) -> None:
        async for data in server:
            await client.send_all(data)
        scope.cancel()


@asynccontextmanager
async def proxied(cluster: Cluster, dsn: str, *, heard: bool) -> AsyncIterator[tuple[str, Proxy]]:
    """The address of the same database by way of a proxy."""
    with tempfile.TemporaryDirectory(prefix="atlas-proxy-", dir="/tmp") as directory:
        name = f".s.PGSQL.{cluster.port}"
        proxy = Proxy(str(cluster.root / name), heard=heard)
        listening = trio.socket.socket(trio.socket.AF_UNIX)
        await listening.bind(str(Path(directory, name)))
        listening.listen(50)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, proxy.serve, [trio.SocketListener(listening)])
            yield dsn.replace(f"host={cluster.root}", f"host={directory}"), proxy
            nursery.cancel_scope.cancel()


async def _create(tx: Tx) -> None:
    await tx.execute("CREATE TABLE t (key text PRIMARY KEY)")


async def _insert(tx: Tx, key: str) -> None:
    await tx.execute("INSERT INTO t VALUES ($1) ON CONFLICT DO NOTHING", key)


async def _keys(tx: Tx) -> list[str]:
    return [row["key"] for row in await tx.fetch("SELECT key FROM t")]


@pytest.mark.parametrize("heard", [True, False], ids=["committed", "not committed"])
async def test_a_line_cut_amid_commit_is_told_as_ambiguous_and_the_key_tells_which(
    cluster: Cluster, empty_database_dsn: str, heard: bool
) -> None:
    async with (
        proxied(cluster, empty_database_dsn, heard=heard) as (dsn, proxy),
        pool_harness(dsn, SMALL) as harness,
    ):
        await harness.pool.run("create", _create)
        proxy.armed = True
        with trio.fail_after(10), pytest.raises(AmbiguousCommit, match="idempotency key") as caught:
            await harness.pool.run("insert", _insert, "order 1")
        assert classify(caught.value) is Fault.AMBIGUOUS
        await harness.until_full()
        assert (await harness.pool.run("look", _keys) == ["order 1"]) is heard
        await harness.pool.run("insert", _insert, "order 1")
        assert await harness.pool.run("look", _keys) == ["order 1"], "repeated by its key, it happened once"


async def test_a_backend_terminated_amid_commit_is_ambiguous(cluster: Cluster, empty_database_dsn: str) -> None:
    async def slow_commits(tx: Tx) -> None:
        await tx.execute(
            "CREATE TABLE t (key text); CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_sleep(20); RETURN NULL; END $$; "
            "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION slow()"
        )

    async def kill() -> None:
        terminate = (
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE datname = current_database() AND query = 'COMMIT' AND wait_event = 'PgSleep'"
        )
        while await trio.to_thread.run_sync(cluster.sql, terminate, name) == "0":
            pass

    name = urlsplit(empty_database_dsn).path.removeprefix("/")
    async with pool_harness(empty_database_dsn, SMALL) as harness, trio.open_nursery() as nursery:
        await harness.pool.run("setup", slow_commits)
        nursery.start_soon(kill)
        with trio.fail_after(10), pytest.raises(AmbiguousCommit):
            await harness.pool.run("insert", lambda tx: tx.execute("INSERT INTO t VALUES ('x')"), hold=20)


@pytest.mark.parametrize("heard", [True, False], ids=["happened", "did not happen"])
async def test_a_statement_that_commits_by_itself_is_ambiguous_when_its_answer_is_lost(
    cluster: Cluster, empty_database_dsn: str, heard: bool
) -> None:
    async with (
        proxied(cluster, empty_database_dsn, heard=heard) as (dsn, proxy),
        pool_harness(dsn, SMALL) as harness,
    ):
        await harness.pool.run("create", _create)
        proxy.cut_at = b"order 2"
        proxy.armed = True
        with (
            trio.fail_after(60),
            pytest.raises(AmbiguousCommit, match=r"commits by itself.*1 statements or transactions"),
        ):
            async with harness.pool.lease("insert") as lease:
                await lease.execute("INSERT INTO t VALUES ('order 1')")
                await lease.execute("INSERT INTO t VALUES ('order 2')")
        await harness.until_full()
        assert await harness.pool.run("look", _keys) == ["order 1", *(["order 2"] if heard else [])]


async def test_a_statement_in_a_transaction_of_an_open_lease_is_not_ambiguous(
    cluster: Cluster, empty_database_dsn: str
) -> None:
    async with proxied(cluster, empty_database_dsn, heard=True) as (dsn, proxy), pool_harness(dsn, SMALL) as harness:
        await harness.pool.run("create", _create)
        proxy.cut_at = b"order 1"
        proxy.armed = True
        with trio.fail_after(60), pytest.raises(ConnectionLost, match="before COMMIT") as caught:
            async with harness.pool.lease("insert") as lease:
                await lease.execute("BEGIN")
                await lease.execute("INSERT INTO t VALUES ('order 1')")
        assert "stay" not in str(caught.value), "nothing had committed"
        await harness.until_full()
        assert await harness.pool.run("look", _keys) == []


async def test_an_expired_open_lease_says_what_is_known_and_the_holders_line(empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn, SMALL) as harness:
        await harness.pool.run("create", _create)
        with trio.fail_after(60), pytest.raises(LeaseExpired) as between:
            async with harness.pool.lease("insert", hold=1) as lease:
                await lease.execute("INSERT INTO t VALUES ('order 1')")
                await trio.sleep_forever()
        with trio.fail_after(60), pytest.raises(LeaseExpired) as amid:
            async with harness.pool.lease("insert", hold=1) as lease:
                await lease.execute("INSERT INTO t SELECT 'order 2' FROM pg_sleep(60)")
        with trio.fail_after(60), pytest.raises(LeaseExpired) as nothing:
            async with harness.pool.lease("idle", hold=1):
                await trio.sleep_forever()
    here = r"It stood at \S*test_ambiguous.py:\d+ in test_an_expired_open_lease_says_what_is_known_and_the_holders_line"
    assert re.search(r"1 statements or transactions of the lease committed before and stay", str(between.value))
    assert re.search(here + "$", str(between.value)), "the holder's line, not trio's"
    assert re.search("commits by itself was under way: it may or may not have happened", str(amid.value))
    assert re.search(here, str(amid.value))
    assert re.search("nothing was committed", str(nothing.value))
    assert [classify(each.value) for each in (between, amid, nothing)] == [
        Fault.AMBIGUOUS,
        Fault.AMBIGUOUS,
        Fault.TRANSIENT,
    ]


async def test_a_revoked_open_lease_says_what_is_known(empty_database_dsn: str) -> None:
    async with pool_harness(empty_database_dsn, SMALL) as harness:
        await harness.pool.run("create", _create)

        async def revoke_it(lease: OpenLease) -> None:
            await lease.execute("INSERT INTO t VALUES ('order 1')")
            (held,) = harness.state.leases.values()
            harness.state.revoke(held, "an operator said so")
            await lease.execute("INSERT INTO t VALUES ('order 2')")

        with trio.fail_after(60), pytest.raises(LeaseRevoked, match=r"said so.*1 statements or.* stay") as caught:
            async with harness.pool.lease("insert") as lease:
                await revoke_it(lease)
        assert classify(caught.value) is Fault.AMBIGUOUS
        await harness.until_full()
        assert await harness.pool.run("look", _keys) == ["order 1"]
