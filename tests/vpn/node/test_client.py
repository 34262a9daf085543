"""The client of an agent on a bad network: every call says truly whether it was done, not done, or not known."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator

import attrs
import pytest
import trio

from runtime import LeaseHeldAcrossCall, current_lease
from runtime.config import Secret
from tests.stopping import stop
from tests.vpn.agents import TOKEN, RunningAgent, arguments, key
from tests.vpn.node.faulty_proxy import Fault, FaultyProxy, faulty_proxy
from tests.vpn.origin import Origin
from vpn.errors import (
    BreakerOpen,
    NodeAmbiguous,
    NodeConflict,
    NodeProtocolError,
    NodeRefused,
    NodeUnauthorized,
    NodeUnavailable,
    NodeUnreachable,
)
from vpn.node.breaker import Breaker, BreakerState
from vpn.node.client import AgentClient
from vpn.ports import choose_passing
from vpn.protocol import KeyState


@pytest.fixture(scope="module")
def agent_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One agent for all these tests: they are about the way to it. Each test has keys of its own."""
    argv = arguments(tmp_path_factory.mktemp("client") / "node", "--parent-stdin")
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["listening"]
        finally:
            process.stdin.close()
            process.wait(10)


@pytest.fixture
async def proxy(agent_url: str) -> AsyncIterator[FaultyProxy]:
    """A proxy in front of the agent."""
    async with faulty_proxy(agent_url) as serving:
        yield serving


@pytest.fixture
def name() -> str:
    """A key id that no other test uses."""
    return f"customer-{secrets.token_hex(8)}"


def client_of(
    url: str, *, repeats: int = 2, within: float = 10.0, breaker: Breaker | None = None, token: str = TOKEN
) -> AgentClient:
    """A client that hardly pauses between repetitions."""
    return AgentClient("tested", url, Secret(token), within=within, repeats=repeats, pause=0.001, breaker=breaker)


def nobodys_url() -> str:
    """An address at which nothing listens."""
    return f"http://127.0.0.1:{choose_passing()}"


@pytest.mark.parametrize("fault", [Fault.LOSE_REQUEST, Fault.LOSE_ANSWER, Fault.HALF_ANSWER])
async def test_a_put_whose_answer_is_lost_is_repeated_and_succeeds(proxy: FaultyProxy, name: str, fault: Fault) -> None:
    proxy.plan(fault, fault)
    async with client_of(proxy.url) as client:
        applied = await client.put(key(name))
        assert applied.state is KeyState.SERVING
        assert applied.created is (fault is Fault.LOSE_REQUEST), "what was done before was not done again"
        assert proxy.seen == 3


@pytest.mark.parametrize("fault", [Fault.LOSE_ANSWER, Fault.HALF_ANSWER])
async def test_a_put_that_was_applied_is_found_so_by_reading_it_back(
    proxy: FaultyProxy, name: str, fault: Fault
) -> None:
    proxy.plan(fault)
    spec = key(name)
    async with client_of(proxy.url, repeats=0) as client:
        applied = await client.put(spec)
        assert (applied.key_id, applied.generation, applied.state) == (name, 1, KeyState.SERVING)
        assert (found := await client.get(name)) is not None and found.spec == spec


async def test_a_put_without_any_answer_is_read_back_after_its_time(proxy: FaultyProxy, name: str) -> None:
    proxy.plan(Fault.NO_ANSWER)
    async with client_of(proxy.url, within=0.5) as client:
        assert (await client.put(key(name))).state is KeyState.SERVING


async def test_a_put_that_never_arrived_is_ambiguous_and_may_be_sent_again(proxy: FaultyProxy, name: str) -> None:
    proxy.plan(Fault.LOSE_REQUEST)
    spec = key(name)
    async with client_of(proxy.url, repeats=0) as client:
        with pytest.raises(NodeAmbiguous, match="may or may not") as caught:
            await client.put(spec)
        assert str(spec.uuid) not in str(caught.value)
        assert (await client.put(spec)).created


