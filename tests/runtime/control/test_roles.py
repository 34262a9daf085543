"""The control socket asks for the role itself, of the account that the kernel names or of the token that came along."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from runtime.config.loader import load, load_text
from runtime.config.runtime_sections import ControlSettings
from runtime.control import client
from runtime.control.command import COMMANDS
from runtime.control.protocol import ControlError
from runtime.control.server import ControlServer, OperatorCommand
from runtime.operators import LEAST_ROLES
from runtime.operators.identity import account_of
from runtime.system.system import System
from tests.runtime.atlas_process import PATIENCE, short_directory

ME = account_of(os.getuid())
TOKENS = {role: f"the-token-of-{role}" for role in ("viewer", "support", "money", "owner")}
DECLARED = "".join(
    f'[operators.{role}1]\nrole = "{role}"\ntoken_sha256 = "{hashlib.sha256(token.encode()).hexdigest()}"\n'
    for role, token in TOKENS.items()
)


@pytest.fixture
def path() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory / "a.sock"


@asynccontextmanager
async def serving(path: Path, operators: str) -> AsyncIterator[System]:
    system = System(load_text(f'[control]\nsocket = "{path}"\n{operators}'))
    server = ControlServer(path, system, ControlSettings())
    server.bind()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        yield system
        nursery.cancel_scope.cancel()


async def call(path: Path, command: str, token: str | None = None, **arguments: Any) -> Any:
    return await trio.to_thread.run_sync(lambda: client.call(path, command, timeout=PATIENCE, token=token, **arguments))


def told(system: System) -> list[OperatorCommand]:
    return [event for event in system.services.events.recent() if isinstance(event, OperatorCommand)]


async def test_without_operators_the_account_is_the_owner_and_is_named(path: Path) -> None:
    async with serving(path, "") as system:
        await call(path, "disarm")
        assert told(system)[0].who == f"{ME}, owner, by unix user"


async def test_the_kernels_word_for_the_account_is_what_counts(path: Path) -> None:
    async with serving(path, f'[operators.anna]\nrole = "viewer"\nunix_user = "{ME}"\n{DECLARED}') as system:
        assert (await call(path, "status"))["name"] == "atlas"
        with pytest.raises(ControlError, match="anna may not: `disarm` needs the role support or more") as refused:
            await call(path, "disarm")
        assert refused.value.exit_code == 77
        [event] = told(system)
        assert (event.command, event.who) == ("disarm", "anna, viewer, by unix user")
        assert event.outcome.startswith("refused: ")
        await call(path, "disarm", TOKENS["support"])
        assert told(system)[-1].who == "support1, support, by token"


async def test_who_is_no_operator_may_not_even_look(path: Path) -> None:
    async with serving(path, DECLARED) as system:
        for command in ("status", "events", "disarm", "stop"):
            with pytest.raises(ControlError, match=f"the unix user {ME} is no operator") as refused:
                await call(path, command)
            assert refused.value.exit_code == 77
        assert [event.who for event in told(system)] == [f"unknown {ME}, by unix user"] * 4
        assert not system.is_stopping


@pytest.mark.parametrize("command", ["stop", "drain", "reload", "pause", "resume"])
async def test_what_stops_the_system_is_the_owners(path: Path, command: str) -> None:
    async with serving(path, DECLARED) as system:
        arguments = {"name": "x"} if command in ("pause", "resume") else {}
        for role in ("viewer", "support", "money"):
            with pytest.raises(ControlError, match="needs the role owner or more"):
                await call(path, command, TOKENS[role], **arguments)
        assert not system.is_stopping


async def test_a_wrong_token_is_refused_and_never_told(path: Path) -> None:
    async with serving(path, DECLARED) as system:
        with pytest.raises(ControlError, match="no operator has this token") as refused:
            await call(path, "status", "guessed-wrong")
        assert "guessed-wrong" not in str(refused.value)
        assert "guessed-wrong" not in "".join(event.line() for event in told(system))


async def test_a_token_that_is_no_text_is_a_usage_error(path: Path) -> None:
    async with serving(path, DECLARED):
        with pytest.raises(ControlError, match="a request is") as refused:
            await call(path, "status", 7)  # type: ignore[arg-type]
        assert refused.value.exit_code == 64


async def test_operators_that_a_reload_brings_count_at_once(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "supervisor.toml"
    file.write_text(f'[control]\nsocket = "{path}"\n{DECLARED}')
    system = System(load(file))
    server = ControlServer(path, system, ControlSettings())
    server.bind()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        file.write_text(f'[control]\nsocket = "{path}"\n[operators.me]\nrole = "owner"\nunix_user = "{ME}"\n')
        done = await call(path, "reload", TOKENS["owner"])
        assert "operators.me.role" in done["applied"]
        with pytest.raises(ControlError, match="no operator has this token"):
            await call(path, "status", TOKENS["owner"])
        assert (await call(path, "status"))["name"] == "atlas"
        nursery.cancel_scope.cancel()


def test_every_command_of_the_socket_stands_in_the_list_of_roles() -> None:
    names = {name for name in COMMANDS if COMMANDS[name].run.__module__ == "runtime.control.runtime_commands"}
    assert names - {"disarm"} <= LEAST_ROLES.keys()
    assert {"pool resize", "pool pause", "pool resume", "pool expire", "pool revoke", "leases"} <= LEAST_ROLES.keys()
