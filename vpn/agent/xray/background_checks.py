"""Looking after Xray between changes: its users stay those that are wanted, and removed customers stay out.

Xray loses access lines when it prints many at once, so an open connection may have an unknown owner. Such a leaked
connection is found by its traffic: Xray counts the customer's bytes, the kernel those of each connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs
import trio

from runtime import get_logger
from vpn.agent.config import metrics
from vpn.agent.xray.instance import XrayInstance
from vpn.agent.xray.node import AgentNode
from vpn.errors import XrayCallFailed, XrayDown
from vpn.xray.access_log import Source
from vpn.xray.api import Traffic

log = get_logger(__name__)

_FACTOR: Final = 2
_SLACK: Final = 64 * 1024
"Bytes by which the counts may differ besides: what was moved between reading the one and the other, and protocol overhead."


async def shut_out(instance: XrayInstance, email: str) -> None:
    """Cut every connection of this customer that shows up from now on, and refuse new streams inside open ones.

    Hold the key's lock: otherwise a key that comes back meanwhile stays shut out. Raises XrayCallFailed.
    """
    instance.ban(email)
    if email not in instance.blocked:
        instance.blocked.add(email)
        await instance.api.block(email)


async def cut_leaked_connection(
    instance: XrayInstance, email: str, counted: int, before: Mapping[Source, int], after: Mapping[Source, int]
) -> bool:
    """Cut the one connection whose traffic fits a customer's counters best; returns whether one was cut.

    `counted` are the bytes that the customer moved between two looks; `before` and `after` are the bytes of each
    connection at those looks. Connections that are known to belong to another customer, or whose traffic is more than
    twice or less than half as much, are never cut. Raises XrayCallFailed.
    """
    off = {
        source: abs(after[source] - before[source] - counted)
        for source in after.keys() & before.keys()
        if counted // _FACTOR - _SLACK <= after[source] - before[source] <= counted * _FACTOR + _SLACK
        and after[source] > before[source]
        and instance.connections.owner(source) is None
    }
    if counted <= 0 or not off:
        return False
    leaked = min(off, key=lambda source: off[source])
    cut = await instance.cut_these(frozenset((leaked,)))
    if cut:
        metrics.LEAKED.inc()
        log.warning("cut a removed customer's connection that Xray had not reported", key=email, candidates=len(off))
    return bool(cut)


@attrs.define(eq=False)
class LeakSweep:
    """Finds customers who are not to be served and whose traffic goes on.

    Each `look` compares the counters of removed and expired customers with the look before. A customer whose counters
    moved is shut out, and the connection is cut at this look or the next.
    """

    node: AgentNode
    _instance: XrayInstance | None = attrs.field(init=False, default=None)
    _counted: dict[str, int] = attrs.field(init=False, factory=dict)
    _flows: dict[Source, int] = attrs.field(init=False, factory=dict)

    async def look(self) -> None:
        """Compare once; how often is up to the caller. Raises XrayCallFailed."""
        instance = self.node.xray.current
        if instance is not self._instance:
            self._instance, self._counted, self._flows = instance, {}, {}
        if instance is None:
            return
        counted = {
            email: traffic.uplink + traffic.downlink
            for email, traffic in (await instance.api.traffic()).items()
            if not self.node.serves(email)
        }
        going_on = [email for email, total in counted.items() if total > self._counted.get(email, total)]
        flows = await instance.flows() if going_on else {}
        uncut = 0
        for email in going_on:
            async with self.node.convergence.locks.of(email):
                if self.node.serves(email):
                    continue  # came back meanwhile
                await shut_out(instance, email)
                moved = counted[email] - self._counted[email]
                if await instance.cut(email) or await cut_leaked_connection(instance, email, moved, self._flows, flows):
                    del counted[email]  # what was on its way still counts: begin anew
                else:
                    uncut += 1
        metrics.UNCUT.set(uncut)
        self._counted, self._flows = counted, flows


_LOOKS: Final = (0.25, 1.0, 5.0, 20.0, 30.0)
"Seconds between looks at a removed customer's counters."
_MEASURE: Final = 0.2
_BAN_SECONDS: Final = 60.0
_TIDY_SECONDS: Final = 15.0
_VERIFY_SECONDS: Final = 60.0
_RECOVER_SECONDS: Final = 1.0


@attrs.define(eq=False)
class BackgroundChecks:
    """The background checks of one node. `verify_every` is the time between full comparisons of Xray's users with the
    wanted keys, in seconds (60).
    """

    node: AgentNode
    verify_every: float = _VERIFY_SECONDS
    _sweep: LeakSweep = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._sweep = LeakSweep(self.node)

    async def run(self) -> None:
        """Run all checks until cancelled. Failures of Xray are logged and the check is repeated at its next turn."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow_removals)
            nursery.start_soon(self._tidy)
            nursery.start_soon(self._verify)
            nursery.start_soon(self._recover)

    async def _follow_removals(self) -> None:
        async with trio.open_nursery() as nursery:
            async for instance, email in self.node.convergence.removals:
                nursery.start_soon(self._until_quiet, instance, email)

    async def _until_quiet(self, instance: XrayInstance, email: str) -> None:
        """After a cut, the customer's counters must stand still; if they move, a connection with an unknown owner is
        open. What this misses, the sweep finds later.
        """
        try:
            last = await _counters(instance, email)
            for pause in _LOOKS:
                if not last:
                    return  # never connected in this instance of Xray
                await trio.sleep(pause)
                while instance.is_banned(email) and self.node.xray.current is instance:
                    now = await _counters(instance, email)
                    if now == last:
                        break
                    last = await self._cut_leaked(instance, email)
        except XrayCallFailed as error:
            log.debug("could not check that a removed customer is quiet", key=email, reason=str(error))

    async def _cut_leaked(self, instance: XrayInstance, email: str) -> int:
        async with self.node.convergence.locks.of(email):
            if not instance.is_banned(email):
                return 0  # came back meanwhile
            await shut_out(instance, email)
        flows, counted = await instance.flows(), await _counters(instance, email)
        await trio.sleep(_MEASURE)
        later, total = await instance.flows(), await _counters(instance, email)
        if instance.is_banned(email):
            await cut_leaked_connection(instance, email, total - counted, flows, later)
        return await _counters(instance, email)

    async def _tidy(self) -> None:
        """Forget closed connections, lift bans and block rules that have served their purpose."""
        while True:
            await trio.sleep(_TIDY_SECONDS)
            instance = self.node.xray.current
            if instance is None:
                continue
            try:
                await instance.forget_closed()
                for email in instance.bans_before(trio.current_time() - _BAN_SECONDS):
                    async with self.node.convergence.locks.of(email):
                        if instance.is_banned(email):
                            await self._lift(instance, email)
            except XrayCallFailed as error:
                log.debug("bans and block rules stay a little longer", reason=str(error))

    async def _lift(self, instance: XrayInstance, email: str) -> None:
        if await instance.cut(email):
            return  # still coming: the ban stays for another round
        if email in instance.blocked:
            await instance.api.unblock(email)
            instance.blocked.discard(email)
        instance.unban(email)

    async def _verify(self) -> None:
        while True:
            await trio.sleep(self.verify_every)
            await self._compare()
            try:
                await self._sweep.look()
            except XrayCallFailed as error:
                log.warning("could not see whether removed customers are quiet", reason=str(error))

    async def _compare(self) -> None:
        try:
            await self.node.convergence.verify()
        except (XrayCallFailed, XrayDown) as error:
            log.warning("could not compare Xray's users with the wanted keys", reason=str(error))

    async def _recover(self) -> None:
        """Take changes again once the disk takes them."""
        store = self.node.store
        since: float | None = None
        while True:
            await trio.sleep(_RECOVER_SECONDS)
            if not store.failure:
                since = None
                continue
            if since is None:
                since = trio.current_time()
                log.error("changes are refused", reason=store.failure)
            if await store.recover():
                log.warning("changes are taken again", after_seconds=round(trio.current_time() - since, 1))
                await self._compare()  # what was known but refused is made now


async def _counters(instance: XrayInstance, email: str) -> int:
    traffic = (await instance.api.traffic(email)).get(email, Traffic())
    return traffic.uplink + traffic.downlink
