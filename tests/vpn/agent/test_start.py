"""A node agent that cannot start says why in one line, with the exit code of its kind, and starts nothing."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from tests.stopping import stop
from tests.vpn.agents import arguments, running_agent
from vpn.agent.config.settings import AgentSettings
from vpn.agent.run import run_agent, wait_until_free
from vpn.errors import ListenRefused, StoreUnreadable

_PR_CAPBSET_DROP = 24
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2


def refused(argv: list[str], *, before: Callable[[], None] | None = None) -> tuple[int, str]:
    """Run an agent that refuses to start: its exit code, and the one line that it said."""
    done = subprocess.run(  # this process has one thread
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False, preexec_fn=before
    )
    assert done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    return done.returncode, done.stderr


def a_file_for_a_directory(node: Path) -> None:
    """A file stands where the data directory should be."""
    node.write_text("")


def below_a_file(node: Path) -> None:
    """A file stands where the data directory's parent should be."""
    node.symlink_to(node.parent / "file" / "node")
    (node.parent / "file").write_text("")


def directory_named(name: str) -> Callable[[Path], None]:
    """A directory stands where the agent wants a file."""

    def make(node: Path) -> None:
        (node / name).mkdir(parents=True)

    return make


def file_for_the_sockets_directory(node: Path) -> None:
    """A file stands where the agent wants a directory."""
    node.mkdir()
    (node / "xray").write_text("")


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (a_file_for_a_directory, "node"),
        (below_a_file, "node"),
        (directory_named("agent.lock"), "agent.lock"),
        (directory_named("identity.json"), "identity.json"),
        (directory_named("keys.0.log"), "keys.0.log"),
        (file_for_the_sockets_directory, "xray"),
    ],
    ids=["a file", "below a file", "lock", "identity", "keys", "sockets"],
)
async def test_files_that_are_in_the_way_are_named(tmp_path: Path, make: Callable[[Path], None], named: str) -> None:
    make(tmp_path / "node")
    arguments(tmp_path / "node")  # makes the token
    with pytest.raises(StoreUnreadable, match=named) as caught:
        await run_agent(AgentSettings(tmp_path / "node", tmp_path / "node.token"), parent_stdin=False)
    assert caught.value.exit_code == 77


def without_roots_power_over_files() -> None:
    """Root gives up reading what it may not; anybody else has nothing to give up."""
    for capability in (_DAC_OVERRIDE, _DAC_READ_SEARCH):
        ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)


@pytest.mark.parametrize("mode", [0o000, 0o500], ids=["unreadable", "read-only"])
def test_a_data_directory_that_is_not_ours_to_use_is_refused(tmp_path: Path, mode: int) -> None:
    node = tmp_path / "node"
    node.mkdir()
    node.chmod(mode)
    try:
        status, said = refused(arguments(node), before=without_roots_power_over_files)
    finally:
        node.chmod(0o700)
    assert status == 77
    assert str(node) in said and f"user id {os.geteuid()}" in said and "--data-dir" in said


def test_a_missing_token_says_how_to_make_one(tmp_path: Path) -> None:
    argv = arguments(tmp_path / "node")
    (tmp_path / "node.token").unlink()
    status, said = refused(argv)
    assert status == 78
    assert "node.token" in said and "urandom" in said
    assert not (tmp_path / "node").exists()


async def test_a_kept_port_is_waited_for_while_the_xray_before_lets_go_of_it(autojump_clock: MockClock) -> None:
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]

    async def let_go() -> None:
        await trio.sleep(1.5)
        taken.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(let_go)
        await wait_until_free("127.0.0.1", port, 2.0)
    assert 1.5 <= trio.current_time() < 1.6


async def test_a_kept_port_is_not_waited_for_longer_than_said(autojump_clock: MockClock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ListenRefused, match="links name it"):
        await wait_until_free("127.0.0.1", taken.getsockname()[1], 2.0)
    assert 2.0 <= trio.current_time() < 2.1


async def test_an_agent_started_at_the_moment_the_one_before_is_killed_serves(tmp_path: Path) -> None:
    """As systemd does it with a restart delay of zero: as soon as the process is gone."""
    async with running_agent(tmp_path / "node") as first:
        (xray,) = first.xray_pids()
        # held in the moment of its death: it lets go of the port only when it is allowed to go on
        stop(xray)
        await first.kill()
        os.kill(xray, signal.SIGCONT)
        async with running_agent(tmp_path / "node") as second:
            assert second.facts.port == first.facts.port


@pytest.mark.parametrize("option", ["--listen", "--inbound-port"])
def test_a_taken_port_names_the_option_that_changes_it(tmp_path: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        value = f"127.0.0.1:{port}" if option == "--listen" else str(port)
        status, said = refused(arguments(tmp_path / "node", option, value))
    assert status == 69
    assert f"127.0.0.1:{port}" in said and option in said


def test_a_certificate_that_cannot_be_used_is_found_before_xray_is_started(tmp_path: Path) -> None:
    argv = arguments(tmp_path / "node")
    (tmp_path / "rubbish").write_text("no certificate")
    for certificate, named in (("missing", "tls.certificate: cannot read"), ("rubbish", "cannot be used together")):
        (tmp_path / "agent.toml").write_text(
            f'data_dir = "node"\ntoken_file = "node.token"\n[tls]\ncertificate = "{certificate}"\nkey = "rubbish"\n'
        )
        status, said = refused([*argv[:3], "--config", str(tmp_path / "agent.toml")])
        assert status == 78
        assert named in said
    assert not (tmp_path / "node").exists()


def test_what_xray_would_refuse_is_a_wrong_configuration(tmp_path: Path) -> None:
    argv = arguments(tmp_path / "node")
    (tmp_path / "agent.toml").write_text(
        'data_dir = "node"\ntoken_file = "node.token"\n[inbound]\nsecurity = "reality"\ntarget = "no-port.example.org"\n'
    )
    status, said = refused([*argv[:3], "--config", str(tmp_path / "agent.toml")])
    assert status == 78
    assert "'no-port.example.org' is not HOST:PORT" in said
