"""Looking after Xray between changes: removed customers stay out, and its users stay those that are wanted."""

from __future__ import annotations

from typing import Final

import attrs
import trio

from runtime.logs import get_logger
from vpn.agent import metrics
from vpn.agent.life import Life
from vpn.agent.node import Node
from vpn.errors import XrayCallFailed, XrayDown
from vpn.xray.api import Traffic
from vpn.xray.lines import Source

log = get_logger(__name__)

_QUIET_AFTER: Final = 0.25
_STRAY_ROUNDS: Final = 20
_BAN_SECONDS: Final = 60.0
_TIDY_SECONDS: Final = 15.0
_VERIFY_SECONDS: Final = 60.0


@attrs.define(eq=False)
class Watch:
    """Background checks of one node; `run` goes on until cancelled. Seconds between full comparisons: `verify_every`."""

    node: Node
    verify_every: float = _VERIFY_SECONDS

    async def run(self) -> None:
        """Start all checks."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow_removals)
            nursery.start_soon(self._tidy)
            nursery.start_soon(self._verify)

    async def _follow_removals(self) -> None:
        async with trio.open_nursery() as nursery:
            async for life, email in self.node.removals:
                nursery.start_soon(self._until_quiet, life, email)

    async def _until_quiet(self, life: Life, email: str) -> None:
        """After a cut, the customer's counters must stand still; if they move, an access line was lost and a connection
        is open that nobody knows the owner of. It is found by its traffic."""
        try:
            for _ in range(_STRAY_ROUNDS):
                before = await _counters(life, email)
                flows = {flow.source: flow.moved for flow in await trio.to_thread.run_sync(life.cutter.flows)}
                await trio.sleep(_QUIET_AFTER)
                if self.node.keeper.current is not life or email not in life.banned:
                    return
                moved = _sum(await _counters(life, email)) - _sum(before)
                if moved <= 0:
                    return
                await life.api.block(email)
                life.blocked.add(email)
                await self._cut_stray(life, email, moved, flows)
        except XrayCallFailed as error:
            log.debug("could not check that a removed customer is quiet", key=email, reason=str(error))

    async def _cut_stray(self, life: Life, email: str, moved: int, before: dict[Source, int]) -> None:
        # Xray counts the customer's bytes, the kernel those on the wire: about the same, so the nearest is tried first,
        # one at a time, and only connections that no access line gave to somebody else.
        candidates = [
            (abs(flow.moved - before[flow.source] - moved), flow.source)
            for flow in await trio.to_thread.run_sync(life.cutter.flows)
            if flow.source in before
            and flow.moved > before[flow.source]
            and life.connections.owner(flow.source) is None
        ]
        if not candidates:
            return
        _, source = min(candidates, key=lambda candidate: candidate[0])
        await trio.to_thread.run_sync(life.cutter.cut, frozenset((source,)))
        metrics.STRAYS.inc()
        log.warning(
            "cut a removed customer's connection that Xray had not reported", key=email, candidates=len(candidates)
        )

    async def _tidy(self) -> None:
        """Forget closed connections, lift bans and block rules that have served their purpose."""
        while True:
            await trio.sleep(_TIDY_SECONDS)
            life = self.node.keeper.current
            if life is None:
                continue
            live = await trio.to_thread.run_sync(life.cutter.live)
            life.connections.keep_only(live)
            for email in life.bans_before(trio.current_time() - _BAN_SECONDS):
                if life.connections.of(email):
                    await life.cut(email)
                    continue
                try:
                    if email in life.blocked:
                        await life.api.unblock(email)
                        life.blocked.discard(email)
                except XrayCallFailed as error:
                    log.debug("a block rule stays a little longer", key=email, reason=str(error))
                else:
                    life.unban(email)

    async def _verify(self) -> None:
        while True:
            await trio.sleep(self.verify_every)
            try:
                await self.node.verify()
            except (XrayCallFailed, XrayDown) as error:
                log.warning("could not compare Xray's users with the wanted keys", reason=str(error))


async def _counters(life: Life, email: str) -> Traffic:
    return (await life.api.traffic(email)).get(email, Traffic())


def _sum(traffic: Traffic) -> int:
    return traffic.uplink + traffic.downlink
