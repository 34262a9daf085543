"""The embedded node: a VPN node for a machine that has none, as a supervised agent process with a real Xray."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
from pathlib import Path

import attrs
import trio

from actors.nodes.messages import Endpoint, Locate
from db.embedded import EmbeddedSettings, layout_of
from db.settings import DatabaseSettings
from runtime import Actor, Ignore, StartRefused, StopReason, get_logger, handler
from runtime.child_process import PIPE, ChildProcess, lines, spawn
from runtime.config import Secret
from vpn.node.settings import NodeSettings, NodesSettings

log = get_logger("agent")

_STOP_SECONDS = 5.0
_TOKEN_BYTES = 32


class AgentEnded(RuntimeError):
    """The embedded node agent ended by itself, without being stopped."""


@attrs.define(eq=False)
class EmbeddedNode(Actor):
    """Keeps one node agent running beside the supervisor, with its data in the embedded installation.

    Role: the VPN node of a machine that has none. With `nodes.<key>.url` set it is not needed and answers `ignore`.
    Owns: the agent process (which owns Xray), its token and its data directory. Receives: Locate. Sends: nothing.
    On crash: the agent ends with it and is started again; customers' connections drop and come back, keys are kept.
    Invariants: started means that customers can connect; no agent and no Xray outlives the supervisor; ports and keys, and so
    links, survive restarts.
    """

    key: str
    node: NodeSettings
    embedded: EmbeddedSettings
    nodes: NodesSettings = attrs.field(factory=NodesSettings)
    database: DatabaseSettings = attrs.field(factory=DatabaseSettings)
    """Beside a database whose clock may be moved, the node's clock may be moved as well."""
    _agent: ChildProcess | None = attrs.field(init=False, default=None)
    _endpoint: Endpoint | None = attrs.field(init=False, default=None)

    async def on_start(self) -> None:
        if self.node.url:
            raise Ignore(f"nodes.{self.key}.url names an agent elsewhere")
        self.context.one_of("nodes", self.key, self.nodes.required)
        home = layout_of(self.embedded).node / self.key
        token_file = _keep_token(home)
        agent = self._agent = spawn(
            [
                *(sys.executable, "-m", "vpn.agent", "--data-dir", home, "--token-file", token_file),
                *("--parent-stdin", "--log-format", "json"),
                *(() if self.database.purpose == "production" else ("--clock-offset", "0")),
            ],
            name=f"node agent {self.key}",
            keep_stdin=True,
            stdout=PIPE,
            stderr=PIPE,
            death_signal=signal.SIGTERM,
        )
        said = trio.Event()
        last_words: list[str] = []
        self.context.start_task(self._keep, agent, name="keep agent", inherit_deadline=False)
        self.context.start_task(
            self._relay_log, agent, last_words, said, name="relay agent log", inherit_deadline=False
        )
        self._endpoint = await self._until_listening(agent, token_file, last_words, said)
        self.context.describe(listening=self._endpoint.url, data=str(home), pid=str(agent.pid))

    async def on_stop(self, reason: StopReason) -> None:
        if self._agent is not None:
            await self._agent.stop(signal.SIGTERM, grace=_STOP_SECONDS)

    @handler
    async def locate(self, message: Locate) -> Endpoint:
        assert self._endpoint is not None, "a started agent has said where it listens"
        return self._endpoint

    async def _until_listening(
        self, agent: ChildProcess, token_file: Path, last_words: list[str], said: trio.Event
    ) -> Endpoint:
        assert agent.stdout is not None
        async for line in lines(agent.stdout):
            announced = json.loads(line)
            inbound = announced["inbound"]
            self.context.describe(customers=f"{inbound['host']}:{inbound['port']} ({inbound['security']})")
            return Endpoint(str(announced["listening"]), Secret(token_file.read_text().strip()))
        status = await agent.wait()
        await said.wait()
        why = last_words[-1] if last_words else "it said nothing"
        raise StartRefused(
            f"the embedded node agent {self.key!r} did not start (status {status}): {why}",
            exit_code=status if status > 0 else os.EX_UNAVAILABLE,
        )

    async def _keep(self, agent: ChildProcess) -> None:
        # Also on a crash or a kill of this actor, when on_stop does not run.
        status = await agent.keep(signal.SIGTERM, grace=_STOP_SECONDS)
        if self._endpoint is not None and not self.context.stopping:
            raise AgentEnded(f"the agent of node {self.key} (pid {agent.pid}) ended by itself with status {status}")

    async def _relay_log(self, agent: ChildProcess, last_words: list[str], said: trio.Event) -> None:
        assert agent.stderr is not None
        try:
            async for line in lines(agent.stderr):
                if line.strip():
                    last_words[:] = [_relay(line)]
        finally:
            said.set()


def _relay(line: str) -> str:
    """Log one line of the agent at its own level; returns its text."""
    try:
        record = json.loads(line)
        level, text = str(record["level"]).lower(), str(record["message"])
    except (ValueError, TypeError, KeyError):
        level, text = "warning", line.removeprefix("error: ")
    say = {"debug": log.debug, "info": log.info, "warning": log.warning}.get(level, log.error)
    say(text)
    return text


def _keep_token(home: Path) -> Path:
    """The agent's bearer token file, made at the first start. Raises `StartRefused` if it cannot be kept."""
    path = home / "token"
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            unfinished = path.with_suffix(".new")
            unfinished.unlink(missing_ok=True)
            with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123 - a mode
                file.write(secrets.token_urlsafe(_TOKEN_BYTES) + "\n")
            unfinished.rename(path)
    except OSError as error:
        raise StartRefused(
            f"the embedded node cannot keep its token in {home}: {error.strerror}; correct the owner and permissions of "
            "that directory, or set embedded.data_dir to another place",
            exit_code=os.EX_NOPERM,
        ) from error
    return path
