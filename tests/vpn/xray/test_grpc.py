"""Calls to a real Xray on one connection: many at once, large answers, and every way of not getting one."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
import trio
import trio.testing

from runtime import LeaseHeldAcrossCall, current_lease
from tests.run_queue import at_most
from tests.stopping import stop
from tests.vpn.agents import RunningAgent, gone
from tests.vpn.xray.test_tunnel import Held
from vpn.errors import XrayCallFailed
from vpn.ports import choose_passing
from vpn.xray import api as codec
from vpn.xray.api import XrayApi, XrayUser
from vpn.xray.config import Inbound, server_config
from vpn.xray.grpc import LONGEST_MESSAGE, GrpcChannel
from vpn.xray.process import XrayProcess

GET_USERS = "/xray.app.proxyman.command.HandlerService/GetInboundUsers"
ALTER = "/xray.app.proxyman.command.HandlerService/AlterInbound"


@pytest.fixture
async def channel(agent: RunningAgent) -> AsyncIterator[GrpcChannel]:
    """A channel to the agent's Xray."""
    async with channel_to(agent) as opened:
        yield opened


@contextlib.asynccontextmanager
async def channel_to(agent: RunningAgent, within: float = 5.0) -> AsyncIterator[GrpcChannel]:
    """A channel to this agent's Xray for as long as the block lasts."""
    descriptor = os.open(agent.directory / "xray", os.O_PATH | os.O_DIRECTORY)
    channel = GrpcChannel(f"/proc/self/fd/{descriptor}/xray.sock", within)
    try:
        yield channel
    finally:
        await channel.aclose()
        os.close(descriptor)


async def test_each_of_many_calls_at_once_gets_its_own_answer(channel: GrpcChannel) -> None:
    users = [XrayUser(f"customer-{number}", uuid4(), "") for number in range(300)]
    channel.within = 30.0  # whose answer it is is what counts here; a busy machine takes longer for 600 of them
    api = XrayApi(channel)
    found: list[XrayUser | None] = []

    async def add_and_look(user: XrayUser) -> None:
        assert await api.add_user("vless", user)
        read = await api.get_user("vless", user.email)
        assert read == user
        found.append(read)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for user in users:
                nursery.start_soon(add_and_look, user)
    assert len(found) == 300


async def test_an_answer_larger_than_any_window_comes_whole_beside_small_ones(channel: GrpcChannel) -> None:
    api = XrayApi(channel)
    users = [XrayUser(f"customer-{number:04}-{'x' * 50}", uuid4(), "") for number in range(1500)]
    async with trio.open_nursery() as nursery:
        for start in range(0, len(users), 100):
            nursery.start_soon(add_all, api, users[start : start + 100])
    sizes: list[int] = []

    async def take() -> None:
        sizes.append(len(await channel.call(GET_USERS, codec.get_users("vless"))))

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(take)
                nursery.start_soon(api.get_user, "vless", users[7].email)
    assert min(sizes) > 100_000 and {user.email for user in await api.list_users("vless")} == {u.email for u in users}


async def add_all(api: XrayApi, users: list[XrayUser]) -> None:
    """Add these one after the other."""
    for user in users:
        await api.add_user("vless", user)


async def test_xrays_own_words_and_status_are_told(channel: GrpcChannel) -> None:
    with pytest.raises(XrayCallFailed, match="NoSuch") as caught:
        await channel.call("/xray.app.proxyman.command.HandlerService/NoSuch", b"")
    assert caught.value.code == 12, "UNIMPLEMENTED, as gRPC numbers it"
    with pytest.raises(XrayCallFailed, match="handler not found") as caught:
        await channel.call(GET_USERS, codec.get_users("nowhere"))
    assert caught.value.code == 2
    assert await XrayApi(channel).list_users("vless") == [], "and the connection is still good"


async def test_a_call_given_up_by_its_caller_takes_nothing_from_the_others(channel: GrpcChannel) -> None:
    api = XrayApi(channel)
    for number in range(50):
        with trio.move_on_after(0.0005 * (number % 5)):
            await api.list_users("vless")
    assert await api.add_user("vless", XrayUser("customer", uuid4(), ""))
    assert len(await api.list_users("vless")) == 1


