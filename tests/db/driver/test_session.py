"""A command's connection: it works, it ends, and what is wrong with the address is said in an operator's words."""

from __future__ import annotations

import gc
import os
import random
import signal
import socket
from pathlib import Path

import pytest
import trio

from db.driver import connection
from db.driver.session import open_session
from db.errors import DatabaseUnreachable, DatabaseUnusable, ForeignAwait, LeaseExpired
from db.tx import Tx
from runtime.config import Secret
from tests.postgres_cluster import Cluster
from tests.run_queue import PATIENCE
from tests.stopping import stop


async def _add(tx: Tx, one: int, other: int) -> int:
    found: int = await tx.fetchval("SELECT $1::int + $2::int", one, other)
    return found


async def test_a_session_runs_a_function_in_a_transaction(empty_database_dsn: str) -> None:
    async with open_session(Secret(empty_database_dsn), "atlas/test") as session:
        assert await session.run("add", _add, 1, 2) == 3


async def test_a_session_rolls_back_when_the_function_raises_and_goes_on(empty_database_dsn: str) -> None:
    async def fail(tx: Tx) -> None:
        await tx.execute("CREATE TABLE t ()")
        raise LookupError

    async def exists(tx: Tx) -> bool:
        found: bool = await tx.fetchval("SELECT to_regclass('t') IS NOT NULL")
        return found

    async with open_session(empty_database_dsn, "atlas/test") as session:
        with pytest.raises(LookupError):
            await session.run("fail", fail)
        assert not await session.run("exists", exists)


async def test_a_session_gives_up_at_its_deadline_and_goes_on(empty_database_dsn: str) -> None:
    async def slow(tx: Tx) -> None:
        await tx.execute("SELECT pg_sleep(15)")

    async with open_session(empty_database_dsn, "atlas/test") as session:
        with trio.fail_after(PATIENCE), pytest.raises(LeaseExpired, match=r'"slow" was not done within 0\.1 s'):
            await session.run("slow", slow, within=0.1)
        assert await session.run("add", _add, 1, 2) == 3


async def test_a_sessions_function_can_await_nothing_else(empty_database_dsn: str) -> None:
    async def sleep(_: Tx) -> None:
        await trio.sleep(1)

    async with open_session(empty_database_dsn, "atlas/test") as session:
        with pytest.raises(ForeignAwait):
            await session.run("sleep", sleep)


async def test_an_error_of_the_block_comes_out_as_it_was_raised(empty_database_dsn: str) -> None:
    with pytest.raises(KeyError):
        async with open_session(empty_database_dsn, "atlas/test"):
            raise KeyError


async def test_nobody_listening_is_unreachable_and_names_where(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnreachable) as caught:
        async with open_session(f"postgresql://someone:hunter2@/shop?host={tmp_path}", "atlas/test"):
            pass
    assert caught.value.exit_code == 69
    text = str(caught.value)
    assert "'shop'" in text
    assert str(tmp_path) in text
    assert "database.dsn" in text
    assert "hunter2" not in text


async def test_a_refused_port_is_unreachable() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with pytest.raises(DatabaseUnreachable, match=f"127.0.0.1:{port}"):
            async with open_session(f"postgresql://someone:hunter2@127.0.0.1:{port}/shop", "atlas/test"):
                pass


async def test_an_unknown_host_is_unreachable() -> None:
    with pytest.raises(DatabaseUnreachable, match=r"nowhere\.invalid"):
        async with open_session("postgresql://someone@nowhere.invalid/shop", "atlas/test", within=10):
            pass


async def test_a_missing_database_is_a_configuration_to_correct(cluster: Cluster) -> None:
    with pytest.raises(DatabaseUnusable, match=r"'no_such_shop'.*does not exist") as caught:
        async with open_session(cluster.dsn("no_such_shop"), "atlas/test"):
            pass
    assert caught.value.exit_code == 78


async def test_a_refused_user_is_a_configuration_to_correct(cluster: Cluster) -> None:
    dsn = cluster.dsn().replace("atlas@", "nobody_like_that:hunter2@")
    with pytest.raises(DatabaseUnusable, match="refused our credentials") as caught:
        async with open_session(dsn, "atlas/test"):
            pass
    assert caught.value.exit_code == 78
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "dsn",
    ["mysql://root:hunter2@db/shop", "postgresql://u:hunter2@db:notaport/shop", "postgresql://u:hunter2@[::1/shop"],
)
async def test_an_unreadable_dsn_is_a_configuration_to_correct(dsn: str) -> None:
    with pytest.raises(DatabaseUnusable) as caught:
        async with open_session(dsn, "atlas/test"):
            pass
    assert "hunter2" not in str(caught.value)
    assert caught.value.exit_code == 78


async def test_a_server_that_is_too_old_is_refused(empty_database_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "OLDEST_SERVER", 99)
    with pytest.raises(DatabaseUnusable, match="too old: version 99") as caught:
        async with open_session(empty_database_dsn, "atlas/test"):
            pass
    assert caught.value.exit_code == 78


async def test_a_stopped_server_is_unreachable_within_the_limit(cluster: Cluster) -> None:
    stop(cluster.pid)
    try:
        with trio.fail_after(PATIENCE), pytest.raises(DatabaseUnreachable, match=r"did not answer within 0\.2 s"):
            async with open_session(cluster.dsn(), "atlas/test", within=0.2):
                pass
    finally:
        os.kill(cluster.pid, signal.SIGCONT)


async def test_who_is_cancelled_while_connecting_leaves_no_socket_to_the_collector(
    empty_database_dsn: str,
) -> None:
    chance = random.Random(1)
    opened = 0
    longest = 0.012  # seconds
    for _ in range(400):
        with trio.move_on_after(chance.uniform(0, longest)) as scope:
            async with open_session(empty_database_dsn, "atlas/test"):
                opened += 1
        # About half of them are cancelled, at whatever point, however busy the machine.
        longest *= 1.1 if scope.cancelled_caught else 1 / 1.1
    gc.collect()  # an open transport that nobody holds is a warning, which is an error here
    assert 0 < opened < 400