async def test_a_put_is_not_taken_for_applied_because_an_older_key_is_there(proxy: FaultyProxy, name: str) -> None:
    async with client_of(proxy.url, repeats=0) as client:
        await client.put(key(name))
    proxy.plan(Fault.LOSE_REQUEST)
    async with client_of(proxy.url, repeats=0) as client:
        with pytest.raises(NodeAmbiguous):
            await client.put(key(name, generation=2))


async def test_a_removal_whose_answer_is_lost_is_repeated_and_succeeds(proxy: FaultyProxy, name: str) -> None:
    async with client_of(proxy.url) as client:
        await client.put(key(name))
    proxy.plan(Fault.LOSE_ANSWER)
    async with client_of(proxy.url) as client:
        removed = await client.remove(name, 1)
        assert not removed.existed, "the first attempt removed it"
        assert await client.get(name) is None
        with pytest.raises(NodeConflict):
            await client.put(key(name))


async def test_a_removal_is_not_confirmed_by_absence_alone(proxy: FaultyProxy, name: str) -> None:
    proxy.plan(Fault.LOSE_REQUEST)
    async with client_of(proxy.url, repeats=0) as client:
        with pytest.raises(NodeAmbiguous):
            await client.remove(name, 1)
        assert (await client.put(key(name))).created, "the node has not heard of the removal"


async def test_a_kick_is_never_repeated(proxy: FaultyProxy, name: str) -> None:
    async with client_of(proxy.url) as client:
        await client.put(key(name))
    seen = proxy.seen
    proxy.plan(Fault.LOSE_ANSWER)
    async with client_of(proxy.url) as client:
        with pytest.raises(NodeAmbiguous):
            await client.kick(name)
    assert proxy.seen == seen + 1


async def test_a_sync_whose_answer_is_lost_is_repeated_and_ends_the_same(proxy: FaultyProxy, name: str) -> None:
    proxy.plan(Fault.LOSE_ANSWER)
    async with client_of(proxy.url) as client:
        outcome = await client.sync([key(f"{name}-1"), key(f"{name}-2")])
        assert (outcome.added, outcome.unchanged) == (0, 2)
        assert (await client.state()).serving == 2


async def test_a_list_that_fails_is_an_error_and_never_an_empty_page(proxy: FaultyProxy, name: str) -> None:
    async with client_of(proxy.url) as client:
        await client.put(key(name))
    for fault in (Fault.LOSE_REQUEST, Fault.LOSE_ANSWER, Fault.HALF_ANSWER):
        proxy.plan(fault)
        async with client_of(proxy.url, repeats=0) as client:
            with pytest.raises(NodeAmbiguous):
                [found async for found in client.list_all()]


async def test_nobody_there_is_unreachable_and_says_what_to_do(name: str) -> None:
    url = nobodys_url()
    async with client_of(url) as client:
        with pytest.raises(NodeUnreachable, match="node tested: no connection") as caught:
            await client.put(key(name))
    assert url in str(caught.value) and "atlas node run" in str(caught.value)


async def test_a_url_that_is_none_is_refused_before_any_call() -> None:
    for url in ("", "127.0.0.1:8700", "ftp://127.0.0.1", "http://", "http://[::1", "http://h:port"):
        with pytest.raises(NodeRefused, match="http://HOST:PORT"):
            client_of(url)


async def test_something_else_at_the_address_is_named_as_such(origin: Origin) -> None:
    async with client_of(origin.url.rstrip("/")) as client:
        with pytest.raises(NodeProtocolError, match="not an answer of a node agent"):
            await client.state()


def breaker(threshold: int = 3, first_pause: float = 3600.0) -> Breaker:
    """A breaker that stays open for the rest of the test, unless told otherwise."""
    return Breaker(trio.current_time, threshold=threshold, first_pause=first_pause, longest_pause=first_pause)


async def test_the_breaker_opens_and_its_refusal_tells_the_last_failure() -> None:
    guard = breaker()
    async with client_of(nobodys_url(), repeats=0, breaker=guard) as client:
        for _ in range(3):
            with pytest.raises(NodeUnreachable):
                await client.state()
        with pytest.raises(BreakerOpen, match="3 calls in a row failed") as caught:
            await client.state()
    assert "no connection" in str(caught.value)
    assert 0 < caught.value.retry_in <= 3600


