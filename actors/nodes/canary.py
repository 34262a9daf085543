"""The canary: a customer of our own on every node, whose packets prove what the database and the node only say."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

import attrs
import trio
from attrs.validators import gt

from actors.conditions import Condition, ConditionTracker
from actors.nodes.messages import PutKey, ReadKey, ReadState, canary_key_spec, node_names, node_ref
from actors.pool.client import Pool, pool_of
from db.errors import LeaseError, UnknownNode
from db.keys.canary import CanaryKey, canary_key, confirm_canary, renew_canary
from db.lease.queue import Lane
from runtime import AskError, Budget, Iteration, Message, PeriodicWorker, Timer, WakeUp, get_logger, handler
from runtime.config import settings
from runtime.http import is_loopback
from runtime.metrics import SECONDS, counter, gauge, histogram
from vpn.clients import Client, installed_clients, open_client_tunnel
from vpn.errors import LinkError, NodeConflict, NodeError, TunnelError, XrayError
from vpn.link import link_for
from vpn.protocol import InboundFacts, KeyState, NodeKey

CANARY_PROBES = counter(
    "atlas_canary_probes_total",
    "Probes of a node through a real tunnel, by the VPN client that was used and what they found.",
    labels=("node", "client", "found"),
)
CANARY_PASSES = gauge(
    "atlas_canary_passes",
    "1 if the last packets of each VPN client passed through the node; absent if none are sent there.",
    labels=("node",),
)
CANARY_SECONDS = histogram(
    "atlas_canary_seconds", "From opening a tunnel to the page that came through it.", buckets=SECONDS, labels=("node",)
)


_HEAD_LIMIT = 8192
_PATIENCE = 10.0


@attrs.frozen
class Origin:
    """Where the page is, and what it says: a text that can only be known by fetching it."""

    url: str
    body: bytes


@asynccontextmanager
async def serve_origin() -> AsyncIterator[Origin]:
    """Serve the page for as long as the block lasts."""
    body = secrets.token_hex(16).encode()

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            with suppress(trio.BrokenResourceError), trio.move_on_after(_PATIENCE):
                head = b""
                while b"\r\n\r\n" not in head and len(head) < _HEAD_LIMIT:
                    part = await stream.receive_some()
                    if not part:
                        return
                    head += part
                await stream.send_all(
                    b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
                )

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        yield Origin(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/", body)
        nursery.cancel_scope.cancel()


log = get_logger("canary")


@settings("canary")
@attrs.frozen
class CanarySettings:
    """The table `[canary]`: what the canary fetches through each node."""

    url: str = ""
    """A page that answers 200 or 204, reachable from every node. Empty: a page of the canary's own, which only nodes on this
    machine can reach; other nodes are then looked at without packets."""


ProbeOutcome = tuple[str, str]


@attrs.define(eq=False)
class _View:
    """What is known of one node: what each client found that was last stopped by something, and whose turn it is."""

    troubles: dict[Client, str] = attrs.field(factory=dict)
    is_known: bool = False
    turn: int = 0

    @property
    def trouble(self) -> str:
        """All of it in words, each once; empty if there is none."""
        return "; ".join(dict.fromkeys(self.troubles.values()))

    def next(self, clients: Sequence[Client]) -> Sequence[Client]:
        """With which clients to send packets now: those in trouble, else the one whose turn it is."""
        if self.troubles:
            return tuple(self.troubles)
        self.turn += 1
        return (clients[(self.turn - 1) % len(clients)],)

    def note(self, client: Client, trouble: str) -> None:
        """What a probe with this client found; empty: its packets passed."""
        self.is_known = True
        self.troubles.pop(client, None)
        if trouble:
            self.troubles[client] = trouble


@attrs.frozen
class ProbeAgain(Message):
    """To itself: probe the nodes that are in trouble."""


@attrs.define(eq=False)
class Canary(PeriodicWorker):
    """Fetches a page through a real tunnel of each node, with a key of its own, and compares three answers.

    Role: the only one who knows whether customers' packets pass: the database says what is wanted, the node what it serves, and
    packets what is true. It takes turns between the VPN clients that are installed; one whose packets did not pass is tried again
    at the next probe. Owns: a key on each node that is no customer's; client processes while it probes.
    Receives: WakeUp, and its own timer for nodes in trouble. Sends: ReadState, ReadKey and PutKey to every `node.<name>`.
    On crash: the next incarnation probes again; keys are rows and stay.
    Invariants: a node that is away or whose packets do not pass is a condition, which shows in readiness, events and metrics,
    and never a crash or a restart; no lease is held while a node is asked or a tunnel is open; a probe takes at most `patience`.
    """

    origin: CanarySettings
    pool: str = "pool.main"
    patience: float = attrs.field(default=8.0, validator=gt(0))
    """Seconds that all of a node's probe may take."""
    retry: float = attrs.field(default=5.0, validator=gt(0))
    """Seconds after which a node in trouble is looked at again, so that a cure is seen at once and not at the next tick."""
    cooldown: float = attrs.field(default=300.0, validator=gt(0))
    """Seconds between two alerts about the same lasting condition."""
    _are_all_due: bool = attrs.field(init=False, default=True)
    _all_at: float = attrs.field(init=False, default=float("-inf"))
    """When all nodes are due, not only those in trouble."""
    _retry_timer: Timer | None = attrs.field(init=False, default=None)
    _conditions: ConditionTracker = attrs.field(init=False)
    _clients: tuple[Client, ...] = attrs.field(init=False, factory=installed_clients)
    _views: dict[str, _View] = attrs.field(init=False, factory=lambda: defaultdict(_View))
    _without_packets: set[str] = attrs.field(init=False, factory=set)

    def __attrs_post_init__(self) -> None:
        self._conditions = ConditionTracker(self.cooldown)

    @handler
    async def wake_up(self, message: WakeUp) -> None:
        self._are_all_due = True
        await super().wake_up(message)

    @handler
    async def look_again(self, message: ProbeAgain) -> None:
        await super().wake_up(WakeUp())

    async def iterate(self, budget: Budget) -> Iteration:
        pool = pool_of(self.context, self.pool, lane=Lane.BATCH)
        names = node_names(self.context.services.registry)
        now = trio.current_time()
        probed = [name for name in names if self._views[name].trouble]
        if self._are_all_due or now >= self._all_at:
            probed, self._are_all_due, self._all_at = names, False, now + self.interval * (1 - self.tick_jitter)
        async with serve_origin() as origin, trio.open_nursery() as nursery:
            for name in probed:
                nursery.start_soon(self._check_node, pool, name, origin, budget)
        found = [
            Condition(f"packets through {name}", view.trouble) for name in names if (view := self._views[name]).is_known
        ]
        for alert in self._conditions.update(found, trio.current_time()):
            self.context.emit(alert.event(self.context.name))
        troubles = [f"{condition.subject}: {condition.trouble}" for condition in found if condition.trouble]
        for name, view in self._views.items():
            if view.is_known:
                why = f"packets through {name}: {view.trouble}" if view.trouble else ""
                self.context.trouble("packets", why, about=f"nodes.{name}")
        if self._retry_timer is not None:
            self._retry_timer.cancel()
        self._retry_timer = self.context.after(self.retry, ProbeAgain()) if troubles else None
        unproven = [f"{name}: no packets are sent, set [canary] url" for name in sorted(self._without_packets)]
        alone = [f"one VPN client only ({self._clients[0].value}): install atlas[clients]"] * (len(self._clients) == 1)
        return Iteration(done=len(probed), note="; ".join([*troubles, *unproven, *alone])[:200])

    def inspect(self) -> Mapping[str, object]:
        return {
            **super().inspect(),
            "conditions": self._conditions.inspect(trio.current_time()),
            "without_packets": sorted(self._without_packets),
            "clients": [client.value for client in self._clients],
        }

    async def _check_node(self, pool: Pool, name: str, origin: Origin, budget: Budget) -> None:
        view = self._views[name]
        clients = view.next(self._clients)
        found = dict.fromkeys(clients, ("late", f"the probe was not over after {self.patience:g} s"))
        with trio.move_on_after(self.patience):
            await self._probe(pool, name, origin, found)
        for client, (kind, trouble) in found.items():
            CANARY_PROBES.labels(name, client.value, kind).inc()
            if kind != "no database":  # that says nothing about the node; what was found before stands
                view.note(client, trouble)
        kinds = {kind for kind, _ in found.values()}
        if "no database" in kinds:
            return
        if "not tried" in kinds:
            if name not in self._without_packets:
                log.warning(
                    "no packets are sent through this node, so nobody knows whether any pass; set [canary] url",
                    node=name,
                )
            self._without_packets.add(name)
        else:
            CANARY_PASSES.labels(name).set(not view.trouble)
            self._without_packets.discard(name)
        await budget.count()

    async def _probe(self, pool: Pool, name: str, origin: Origin, found: dict[Client, ProbeOutcome]) -> None:
        """Enter into `found` what each of its clients found: a word for the metrics, and the trouble, empty if there is none."""
        node = node_ref(self.context, name)
        same: ProbeOutcome
        try:
            state = await node.ask(ReadState(), within=self.patience)
            if not state.ready:
                found.update(dict.fromkeys(found, ("away", f"not tried: its Xray is not ready: {state.why}")))
                return
            key = await pool.run("canary.key", canary_key, name)
            lost = ""
            if not _is_served(await node.ask(ReadKey(key.key_id), within=self.patience), key):
                lost = "the database wants the canary's key and the node did not serve it; it was put again"
                await self._put(pool, name, key)
        except (NodeError, AskError) as error:
            same = "away", f"not tried: {error}"
        except UnknownNode:
            same = "away", "not tried: it was never reached"
        except LeaseError as error:
            log.info("no probe without the database", node=name, reason=str(error))
            same = "no database", ""
        else:
            self.context.failpoint("listed")

            async def send(client: Client) -> None:
                kind, trouble = await self._send_packets(client, name, key, state.inbound, origin)
                found[client] = ("lost", lost) if kind == "passed" and lost and key.is_confirmed else (kind, trouble)

            async with trio.open_nursery() as nursery:
                for client in found:
                    nursery.start_soon(send, client)
            return
        found.update(dict.fromkeys(found, same))

    async def _put(self, pool: Pool, name: str, key: CanaryKey) -> None:
        try:
            await node_ref(self.context, name).ask(PutKey(canary_key_spec(key)), within=self.patience)
        except NodeConflict as error:
            await pool.run("canary.renew", renew_canary, key, error.generation)
            raise
        await pool.run("canary.confirm", confirm_canary, key)

    async def _send_packets(
        self, client: Client, name: str, key: CanaryKey, inbound: InboundFacts, origin: Origin
    ) -> ProbeOutcome:
        url, wanted = self.origin.url, None
        if not url:
            if not is_loopback(inbound.host):
                return "not tried", ""
            url, wanted = origin.url, origin.body
        began = trio.current_time()
        try:
            link = link_for(canary_key_spec(key), inbound)
            async with open_client_tunnel(client, link, within=self.patience) as tunnel:
                page = await tunnel.fetch(url, within=self.patience)
        except (TunnelError, XrayError, LinkError) as error:
            why = f"the node says that it serves the canary's key, and no packet passes ({client.value}): {error}"
            return "blocked", why
        if page.status not in (200, 204) or (wanted is not None and page.body != wanted):
            why = f"what came through the tunnel ({client.value}, status {page.status}) is not the page at {url}"
            return "blocked", why
        CANARY_SECONDS.labels(name).observe(trio.current_time() - began)
        return "passed", ""


def _is_served(found: NodeKey | None, key: CanaryKey) -> bool:
    return (
        found is not None
        and found.state is KeyState.SERVING
        and (found.spec.uuid, found.spec.flow) == (key.uuid, key.flow)
        and sorted(found.spec.inbounds) == sorted(key.inbounds)
    )
