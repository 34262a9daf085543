"""One run of Xray: how it starts, how it ends, and what its silent deaths mean."""

from __future__ import annotations

import os
import signal
import socket
import sys

import pytest
import trio

from tests.run_queue import PATIENCE
from tests.vpn.agents import gone
from vpn.errors import XrayCannotListen, XrayConfigRefused, XrayEnded
from vpn.ports import choose_passing
from vpn.xray.process import XrayProcess


def listening(port: int) -> XrayProcess:
    """An Xray that proxies on this port."""
    inbound = {"listen": "127.0.0.1", "port": port, "protocol": "socks"}
    config = {"log": {"loglevel": "warning"}, "inbounds": [inbound], "outbounds": [{"protocol": "freedom"}]}
    return XrayProcess(name="tested", config=config, listening_on=f"127.0.0.1:{port}")


async def test_it_has_started_once_it_accepts_and_is_gone_once_cancelled() -> None:
    port = choose_passing()
    xray = listening(port)
    async with trio.open_nursery() as nursery:
        await nursery.start(xray.run)
        await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
        assert xray.version
        nursery.cancel_scope.cancel()
    with pytest.raises(ProcessLookupError):
        os.kill(xray.pid, 0)


async def test_its_death_is_seen_at_once_with_its_status() -> None:
    xray = listening(choose_passing())
    statuses: list[int] = []

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        statuses.append(await xray.run(task_status=task_status))

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            await nursery.start(run)
            os.kill(xray.pid, signal.SIGKILL)
            await gone(xray.pid)
    assert statuses == [-signal.SIGKILL]


async def test_a_taken_port_is_named_though_xray_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(XrayCannotListen, match=f"cannot listen on 127.0.0.1:{port}"):
            await listening(port).run()


async def test_a_refused_configuration_is_named_though_xray_says_nothing() -> None:
    with pytest.raises(XrayConfigRefused, match="exit status 23"):
        await XrayProcess(name="tested", config={"inbounds": "nonsense"}, listening_on="nothing").run()


async def test_an_xray_that_cannot_be_started_at_all_may_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(XrayEnded, match="cannot start a process"):
        await listening(choose_passing()).run()


async def test_it_sees_nothing_of_our_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATLAS__NODES__LOCAL__TOKEN", "a-secret-of-ours")
    xray = listening(choose_passing())
    async with trio.open_nursery() as nursery:
        await nursery.start(xray.run)
        environment = await trio.Path(f"/proc/{xray.pid}/environ").read_bytes()
        arguments = await trio.Path(f"/proc/{xray.pid}/cmdline").read_bytes()
        nursery.cancel_scope.cancel()
    assert b"PATH=" in environment
    assert b"a-secret-of-ours" not in environment and b"socks" not in arguments
