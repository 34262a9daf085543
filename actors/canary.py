"""The canary: a customer of our own on every node, whose packets prove what the database and the node only say."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import trio
from attrs.validators import gt

from actors.canary_events import PASSES, PROBE_SECONDS, PROBES
from actors.canary_origin import Origin, own_origin
from actors.health_conditions import Condition, Conditions
from actors.node_messages import PutKey, ReadKey, ReadState
from actors.pool_client import Pool, pool_of
from db.canary import CanaryKey, canary_key, confirm_canary, renew_canary
from db.errors import UnknownNode
from db.lease_errors import LeaseError
from db.lease_queue import Lane
from runtime.config.settings import settings
from runtime.errors import AskError
from runtime.http import is_loopback
from runtime.logs import get_logger
from runtime.worker import Budget, Iteration, PeriodicWorker
from vpn.errors import LinkError, NodeConflict, NodeError, TunnelError, XrayError
from vpn.link import link_for
from vpn.protocol import InboundFacts, KeySpec, KeyState, NodeKey
from vpn.tunnel import open_tunnel

log = get_logger("canary")

_NODE_PREFIX = "node."


@settings("canary")
@attrs.frozen
class CanarySettings:
    """The table `[canary]`: what the canary fetches through each node."""

    url: str = ""
    """A page that answers 200 or 204, reachable from every node. Empty: a page of the canary's own, which only nodes on this
    machine can reach; other nodes are then looked at without packets."""


@attrs.define(eq=False)
class Canary(PeriodicWorker):
    """Fetches a page through a real tunnel of each node, with a key of its own, and compares three answers.

    Role: the only one who knows whether customers' packets pass: the database says what is wanted, the node what it serves, and
    packets what is true. Owns: a key on each node that is no customer's; a client process while it probes.
    Receives: WakeUp. Sends: ReadState, ReadKey and PutKey to every `node.<name>`.
    On crash: the next incarnation probes again; keys are rows and stay.
    Invariants: a node that is away or whose packets do not pass is a condition, which shows in readiness, events and metrics,
    and never a crash or a restart; no lease is held while a node is asked or a tunnel is open; a probe takes at most `patience`.
    """

    origin: CanarySettings
    pool: str = "pool.main"
    patience: float = attrs.field(default=8.0, validator=gt(0))
    "Seconds that all of a node's probe may take."
    cooldown: float = attrs.field(default=300.0, validator=gt(0))
    "Seconds between two alerts about the same lasting condition."
    _conditions: Conditions = attrs.field(init=False)
    _found: dict[str, str] = attrs.field(init=False, factory=dict)
    _unproven: set[str] = attrs.field(init=False, factory=set)

    def __attrs_post_init__(self) -> None:
        self._conditions = Conditions(self.cooldown)

    async def iterate(self, budget: Budget) -> Iteration:
        pool = pool_of(self.context, self.pool, lane=Lane.BATCH)
        names = sorted(
            address.name.removeprefix(_NODE_PREFIX)
            for address in self.context.services.registry
            if address.name.startswith(_NODE_PREFIX)
        )
        async with own_origin() as origin, trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(self._look, pool, name, origin, budget)
        found = [Condition(f"packets through {name}", self._found[name]) for name in names if name in self._found]
        for alert in self._conditions.update(found, trio.current_time()):
            self.context.emit(alert.event(self.context.name))
        troubles = [f"{condition.subject}: {condition.trouble}" for condition in found if condition.trouble]
        self.context.ready(not troubles, "; ".join(troubles))
        unproven = [f"{name}: no packets are sent, set [canary] url" for name in sorted(self._unproven)]
        return Iteration(done=len(names), note="; ".join([*troubles, *unproven])[:200])

    def inspect(self) -> Mapping[str, object]:
        return {
            **super().inspect(),
            "conditions": self._conditions.inspect(trio.current_time()),
            "without_packets": sorted(self._unproven),
        }

    async def _look(self, pool: Pool, name: str, origin: Origin, budget: Budget) -> None:
        kind, trouble = "late", f"the probe was not over after {self.patience:g} s"
        with trio.move_on_after(self.patience):
            kind, trouble = await self._probe(pool, name, origin)
        PROBES.labels(name, kind).inc()
        if kind == "no database":
            return  # says nothing about the node; what was found before stands
        self._found[name] = trouble
        if kind == "not tried":
            if name not in self._unproven:
                log.warning(
                    "no packets are sent through this node, so nobody knows whether any pass; set [canary] url",
                    node=name,
                )
            self._unproven.add(name)
        else:
            PASSES.labels(name).set(kind == "passed")
            self._unproven.discard(name)
        await budget.count()

    async def _probe(self, pool: Pool, name: str, origin: Origin) -> tuple[str, str]:
        """What was found, as a word for the metrics, and the trouble, empty if there is none."""
        node = self.context.lookup(_NODE_PREFIX + name)
        try:
            state = await node.ask(ReadState(), within=self.patience)
            if not state.ready:
                return "away", f"not tried: its Xray is not ready: {state.why}"
            key = await pool.run("canary.key", canary_key, name)
            lost = ""
            if not _serves(await node.ask(ReadKey(key.key_id), within=self.patience), key):
                lost = "the database wants the canary's key and the node did not serve it; it was put again"
                await self._put(pool, name, key)
        except (NodeError, AskError) as error:
            return "away", f"not tried: {error}"
        except UnknownNode:
            return "away", "not tried: it was never reached"
        except LeaseError as error:
            log.info("no probe without the database", node=name, reason=str(error))
            return "no database", ""
        self.context.failpoint("listed")
        kind, trouble = await self._send_packets(name, key, state.inbound, origin)
        if kind == "passed" and lost and key.is_confirmed:
            return "lost", lost
        return kind, trouble

    async def _put(self, pool: Pool, name: str, key: CanaryKey) -> None:
        try:
            await self.context.lookup(_NODE_PREFIX + name).ask(PutKey(_spec(key)), within=self.patience)
        except NodeConflict as error:
            await pool.run("canary.renew", renew_canary, key, error.generation)
            raise
        await pool.run("canary.confirm", confirm_canary, key)

    async def _send_packets(self, name: str, key: CanaryKey, inbound: InboundFacts, origin: Origin) -> tuple[str, str]:
        url, wanted = self.origin.url, None
        if not url:
            if not is_loopback(inbound.host):
                return "not tried", ""
            url, wanted = origin.url, origin.body
        began = trio.current_time()
        try:
            async with open_tunnel(link_for(_spec(key), inbound), within=self.patience) as tunnel:
                page = await tunnel.fetch(url, within=self.patience)
        except (TunnelError, XrayError, LinkError) as error:
            return "blocked", f"the node says that it serves the canary's key, and no packet passes: {error}"
        if page.status not in (200, 204) or (wanted is not None and page.body != wanted):
            return "blocked", f"what came through the tunnel (status {page.status}) is not the page at {url}"
        PROBE_SECONDS.labels(name).observe(trio.current_time() - began)
        return "passed", ""


def _serves(found: NodeKey | None, key: CanaryKey) -> bool:
    return (
        found is not None
        and found.state is KeyState.SERVING
        and (found.spec.uuid, found.spec.flow) == (key.uuid, key.flow)
        and sorted(found.spec.inbounds) == sorted(key.inbounds)
    )


def _spec(key: CanaryKey) -> KeySpec:
    return KeySpec(key.key_id, key.uuid, flow=key.flow, inbounds=key.inbounds, generation=key.generation)
