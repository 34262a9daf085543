"""Spawned actors as operators see them: in status, by name, and in metrics that stay bounded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from runtime.child import StopCause, StopReason
from runtime.cli.show import render
from runtime.config.loader import load_text
from runtime.core.actor import Actor, handler
from runtime.core.ref import Ref
from runtime.message import Message, Request
from runtime.metrics import METRICS
from runtime.operations.metrics import publish
from runtime.operations.operations import OperationRefused
from runtime.system.system import System

TREE = f"""
[actor.sessions]
actor = "{__name__}:Sessions"
[actor.other]
actor = "{__name__}:Session"
"""


@attrs.frozen
class Open(Request[Ref]):
    name: str
    outlives: bool = False


@attrs.frozen
class Close(Request[None]):
    ref: Ref


@attrs.frozen
class Fall(Message):
    """Crash."""


@attrs.define(eq=False)
class Sessions(Actor):
    @handler
    async def open(self, message: Open) -> Ref:
        return await self.context.spawn(Session(), name=message.name, outlives=message.outlives)

    @handler
    async def close(self, message: Close) -> None:
        await self.context.stop(message.ref)


@attrs.define(eq=False)
class Session(Actor):
    @handler
    async def fall(self, _: Fall) -> None:
        raise RuntimeError("told to")


@asynccontextmanager
async def running() -> AsyncIterator[System]:
    system = System(load_text(TREE))
    withdraw = publish(system)
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: system.root.run(task_status=task_status))
        system.is_up = True
        try:
            yield system
        finally:
            withdraw()
            system.root.request_stop(StopReason(StopCause.SHUTDOWN))


async def opened(system: System, name: str, *, outlives: bool = False) -> Ref:
    return await system.registry.lookup("sessions").ask(Open(name, outlives), within=5)


def line(system: System, name: str) -> Any:
    children: Any = system.operations.status()["children"]
    return next(child for child in children if child["name"] == name)


# S-1207
async def test_status_shows_spawned_actors_below_the_one_that_spawned_them() -> None:
    async with running() as system:
        await opened(system, "anna")
        await opened(system, "bert", outlives=True)
        shown = system.operations.status()
        children: Any = shown["children"]
        names = [(child["name"], child["depth_in_tree"], child["parent"]) for child in children]
        assert names == [
            ("other", 0, None),
            ("sessions", 0, None),
            ("sessions.anna", 1, "sessions"),
            ("sessions.bert", 1, "sessions"),
        ] or names == [
            ("sessions", 0, None),
            ("sessions.anna", 1, "sessions"),
            ("sessions.bert", 1, "sessions"),
            ("other", 0, None),
        ]
        assert (line(system, "sessions")["children"], line(system, "sessions.bert")["outlives_parent"]) == (2, True)
        assert "\n  sessions.anna" in render(dict(shown))


# S-1207
async def test_operators_act_on_a_spawned_actor_by_its_name() -> None:
    async with running() as system:
        anna = await opened(system, "anna")
        operations = system.operations
        inspected = operations.inspect("sessions.anna")
        assert (inspected["class"], inspected["restart"]) == (f"{__name__}:Session", "transient")
        assert operations.inspect("sessions")["spawned"] == ["sessions.anna"]
        number = anna.incarnation
        operations.kill("sessions.anna", "to see it")
        await trio.testing.wait_all_tasks_blocked()
        assert (anna.incarnation > number, line(system, "sessions.anna")["state"]) == (True, "running")
        assert [report.reason for report in operations.crashes("sessions.anna")] == ["killed"]
        operations.pause("sessions.anna")
        await trio.testing.wait_all_tasks_blocked()
        assert line(system, "sessions.anna")["state"] == "paused"
        operations.resume("sessions.anna")
        await operations.stop("sessions.anna")
        assert line(system, "sessions.anna")["state"] == "down", "an operator's stop stays visible"
        assert await operations.restart("sessions.anna") == anna.incarnation
        with pytest.raises(OperationRefused, match=r"did you mean 'sessions\.anna'"):
            operations.inspect("sessions.ana")


# S-1207
async def test_a_spawned_actor_that_is_down_does_not_make_the_service_unready() -> None:
    async with running() as system:
        await opened(system, "anna")
        await system.operations.stop("sessions.anna")
        assert (system.operations.status()["ready"], line(system, "sessions.anna")["ready"]) == (True, False)


# S-1207
async def test_metrics_have_one_label_for_all_that_one_actor_has_spawned() -> None:
    async with running() as system:
        sessions = system.registry.lookup("sessions")
        for name in ("anna", "bert"):
            (await opened(system, name)).tell(Fall())
        await trio.testing.wait_all_tasks_blocked()
        assert 'atlas_actor_up{actor="sessions.*"} 2' in METRICS.render()
        assert 'atlas_child_state{child="sessions.*",state="running"} 2' in METRICS.render()
        await sessions.ask(Close(system.registry.lookup("sessions.anna")), within=5)
        text = METRICS.render()
        assert 'atlas_actor_up{actor="sessions.*"} 1' in text
        assert 'atlas_actor_restarts_total{actor="sessions.*"} 2' in text, "what is gone stays counted"
        assert 'atlas_child_ends_total{child="sessions.*",reason="crashed"} ' in text
        assert "sessions.anna" not in text
        assert "sessions.bert" not in text


# S-1204
async def test_what_outlives_its_parent_survives_its_stop_and_ends_with_the_system() -> None:
    async with running() as system:
        bert = await opened(system, "bert", outlives=True)
        await system.operations.stop("sessions")
        assert (bert.address.state.value, line(system, "sessions.bert")["state"]) == ("up", "running")
    assert (bert.address.state.value, len(system.services.spawned)) == ("dead", 0)