async def test_an_xray_that_hangs_is_no_answer_in_time_and_the_next_call_after_it_works(agent: RunningAgent) -> None:
    (xray,) = agent.xray_pids()
    async with channel_to(agent, within=0.3) as channel:
        api = XrayApi(channel)
        assert await api.list_users("vless") == []
        stop(xray)
        try:
            with pytest.raises(XrayCallFailed, match="TooSlowError"):
                await api.list_users("vless")
        finally:
            os.kill(xray, signal.SIGCONT)
        channel.within = 5.0
        assert await api.list_users("vless") == []


async def test_the_end_of_xray_fails_every_call_on_its_way(agent: RunningAgent) -> None:
    (xray,) = agent.xray_pids()
    failures: list[XrayCallFailed] = []
    async with channel_to(agent) as channel:
        stop(xray)

        async def ask() -> None:
            try:
                await XrayApi(channel).list_users("vless")
            except XrayCallFailed as error:
                failures.append(error)

        with at_most(4):  # less than a call may take
            async with trio.open_nursery() as nursery:
                for _ in range(8):
                    nursery.start_soon(ask)
                await trio.testing.wait_all_tasks_blocked()
                os.kill(xray, signal.SIGKILL)
            await gone(xray)
        assert len(failures) == 8 and {failure.code for failure in failures} == {-1}


async def test_nobody_there_and_somebody_else_there_are_failures(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("s")
    with pytest.raises(XrayCallFailed, match="FileNotFoundError"):
        await GrpcChannel(str(directory / "nobody")).call(GET_USERS, b"")
    for said in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\x00" * 100):
        listener = trio.socket.socket(trio.socket.AF_UNIX)
        path = directory / f"other-{len(said)}"
        await listener.bind(str(path))
        listener.listen()

        async def answer(listener: trio.socket.SocketType = listener, said: bytes = said) -> None:
            stream = trio.SocketStream((await listener.accept())[0])
            await stream.receive_some()
            await stream.send_all(said)
            await stream.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            channel = GrpcChannel(str(path), 3.0)
            with pytest.raises(XrayCallFailed, match="no answer"):
                await channel.call(GET_USERS, b"")
            await channel.aclose()
        listener.close()


async def test_a_message_that_is_too_long_and_a_call_under_a_lease_are_refused(channel: GrpcChannel) -> None:
    with pytest.raises(ValueError, match=str(LONGEST_MESSAGE)):
        await channel.call(GET_USERS, b"x" * (LONGEST_MESSAGE + 1))
    token = current_lease.set(Held())
    try:
        with pytest.raises(LeaseHeldAcrossCall):
            await channel.call(GET_USERS, b"")
    finally:
        current_lease.reset(token)


async def test_many_calls_sent_together_are_answered_each_for_itself_in_their_order(channel: GrpcChannel) -> None:
    users = [XrayUser(f"customer-{number}", uuid4(), "") for number in range(200)]
    api = XrayApi(channel)
    await api.add_user("vless", users[70])
    added = await api.add_users("vless", users)
    assert [number for number, was_added in enumerate(added) if not was_added] == [70]
    assert len(await api.list_users("vless")) == 200
    assert await api.add_users("vless", []) == []


async def test_an_account_of_the_wrong_type_would_end_xray_and_is_not_sent(tmp_path: Path) -> None:
    # the tag says nothing: the protocol that the inbound was configured with decides alone
    config = server_config(Inbound("vless", "127.0.0.1", choose_passing()), [], str(tmp_path / "xray.sock"))
    config["inbounds"][0] |= {"protocol": "trojan", "settings": {"clients": []}}  # type: ignore[index]  # as it was built
    xray = XrayProcess(name="trojan", config=config, listening_on="a free port")
    status: list[int] = []

    async def run(*, task_status: trio.TaskStatus[None]) -> None:
        status.append(await xray.run(task_status=task_status))

    user = XrayUser("customer", uuid4())
    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        channel = GrpcChannel(str(tmp_path / "xray.sock"), 5.0)
        try:
            with pytest.raises(ValueError, match="protocol is trojan"):
                await XrayApi(channel, "trojan").add_user("vless", user)
            assert await XrayApi(channel, "trojan").list_users("vless") == []
            with pytest.raises(XrayCallFailed):
                await channel.call(ALTER, codec.add_user("vless", user))
        finally:
            await channel.aclose()
    assert status == [-signal.SIGABRT], "Go's own panic"
