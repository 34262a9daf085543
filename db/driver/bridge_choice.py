"""Which bridge to use."""

from __future__ import annotations

import asyncio
from typing import Literal

from db.driver.bridge import Bridge
from db.driver.bridge_inline import BridgeUnfit, InlineBridge, self_test
from db.driver.bridge_plain import PlainBridge


async def choose_bridge(
    wish: Literal["auto", "inline", "plain"], loop: asyncio.AbstractEventLoop
) -> tuple[Bridge, str]:
    """The bridge, and why it is not the fast one although it was wished for; the reason is empty if nothing is wrong.

    `inline` raises BridgeUnfit instead of falling back.
    """
    if wish == "plain":
        return PlainBridge(loop), ""
    try:
        await self_test(loop)
    except BridgeUnfit as unfit:
        if wish == "inline":
            raise
        return PlainBridge(loop), str(unfit)
    return InlineBridge(loop), ""
