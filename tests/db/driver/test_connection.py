"""An opening that is cancelled, at whatever step of the loop, leaves no connection behind: it is returned or cut."""

from __future__ import annotations

import gc
import sys

import pytest
import trio

from db.driver.address import DatabaseAddress
from db.driver.bridge import Bridge, DriverConnection, open_loop
from db.driver.bridge_plain import PlainBridge
from db.driver.connection import SessionLimits, open_connection
from db.driver.stepping import InlineBridge
from tests.cancel_at_step import cancel_at_step
from tests.postgres_cluster import Cluster

NAME = "atlas/opening"
ENOUGH = 5
"""Openings in a row that were done before the cancellation came: all steps have been cancelled by then."""


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the garbage collector complained about."""
    found: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda about: found.append(repr(about.exc_value)))
    return found


async def _open(bridge: Bridge, dsn: str) -> DriverConnection:
    return (await open_connection(bridge, DatabaseAddress.parse(dsn), NAME, SessionLimits())).driver


async def _none_left(cluster: Cluster) -> None:
    """A backend ends a moment after its client: wait for it."""
    sessions = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{NAME}'"
    with trio.fail_after(10):
        while await trio.to_thread.run_sync(cluster.sql, sessions) != "0":
            pass


@pytest.mark.parametrize("bridge_type", [InlineBridge, PlainBridge], ids=["inline", "plain"])
async def test_an_opening_cancelled_at_any_step_leaves_nothing(
    bridge_type: type[Bridge], cluster: Cluster, unraisable: list[str]
) -> None:
    complaints: list[str] = []
    steps = opened_in_a_row = cancelled = 0
    async with open_loop(complaints.append) as loop:
        bridge = bridge_type(loop)
        while opened_in_a_row < ENOUGH:
            steps += 1
            connection: DriverConnection | None = None
            with trio.CancelScope() as scope, cancel_at_step(steps, scope) as instrument:
                connection = await _open(bridge, cluster.dsn())
            if connection is None:
                assert scope.cancelled_caught
                opened_in_a_row = 0
                cancelled += 1
            else:
                opened_in_a_row += instrument.left > 0
                assert connection.is_idle()
                connection.terminate()
        await _none_left(cluster)
    gc.collect()
    assert cancelled > 8
    assert unraisable == []
    assert complaints == []


@pytest.mark.parametrize("bridge_type", [InlineBridge, PlainBridge], ids=["inline", "plain"])
async def test_a_loop_that_ends_at_any_step_of_an_opening_leaves_nothing(
    bridge_type: type[Bridge], cluster: Cluster, unraisable: list[str]
) -> None:
    complaints: list[str] = []
    steps = 0
    ended_before = True
    while ended_before:
        steps += 1
        with trio.CancelScope() as scope:
            async with open_loop(complaints.append) as loop:
                bridge = bridge_type(loop)
                with cancel_at_step(steps, scope):
                    (await _open(bridge, cluster.dsn())).terminate()
        ended_before = scope.cancelled_caught
    await _none_left(cluster)
    gc.collect()
    assert steps > 8
    assert unraisable == []
    assert complaints == []