async def test_a_breaker_that_opens_during_a_call_does_not_hide_that_it_was_tried(
    proxy: FaultyProxy, name: str
) -> None:
    proxy.plan(Fault.LOSE_ANSWER)
    async with client_of(proxy.url, breaker=breaker(threshold=1)) as client:
        with pytest.raises(NodeAmbiguous):
            await client.put(key(name))
        with pytest.raises(BreakerOpen):
            await client.put(key(name))
    async with client_of(proxy.url) as client:
        assert await client.get(name) is not None


async def test_a_probe_that_succeeds_closes_the_breaker(proxy: FaultyProxy) -> None:
    guard = breaker(threshold=1, first_pause=0.0)
    proxy.plan(Fault.LOSE_REQUEST)
    async with client_of(proxy.url, repeats=0, breaker=guard) as client:
        with pytest.raises(NodeAmbiguous):
            await client.state()
        assert guard.failures == 1
        assert (await client.state()).ready
    assert guard.failures == 0


async def test_a_refusal_is_an_answer_and_leaves_the_breaker_closed(agent_url: str, name: str) -> None:
    guard = breaker(threshold=1)
    async with client_of(agent_url, breaker=guard, token="not-the-token-at-all") as client:
        with pytest.raises(NodeUnauthorized, match="correct this node's token"):
            await client.state()
    async with client_of(agent_url, breaker=guard) as client:
        with pytest.raises(NodeRefused):
            await client.put(attrs.evolve(key(name), inbounds=("elsewhere",)))
    assert guard.state is BreakerState.CLOSED


async def test_a_call_given_up_by_its_caller_says_nothing_about_the_node(proxy: FaultyProxy) -> None:
    guard = breaker(threshold=1)
    proxy.plan(Fault.NO_ANSWER)
    async with client_of(proxy.url, breaker=guard) as client:
        with trio.move_on_after(0.2) as limit:
            await client.state()
        assert limit.cancelled_caught
        assert (guard.state, guard.failures) == (BreakerState.CLOSED, 0)
        assert (await client.state()).ready


async def test_a_node_whose_xray_hangs_says_so_and_applies_later_what_it_wrote_down(
    agent: RunningAgent, name: str
) -> None:
    guard = breaker(threshold=1)
    (xray,) = agent.xray_pids()
    async with client_of(agent.url, breaker=guard) as client:
        stop(xray)
        try:
            with pytest.raises(NodeUnavailable, match="written down, not applied yet"):
                await client.put(key(name))
        finally:
            os.kill(xray, signal.SIGCONT)
    assert guard.state is BreakerState.OPEN
    async with client_of(agent.url) as client:
        assert (await client.put(key("other"))).state is KeyState.SERVING
        with trio.fail_after(10):
            while (found := await client.get(name)) is None or found.state is not KeyState.SERVING:
                await trio.lowlevel.checkpoint()


@attrs.define
class Lease:
    """A database lease as the guard knows it."""

    is_open: bool = True
    label: str = "reading a subscription"
    site: str = "db/access/subscriptions.py:12"

    def note_refused_call(self, error: Exception) -> None:
        """Nobody looks."""


async def test_no_call_goes_out_under_an_open_lease(agent_url: str, name: str) -> None:
    lease, guard = Lease(), breaker(threshold=1)
    async with client_of(agent_url, breaker=guard) as client:
        reset = current_lease.set(lease)
        try:
            with pytest.raises(LeaseHeldAcrossCall, match="reading a subscription"):
                await client.put(key(name))
            lease.is_open = False
            assert await client.get(name) is None, "nothing was sent"
        finally:
            current_lease.reset(reset)
    assert guard.state is BreakerState.CLOSED


async def test_the_token_is_in_no_text_of_the_client(agent_url: str) -> None:
    async with client_of(agent_url, token=f"{TOKEN}-but-wrong") as client:
        assert TOKEN not in repr(client)
        with pytest.raises(NodeUnauthorized) as caught:
            await client.state()
        assert TOKEN not in str(caught.value)
