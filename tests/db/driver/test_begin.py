"""BEGIN travels with the first statement, and nothing is ever executed outside its transaction."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import asyncpg
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from db.driver import begin
from db.driver.begin import DONE, EXTENDED_ANSWER, AnswerFilter, with_begin
from db.driver.bridge import open_loop
from db.driver.stepping import InlineBridge, InlineConnection, step
from db.driver.transaction import transact
from db.errors import ConnectionLost, TransactionLost
from db.tx import Tx

NOTICE = b"N\x00\x00\x00\x07hi\x00"
PARAMETER = b"S\x00\x00\x00\x08a\x00b\x00"
ERROR = b"E\x00\x00\x00\x06x\x00"
READY = b"Z\x00\x00\x00\x05T"
ROW = b"D\x00\x00\x00\x0a\x00\x01abcd"

PASSING = st.lists(st.sampled_from([NOTICE, PARAMETER]), max_size=3).map(b"".join)
ANYTHING = st.lists(st.sampled_from([NOTICE, DONE, ROW, READY, ERROR, EXTENDED_ANSWER]), max_size=6).map(b"".join)


def fed(expected: bytes, stream: bytes, cuts: list[int]) -> tuple[bytes, AnswerFilter]:
    """What passes of a stream that comes in pieces; after the end of filtering everything passes."""
    answer = AnswerFilter(expected)
    passed = b""
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    for start, end in pairwise(edges):
        piece = stream[start:end]
        passed += piece if answer.finished else answer.feed(piece)
    return passed, answer


@given(PASSING, PASSING, ANYTHING, st.lists(st.integers(0, 500)), st.sampled_from([DONE, EXTENDED_ANSWER]))
def test_exactly_the_answer_is_taken_out_however_the_stream_is_cut(
    before: bytes, between: bytes, after: bytes, cuts: list[int], expected: bytes
) -> None:
    head, tail = expected[: -len(DONE)], expected[-len(DONE) :]
    passed, answer = fed(expected, before + head + between + tail + after, cuts)
    assert passed == before + between + after
    assert answer.finished
    assert not answer.refused, "even if the statement after it fails"


@given(ANYTHING, st.lists(st.integers(0, 500)), st.sampled_from([DONE, EXTENDED_ANSWER]))
def test_an_error_in_place_of_the_answer_passes_with_all_that_follows(
    after: bytes, cuts: list[int], expected: bytes
) -> None:
    passed, answer = fed(expected, ERROR + after, cuts)
    assert passed == ERROR + after
    assert answer.finished
    assert answer.refused


def test_a_simple_query_and_its_begin_are_one_string() -> None:
    sent, answer = with_begin(b"Q\x00\x00\x00\x0dSELECT 1\x00")
    assert sent == b"Q\x00\x00\x00\x13BEGIN;SELECT 1\x00"
    assert answer == DONE


class CountingConnection(InlineConnection):
    """Counts how often it waits for the server."""

    waits = 0

    async def wait(self, pending: Any) -> None:
        self.waits += 1
        await super().wait(pending)


class CountingBridge(InlineBridge):
    """Opens connections that count."""

    def adopt(self, connection: Any, view: Any) -> CountingConnection:
        return CountingConnection(connection, view)


@asynccontextmanager
async def counting(dsn: str) -> AsyncIterator[CountingConnection]:
    """A connection with an empty table `t`."""
    async with open_loop(lambda _: None) as loop:
        connection = await CountingBridge(loop).connect(dsn, settings={})
        try:
            assert isinstance(connection, CountingConnection)
            await step(connection, connection.raw.execute("CREATE TABLE t (n int)"))
            yield connection
        finally:
            connection.terminate()


async def in_transaction(connection: CountingConnection, function: Any) -> Any:
    """Run it, and return its result."""
    return await transact(connection, function, deadline=trio.current_time() + 5)


async def rows(connection: CountingConnection) -> int:
    """What was committed."""
    found: int = await step(connection, connection.raw.fetchval("SELECT count(*) FROM t"))
    return found


async def _insert(tx: Tx) -> str:
    return await tx.execute("INSERT INTO t VALUES ($1)", 1)


async def _insert_simply(tx: Tx) -> str:
    return await tx.execute("INSERT INTO t VALUES (1)")


@pytest.mark.parametrize("function", [_insert, _insert_simply])
async def test_a_transaction_of_one_statement_waits_for_the_server_twice(
    empty_database_dsn: str, function: Any
) -> None:
    async with counting(empty_database_dsn) as connection:
        await in_transaction(connection, function)
        connection.waits = 0
        assert await in_transaction(connection, function) == "INSERT 0 1"
        assert connection.waits == 2, "the statement with its BEGIN, and COMMIT"
        assert connection.is_idle()
        assert await rows(connection) == 2


async def test_a_function_without_a_statement_sends_nothing(empty_database_dsn: str) -> None:
    async def nothing(_: Tx) -> str:
        return "done"

    async with counting(empty_database_dsn) as connection:
        connection.waits = 0
        assert await in_transaction(connection, nothing) == "done"
        assert connection.waits == 0
        assert await rows(connection) == 0, "the next statement brings no BEGIN along"
        assert connection.is_idle()


async def test_a_function_that_raises_before_its_first_statement_sends_nothing(empty_database_dsn: str) -> None:
    async def fail(_: Tx) -> None:
        raise LookupError

    async with counting(empty_database_dsn) as connection:
        connection.waits = 0
        with pytest.raises(LookupError):
            await in_transaction(connection, fail)
        assert connection.waits == 0
        assert await rows(connection) == 0
        assert connection.is_idle()


async def test_a_first_statement_that_the_server_refuses_leaves_no_transaction(empty_database_dsn: str) -> None:
    async def wrong(tx: Tx) -> None:
        await tx.fetchval("SELECT nonsense FROM nowhere WHERE n = $1", 1)

    async def wrong_simply(tx: Tx) -> None:
        await tx.execute("SELECT nonsense FROM nowhere")

    async with counting(empty_database_dsn) as connection:
        for function in (wrong, wrong_simply):
            with pytest.raises(asyncpg.UndefinedTableError):
                await in_transaction(connection, function)
            assert connection.is_idle()
            assert await step(connection, connection.raw.fetchval("SELECT pg_current_xact_id_if_assigned()")) is None
        await in_transaction(connection, _insert)
        assert await rows(connection) == 1


async def test_arguments_that_cannot_be_sent_leave_no_transaction_on_the_server(empty_database_dsn: str) -> None:
    """The statement was prepared (with BEGIN), its arguments were refused by the driver: it knows of no transaction."""

    async def wrong(tx: Tx) -> None:
        await tx.execute("INSERT INTO t VALUES ($1)", "not a number")

    async with counting(empty_database_dsn) as connection:
        with pytest.raises(asyncpg.DataError):
            await in_transaction(connection, wrong)
        assert connection.is_idle()
        first = await step(connection, connection.raw.fetchval("SELECT pg_current_xact_id()::text"))
        second = await step(connection, connection.raw.fetchval("SELECT pg_current_xact_id()::text"))
        assert first != second, "still inside the transaction that nobody knows of"


async def test_a_first_statement_that_is_cancelled_is_never_executed_by_itself(empty_database_dsn: str) -> None:
    async def slow(tx: Tx) -> None:
        await tx.execute("INSERT INTO t SELECT 1 FROM pg_sleep($1)", 0.2)

    async with counting(empty_database_dsn) as connection:
        for pause in (0.0, 0.0005, 0.001, 0.005, 0.05) * 5:
            with trio.move_on_after(pause) as scope:
                await in_transaction(connection, slow)
            assert scope.cancelled_caught
            await connection.run_on_loop(connection.raw.execute("ROLLBACK"))
            connection.needs_cleaning = False
            assert connection.is_idle()
        assert await rows(connection) == 0


@pytest.mark.parametrize("simple", [False, True], ids=["prepared", "simple"])
async def test_who_swallows_the_refusal_of_begin_cannot_go_on_outside_a_transaction(
    empty_database_dsn: str, monkeypatch: pytest.MonkeyPatch, simple: bool
) -> None:
    refused = with_begin(b"Q\x00\x00\x00\x0dSELECT 1/0\x00" if simple else b"")[0].replace(b"BEGIN", b"BEGUN")

    def wrongly(data: bytes) -> tuple[bytes, bytes]:
        return (refused, DONE) if simple else (refused + data, EXTENDED_ANSWER)

    async def swallow(tx: Tx) -> None:
        with contextlib.suppress(asyncpg.PostgresSyntaxError):
            await (_insert_simply if simple else _insert)(tx)
        await _insert(tx)

    async with counting(empty_database_dsn) as connection:
        await in_transaction(connection, _insert)
        with monkeypatch.context() as patch:
            patch.setattr(begin, "with_begin", wrongly)
            with pytest.raises(TransactionLost):
                await in_transaction(connection, swallow)
        assert connection.needs_cleaning, "it has to prove in quarantine that it is clean"
        await connection.run_on_loop(connection.raw.execute("ROLLBACK"))
        connection.needs_cleaning = False
        assert await rows(connection) == 1, "only what was committed before"


async def test_a_server_that_goes_away_in_place_of_beginning_is_a_lost_connection(empty_database_dsn: str) -> None:
    async with counting(empty_database_dsn) as connection, open_loop(lambda _: None) as other:
        await in_transaction(connection, _insert)
        killer = await InlineBridge(other).connect(empty_database_dsn, settings={})
        try:
            await step(killer, killer.raw.fetchval("SELECT pg_terminate_backend($1, 5000)", connection.backend_pid))
        finally:
            killer.terminate()
        with pytest.raises(ConnectionLost):
            await in_transaction(connection, _insert)
