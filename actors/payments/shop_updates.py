"""Updates of the bot that are about no money: they are handed to the storefront, which answers people.

They are no events: nothing is stored of them, because a tap that comes twice is harmless and fifty a second would be thirty
million rows a week. An update is confirmed to Telegram when the storefront has ended with it, or after `HAND_OVER_SECONDS`.
"""

from __future__ import annotations

from typing import Final

import attrs
import trio

from actors.payments.wire import Fields
from runtime import AddressState, Context, Delivery, Message, UnknownActor
from runtime.metrics import counter

STOREFRONT: Final = "storefront"
"""The name of the actor that answers people."""
HAND_OVER_SECONDS: Final = 10.0
"""After so long an update counts as taken, whatever has become of it: it must not hold up those that come after it."""
_AGAIN: Final = 0.2

SHOP_UPDATES = counter(
    "atlas_storefront_updates_total",
    "Updates of the bot that were handed to the storefront, by their end.",
    labels=("end",),
)


@attrs.define(eq=False)
class Receipt:
    """What becomes of an update that was handed over."""

    is_done: bool = False
    """Whether it was served; if not when it has ended, it has to be handed over again."""
    ended: trio.Event = attrs.field(factory=trio.Event)

    def end(self, *, is_done: bool) -> None:
        """Say that nothing more is done with the update."""
        self.is_done = self.is_done or is_done
        self.ended.set()


@attrs.frozen
class ShopUpdate(Message):
    """An update, for the storefront; whoever takes it ends its receipt."""

    update: Fields = attrs.field(repr=False)
    receipt: Receipt = attrs.field(repr=False)
    arrived_at: float
    """When it came, by the loop's clock."""


def is_for_shop(update: Fields) -> bool:
    """Whether an update is about no money, and from somebody who may wait for an answer."""
    message = update.get("message")
    if isinstance(message, dict):
        return "successful_payment" not in message and "refunded_payment" not in message
    return isinstance(update.get("callback_query"), dict)


def hand_over(context: Context, update: Fields) -> Receipt | None:
    """Tell the storefront of an update, at once and in order; None if it is not for it, or there is none that serves."""
    if not is_for_shop(update):
        return None
    try:
        storefront = context.lookup(STOREFRONT)
    except UnknownActor:
        return None
    if storefront.address.state in (AddressState.PARKED, AddressState.DEAD):
        return None
    receipt = Receipt()
    match storefront.tell(ShopUpdate(update, receipt, trio.current_time())):
        case Delivery.DEAD:
            return None
        case Delivery.FULL:
            receipt.end(is_done=False)
    return receipt


async def until_served(context: Context, update: Fields, receipt: Receipt) -> None:
    """Wait until the storefront has ended with an update, handing it over again if it crashed over it; at most
    `HAND_OVER_SECONDS`."""
    with trio.move_on_after(HAND_OVER_SECONDS) as patience:
        while True:
            await receipt.ended.wait()
            if receipt.is_done:
                break
            await trio.sleep(_AGAIN)
            again = hand_over(context, update)
            if again is None:
                break
            receipt = again
    SHOP_UPDATES.labels("late" if patience.cancelled_caught else "served" if receipt.is_done else "lost").inc()
