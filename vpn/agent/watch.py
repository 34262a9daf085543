"""Looking after Xray between changes: removed customers stay out, and its users stay those that are wanted."""

from __future__ import annotations

from typing import Final

import attrs
import trio

from runtime.logs import get_logger
from vpn.agent.life import Life
from vpn.agent.node import Node
from vpn.agent.stray import Sweep, cut_nearest, shut_out
from vpn.errors import XrayCallFailed, XrayDown
from vpn.xray.api import Traffic

log = get_logger(__name__)

_LOOKS: Final = (0.25, 1.0, 5.0, 20.0, 30.0)
"Seconds between looks at a removed customer's counters."
_MEASURE: Final = 0.2
_BAN_SECONDS: Final = 60.0
_TIDY_SECONDS: Final = 15.0
_VERIFY_SECONDS: Final = 60.0
_RECOVER_SECONDS: Final = 1.0


@attrs.define(eq=False)
class Watch:
    """Background checks of one node; `run` goes on until cancelled. Seconds between full comparisons: `verify_every`."""

    node: Node
    verify_every: float = _VERIFY_SECONDS
    _sweep: Sweep = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._sweep = Sweep(self.node)

    async def run(self) -> None:
        """Start all checks."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow_removals)
            nursery.start_soon(self._tidy)
            nursery.start_soon(self._verify)
            nursery.start_soon(self._recover)

    async def _follow_removals(self) -> None:
        async with trio.open_nursery() as nursery:
            async for life, email in self.node.removals:
                nursery.start_soon(self._until_quiet, life, email)

    async def _until_quiet(self, life: Life, email: str) -> None:
        """After a cut, the customer's counters must stand still; if they move, a connection is open that nobody knows the
        owner of. Later than that, the sweep finds it."""
        try:
            last = await _counters(life, email)
            for pause in _LOOKS:
                if not last:
                    return  # never connected in this life of Xray
                await trio.sleep(pause)
                while life.is_banned(email) and self.node.keeper.current is life:
                    now = await _counters(life, email)
                    if now == last:
                        break
                    last = await self._cut_stray(life, email)
        except XrayCallFailed as error:
            log.debug("could not check that a removed customer is quiet", key=email, reason=str(error))

    async def _cut_stray(self, life: Life, email: str) -> int:
        async with self.node.locks.of(email):
            if not life.is_banned(email):
                return 0  # came back meanwhile
            await shut_out(life, email)
        flows, counted = await life.flows(), await _counters(life, email)
        await trio.sleep(_MEASURE)
        later, total = await life.flows(), await _counters(life, email)
        if life.is_banned(email):
            await cut_nearest(life, email, total - counted, flows, later)
        return await _counters(life, email)

    async def _tidy(self) -> None:
        """Forget closed connections, lift bans and block rules that have served their purpose."""
        while True:
            await trio.sleep(_TIDY_SECONDS)
            life = self.node.keeper.current
            if life is None:
                continue
            try:
                await life.forget_closed()
                for email in life.bans_before(trio.current_time() - _BAN_SECONDS):
                    async with self.node.locks.of(email):
                        if life.is_banned(email):
                            await self._lift(life, email)
            except XrayCallFailed as error:
                log.debug("bans and block rules stay a little longer", reason=str(error))

    async def _lift(self, life: Life, email: str) -> None:
        if await life.cut(email):
            return  # still coming: the ban stays for another round
        if email in life.blocked:
            await life.api.unblock(email)
            life.blocked.discard(email)
        life.unban(email)

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
            await self.node.verify()
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


async def _counters(life: Life, email: str) -> int:
    traffic = (await life.api.traffic(email)).get(email, Traffic())
    return traffic.uplink + traffic.downlink
