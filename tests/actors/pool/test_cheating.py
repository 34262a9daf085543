"""Nobody holds a connection across a call: each way round the rule, tried on a real pool."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import copy_context
from functools import partial

import httpx
import pytest
import trio
import trio.testing

from actors.pool.settings import PoolSettings
from db.errors import ForeignAwait, LeaseError, LeaseMisused, NestedLease, TransactionLost
from db.tx import Tx
from runtime import Inspect, LeaseHeldAcrossCall
from runtime.http import new_client
from tests.actors.pool_fixtures import PoolHarness, pool_harness
from tests.run_queue import at_most

SMALL = PoolSettings(size=2, reserved=0)
Cheat = Callable[[Tx], Awaitable[None]]


@asynccontextmanager
async def harness_with_table(dsn: str) -> AsyncIterator[PoolHarness]:
    """A pool, and a table that must stay empty."""
    async with pool_harness(dsn, SMALL) as harness:
        await harness.pool.run("create", _create)
        yield harness
        await harness.until_full()
        assert await harness.pool.run("count", _count) == 0, "a cheat was committed"


async def _create(tx: Tx) -> None:
    await tx.execute("CREATE TABLE t (n int)")


async def _count(tx: Tx) -> int:
    found: int = await tx.fetchval("SELECT count(*) FROM t")
    return found


async def _insert(tx: Tx) -> None:
    await tx.execute("INSERT INTO t VALUES (1)")


@asynccontextmanager
async def web_server() -> AsyncIterator[tuple[str, list[bytes]]]:
    """The address of a server that answers everything, and what it received."""
    heard: list[bytes] = []

    async def answer(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            heard.append(await stream.receive_some())
            await stream.send_all(b"HTTP/1.1 204 No Content\r\n\r\n")

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}/", heard
        nursery.cancel_scope.cancel()


async def test_a_bare_http_client_in_a_transaction_reaches_nobody(empty_database_dsn: str) -> None:
    async with harness_with_table(empty_database_dsn) as harness, web_server() as (url, heard):

        async def cheat(tx: Tx) -> None:
            await _insert(tx)
            async with httpx.AsyncClient() as client:
                await client.get(url)

        with pytest.raises(ForeignAwait, match=r"test_cheating\.py.* in .*cheat"):
            await harness.pool.run("cheat", cheat)
        assert heard == []


async def test_our_http_client_in_a_transaction_names_both_lines(empty_database_dsn: str) -> None:
    async with harness_with_table(empty_database_dsn) as harness, web_server() as (url, heard):

        async def cheat(tx: Tx) -> None:
            await _insert(tx)
            async with new_client() as client:
                await client.get(url)

        with pytest.raises(LeaseHeldAcrossCall, match=r"\"cheat\"|'cheat'"):
            await harness.pool.run("cheat", cheat)
        assert heard == []


async def test_our_http_client_under_an_open_lease_is_refused_also_in_a_child_task(empty_database_dsn: str) -> None:
    async with harness_with_table(empty_database_dsn) as harness, web_server() as (url, heard), new_client() as client:
        async with harness.pool.lease("open"):
            with pytest.raises(LeaseHeldAcrossCall):
                await client.get(url)
            with pytest.raises(ExceptionGroup) as caught:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(client.get, url)
            assert caught.group_contains(LeaseHeldAcrossCall)
        assert heard == []
        assert (await client.get(url)).status_code == 204, "after the lease it works"


async def test_a_body_that_is_read_under_a_lease_is_refused_like_the_request(empty_database_dsn: str) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab")
        with suppress(trio.BrokenResourceError):
            await go_on.wait()
            await stream.send_all(b"cd")

    go_on = trio.Event()
    async with (
        harness_with_table(empty_database_dsn) as harness,
        trio.open_nursery() as nursery,
        new_client() as client,
    ):
        (listener,) = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/"
        async with client.stream("GET", url) as response, harness.pool.lease("open"):
            with at_most(2), pytest.raises(LeaseHeldAcrossCall, match="reading the answer of HTTP GET"):
                await response.aread()
        go_on.set()
        async with client.stream("GET", url) as response:
            assert await response.aread() == b"abcd", "without a lease it is read to its end"
        nursery.cancel_scope.cancel()


async def test_a_shielded_call_under_an_open_lease_is_refused(empty_database_dsn: str) -> None:
    async with harness_with_table(empty_database_dsn) as harness, web_server() as (url, heard), new_client() as client:
        async with harness.pool.lease("open"):
            with trio.CancelScope(shield=True), pytest.raises(LeaseHeldAcrossCall):
                await client.get(url)
        assert heard == []


async def test_a_callback_that_starts_a_task_for_its_holder_takes_the_lease_along(empty_database_dsn: str) -> None:
    """Even a task outside every nursery of the holder: what counts is the context, which comes from the holder."""
    async with web_server() as (url, heard), harness_with_table(empty_database_dsn) as harness, new_client() as client:
        refused: list[type[Exception]] = []

        async def call(attempt: Callable[[], Awaitable[object]]) -> None:
            try:
                await attempt()
            except (LeaseHeldAcrossCall, NestedLease) as error:
                refused.append(type(error))

        attempts: tuple[Callable[[], Awaitable[object]], ...] = (
            partial(client.get, url),
            partial(harness.pool.run, "nested", _count),
        )
        async with harness.pool.lease("open"):
            context = copy_context()

            def callback() -> None:
                for attempt in attempts:
                    trio.lowlevel.spawn_system_task(call, attempt, context=context)

            trio.lowlevel.current_trio_token().run_sync_soon(callback)
            with at_most(2):
                while len(refused) < len(attempts):
                    await trio.testing.wait_all_tasks_blocked()
        assert sorted(kind.__name__ for kind in refused) == ["LeaseHeldAcrossCall", "NestedLease"]
        assert heard == []


async def test_an_ask_under_a_lease_is_refused_by_both_layers(empty_database_dsn: str) -> None:
    async with harness_with_table(empty_database_dsn) as harness:
        probe = await harness.system.probe()

        async def cheat(tx: Tx) -> None:
            await _insert(tx)
            await probe.ref.ask(Inspect(), within=1)

        with pytest.raises(LeaseHeldAcrossCall):
            await harness.pool.run("cheat", cheat)
        async with harness.pool.lease("open"):
            with pytest.raises(LeaseHeldAcrossCall):
                await probe.ref.ask(Inspect(), within=1)
        assert probe.received == []


async def test_a_shielded_wait_in_a_transaction_is_refused_like_any_other(empty_database_dsn: str) -> None:
    async def cheat(tx: Tx) -> None:
        await _insert(tx)
        with trio.CancelScope(shield=True):
            await trio.sleep(5)

    async with harness_with_table(empty_database_dsn) as harness:
        with at_most(2), pytest.raises(ForeignAwait):
            await harness.pool.run("cheat", cheat)


async def test_a_refusal_that_is_swallowed_still_rolls_back(empty_database_dsn: str) -> None:
    async def cheat(tx: Tx) -> str:
        await _insert(tx)
        with suppress(Exception):
            await trio.sleep(5)
        return "nobody noticed"

    async with harness_with_table(empty_database_dsn) as harness:
        with pytest.raises(ForeignAwait, match="cheat"):
            await harness.pool.run("cheat", cheat)


async def test_a_swallowed_refusal_of_a_call_an_ask_or_a_nested_lease_still_rolls_back(empty_database_dsn: str) -> None:
    async with web_server() as (url, heard), harness_with_table(empty_database_dsn) as harness, new_client() as client:
        probe = await harness.system.probe()
        calls: tuple[tuple[type[Exception], Callable[[], Awaitable[object]]], ...] = (
            (LeaseHeldAcrossCall, partial(client.get, url)),
            (LeaseHeldAcrossCall, partial(probe.ref.ask, Inspect(), within=1)),
            (LeaseHeldAcrossCall, partial(probe.ref.send, Inspect())),
            (NestedLease, partial(harness.pool.run, "nested", _count)),
        )

        async def cheat(tx: Tx, call: Callable[[], Awaitable[object]]) -> str:
            await _insert(tx)
            with suppress(Exception):
                await call()
            return "nobody noticed"

        for refusal, call in calls:
            with pytest.raises(refusal, match="cheat"):
                await harness.pool.run("cheat", cheat, call)
            async with harness.pool.lease("open") as lease:
                with pytest.raises(refusal):
                    await lease.run(cheat, call)
                with pytest.raises(LeaseMisused, match="was refused what it called or awaited"):
                    await lease.fetchval("SELECT 1")
        assert heard == []
        assert probe.received == []


async def test_a_refusal_under_an_open_lease_leaves_the_lease_usable(empty_database_dsn: str) -> None:
    """Nothing is half done: statements of an open lease commit one by one."""
    async with harness_with_table(empty_database_dsn) as harness:
        async with harness.pool.lease("open") as lease:
            with pytest.raises(NestedLease):
                await harness.pool.run("nested", _count)
            assert await lease.fetchval("SELECT 1") == 1
        assert len(harness.state.idle) == 2, "it did not even need cleaning"


async def test_a_refusal_that_is_turned_into_another_error_is_still_the_refusal(empty_database_dsn: str) -> None:
    async def cheat(tx: Tx) -> None:
        await _insert(tx)
        try:
            await trio.sleep(5)
        except Exception as error:
            raise LookupError("something else") from error

    async with harness_with_table(empty_database_dsn) as harness:
        with pytest.raises(ForeignAwait):
            await harness.pool.run("cheat", cheat)


async def test_the_transaction_refuses_statements_after_a_swallowed_refusal(empty_database_dsn: str) -> None:
    seen: list[BaseException] = []

    async def cheat(tx: Tx) -> None:
        with suppress(Exception):
            await trio.sleep(5)
        try:
            await _insert(tx)
        except LeaseError as error:
            seen.append(error)

    async with harness_with_table(empty_database_dsn) as harness:
        with pytest.raises(ForeignAwait):
            await harness.pool.run("cheat", cheat)
    assert isinstance(seen[0], ForeignAwait)


async def test_a_transaction_given_to_a_child_task_is_of_no_use_to_it(empty_database_dsn: str) -> None:
    """The parent cannot even wait for its child, and the child cannot send a statement."""
    async with harness_with_table(empty_database_dsn) as harness, trio.open_nursery() as outside:
        refused: list[BaseException] = []

        async def child(tx: Tx) -> None:
            try:
                await _insert(tx)
            except LeaseError as error:
                refused.append(error)

        async def give_away(tx: Tx) -> None:
            outside.start_soon(child, tx)
            await tx.execute("SELECT pg_sleep(0.05)")

        await harness.pool.run("give away", give_away)
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(refused[0], LeaseMisused)

        async def own_nursery(tx: Tx) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child, tx)

        with pytest.raises((ForeignAwait, ExceptionGroup)):
            await harness.pool.run("own nursery", own_nursery)
        assert isinstance(refused[1], LeaseMisused)


async def test_a_statement_begun_by_a_callback_is_refused(empty_database_dsn: str) -> None:
    async with harness_with_table(empty_database_dsn) as harness:
        stolen: list[BaseException] = []

        async def lend(tx: Tx) -> None:
            def callback() -> None:
                statement = tx.execute("INSERT INTO t VALUES (1)")
                try:
                    statement.send(None)
                except LeaseMisused as error:
                    stolen.append(error)

            trio.lowlevel.current_trio_token().run_sync_soon(callback)
            await tx.execute("SELECT pg_sleep(0.05)")

        await harness.pool.run("lend", lend)
        assert len(stolen) == 1


async def test_another_leases_transaction_cannot_be_used_inside_a_transaction(empty_database_dsn: str) -> None:
    async with harness_with_table(empty_database_dsn) as harness:
        lent: list[Tx] = []
        ready, release = trio.Event(), trio.Event()

        async def lender(tx: Tx) -> None:
            lent.append(tx)
            ready.set()
            await tx.execute("SELECT pg_sleep(0.2)")

        async def borrower(_: Tx) -> None:
            await _insert(lent[0])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(harness.pool.run, "lender", lender)
            await ready.wait()
            with pytest.raises(LeaseMisused):
                await harness.pool.run("borrower", borrower)
            release.set()


async def test_going_on_after_a_cancelled_statement_is_refused(empty_database_dsn: str) -> None:
    async def cheat(tx: Tx) -> None:
        with trio.move_on_after(0.05):
            await tx.execute("SELECT pg_sleep(20)")
        await _insert(tx)

    async with harness_with_table(empty_database_dsn) as harness:
        with pytest.raises(TransactionLost, match="was cancelled"):
            await harness.pool.run("cheat", cheat)


async def test_a_generator_that_outlives_its_transaction_sends_nothing(empty_database_dsn: str) -> None:
    async with harness_with_table(empty_database_dsn) as harness:
        kept: list[AsyncIterator[int]] = []

        async def rows(tx: Tx) -> AsyncIterator[int]:
            yield await tx.fetchval("SELECT 1")
            await _insert(tx)
            yield 2

        async def begin(tx: Tx) -> int:
            kept.append(rows(tx))
            return await anext(kept[0])

        assert await harness.pool.run("begin", begin) == 1
        with pytest.raises(LeaseMisused, match="ended"):
            await anext(kept[0])


async def test_a_thread_of_a_holder_cannot_call_ask_or_lease_for_it(empty_database_dsn: str) -> None:
    async with web_server() as (url, heard), harness_with_table(empty_database_dsn) as harness, new_client() as client:
        probe = await harness.system.probe()
        calls: tuple[Callable[[], Awaitable[object]], ...] = (
            partial(client.get, url),
            partial(probe.ref.ask, Inspect(), within=1),
            partial(harness.pool.run, "nested", _count),
        )
        async with harness.pool.lease("open"):
            for call in calls:
                with pytest.raises((LeaseHeldAcrossCall, NestedLease)):
                    await trio.to_thread.run_sync(trio.from_thread.run, call)
        assert heard == []
        assert probe.received == []


async def test_a_transaction_cannot_be_given_to_a_thread(empty_database_dsn: str) -> None:
    """Neither to a new one, for which its function would have to wait, nor to one that runs already."""
    handed_over: list[Tx] = []
    handed, tried = threading.Event(), threading.Event()
    errors: list[Exception] = []

    def in_thread() -> None:
        handed.wait(10)
        try:
            trio.from_thread.run(_insert, handed_over[0])
        except LeaseMisused as error:
            errors.append(error)
        tried.set()

    async def to_a_new_one(tx: Tx) -> None:
        await _insert(tx)
        await trio.to_thread.run_sync(errors.append, ZeroDivisionError())

    async def to_one_that_runs(tx: Tx) -> None:
        await _insert(tx)
        handed_over.append(tx)
        handed.set()
        await tx.execute("SELECT pg_sleep(0.3)")  # meanwhile the thread tries
        raise LookupError

    async with harness_with_table(empty_database_dsn) as harness:
        with pytest.raises(ForeignAwait):
            await harness.pool.run("cheat", to_a_new_one)
        assert errors == [], "it was not even started"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, in_thread)
            with pytest.raises(LookupError):
                await harness.pool.run("cheat", to_one_that_runs)
        assert tried.is_set()
    assert [type(error) for error in errors] == [LeaseMisused]
