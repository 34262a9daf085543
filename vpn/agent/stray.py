"""Removed customers whose traffic goes on although every connection that is known to be theirs was cut.

Xray loses access lines when it prints many at once, so a connection may be open that nobody knows the owner of. It is found
by its traffic: Xray counts the customer's bytes, the kernel those on each connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from runtime.logs import get_logger
from vpn.agent import metrics
from vpn.agent.life import Life
from vpn.agent.node import Node
from vpn.xray.lines import Source

log = get_logger(__name__)

_FACTOR: Final = 2
_SLACK: Final = 64 * 1024
"Bytes by which the counts may differ besides: what was moved between reading the one and the other, and protocol overhead."


async def shut_out(life: Life, email: str) -> None:
    """Cut whatever of this customer shows up from now on, and refuse new streams inside what is open. Hold the key's lock, or a
    key that comes back stays out. Raises XrayCallFailed."""
    life.ban(email)
    if email not in life.blocked:
        life.blocked.add(email)
        await life.api.block(email)


async def cut_nearest(
    life: Life, email: str, counted: int, before: Mapping[Source, int], after: Mapping[Source, int]
) -> bool:
    """Cut the one connection whose bytes, between two looks, come nearest to the `counted` ones of the customer; never one
    that is known to be somebody else's, or whose traffic is of another size. Raises XrayCallFailed."""
    off = {
        source: abs(after[source] - before[source] - counted)
        for source in after.keys() & before.keys()
        if counted // _FACTOR - _SLACK <= after[source] - before[source] <= counted * _FACTOR + _SLACK
        and after[source] > before[source]
        and life.connections.owner(source) is None
    }
    if counted <= 0 or not off:
        return False
    stray = min(off, key=lambda source: off[source])
    cut = await life.cut_these(frozenset((stray,)))
    if cut:
        metrics.STRAYS.inc()
        log.warning("cut a removed customer's connection that Xray had not reported", key=email, candidates=len(off))
    return bool(cut)


@attrs.define(eq=False)
class Sweep:
    """Looks, whenever it is told to, whether the counters of customers who are not to be served stand still since the last
    look. Where they do not, the customer is shut out, and the connection cut at the look after that."""

    node: Node
    _life: Life | None = attrs.field(init=False, default=None)
    _counted: dict[str, int] = attrs.field(init=False, factory=dict)
    _flows: dict[Source, int] = attrs.field(init=False, factory=dict)

    async def look(self) -> None:
        """Look once. Raises XrayCallFailed."""
        life = self.node.keeper.current
        if life is not self._life:
            self._life, self._counted, self._flows = life, {}, {}
        if life is None:
            return
        counted = {
            email: traffic.uplink + traffic.downlink
            for email, traffic in (await life.api.traffic()).items()
            if not self.node.serves(email)
        }
        going_on = [email for email, total in counted.items() if total > self._counted.get(email, total)]
        flows = await life.flows() if going_on else {}
        uncut = 0
        for email in going_on:
            async with self.node.locks.of(email):
                if self.node.serves(email):
                    continue  # came back meanwhile
                await shut_out(life, email)
                moved = counted[email] - self._counted[email]
                if await life.cut(email) or await cut_nearest(life, email, moved, self._flows, flows):
                    del counted[email]  # what was on its way still counts: begin anew
                else:
                    uncut += 1
        metrics.UNCUT.set(uncut)
        self._counted, self._flows = counted, flows
