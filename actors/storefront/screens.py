"""How a screen is written: a function of a visit, named by the two letters that buttons carry."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeVar, TypeVarTuple

import attrs

from actors.payments.provider import Provider
from actors.pool.client import Pool
from actors.shop.settings import ShopSettings
from actors.storefront.buttons import Press, base36, new_nonce
from actors.storefront.language import Texts
from actors.storefront.screen import Button, Screen
from actors.storefront.settings import StorefrontSettings
from actors.storefront.updates import Asked
from actors.telegram.html import Html
from db.customers import Customer
from db.settings import LimitSettings, TrialSettings
from db.tx import Tx
from db.work.audit import act_as
from db.work.front_ends import Visitor
from db.work.limits import Allowance
from runtime import Message
from runtime.operators import Identity, front_end

T = TypeVar("T")
Args = TypeVarTuple("Args")
BOT: Final[Identity] = front_end("bot")
"""Who asks for what customers ask for here, in the audit trail."""
WITHIN: Final = 4.0
"""Seconds for a connection, and again for a transaction: a customer waits."""


@attrs.frozen
class Surroundings:
    """What all screens have at hand."""

    pool: Callable[[], Pool]
    providers: Mapping[str, Provider]
    settings: StorefrontSettings
    shop: ShopSettings
    limits: LimitSettings
    trials: TrialSettings
    languages: Mapping[str, Texts]
    publish: Callable[[Message], int]
    servers: Callable[[], tuple[int, int]]
    """How many servers work now, and how many there are."""
    bot_name: Callable[[], str]
    """The bot's name in addresses; empty while it is not known."""


@attrs.frozen
class Visit:
    """A customer who asks for a screen."""

    around: Surroundings
    visitor: Visitor
    texts: Texts
    press: Press
    asked: Asked
    input: str | None = attrs.field(default=None, repr=False)
    """What the customer wrote for a screen that asked."""
    notice: str = ""
    """The key of a text that the screen begins with: why it is shown instead of another one."""

    @property
    def customer(self) -> Customer:
        """Who visits."""
        return self.visitor.customer

    @property
    def telegram_id(self) -> int:
        """Who visits, by Telegram's number."""
        return self.visitor.customer.telegram_id

    @property
    def allowance(self) -> Allowance:
        """The limits that customers are held to."""
        return Allowance(self.around.limits, BOT.actor)

    @property
    def key(self) -> str:
        """The idempotency key of what the button that was pressed does; empty if it does nothing."""
        return f"tg:{self.customer.id}:{self.press.nonce}" if self.press.nonce else ""

    async def run(self, label: str, function: Callable[[Tx, *Args], Awaitable[T]], *args: *Args) -> T:
        """Run a business function in a transaction of its own. Raises what `Pool.run` raises."""
        return await self.around.pool().run(f"storefront.{label}", function, *args, within=WITHIN, hold=WITHIN)

    async def act(self, label: str, function: Callable[[Tx, *Args], Awaitable[T]], *args: *Args) -> T:
        """The same for what changes something: the audit trail says that the bot asked for it."""

        async def do(tx: Tx) -> T:
            await act_as(tx, BOT)
            return await function(tx, *args)

        return await self.around.pool().run(f"storefront.{label}", do, within=WITHIN, hold=WITHIN)

    def say(self, key: str, **values: Html | str) -> Html:
        """A text in the customer's language, after the notice if there is one."""
        text = self.texts.say(key, **values)
        return self.texts.say(self.notice) + "\n\n" + text if self.notice else text

    def button(self, key: str, screen: str, *args: str | int, acts: bool = False, **values: str) -> Button:
        """A button to a screen. `acts`: it does something, once, however often it is pressed."""
        carried = tuple(base36(argument) if isinstance(argument, int) else argument for argument in args)
        press = Press(screen, carried, new_nonce() if acts else "")
        return Button(self.texts.button(key, **values), press)

    def link(self, key: str, url: str) -> Button:
        """A button that opens an address."""
        return Button(self.texts.button(key), url=url)

    def to(self, screen: str, *args: str | int, notice: str = "") -> Visit:
        """The same visit at another screen, as if its button had been pressed."""
        carried = tuple(base36(argument) if isinstance(argument, int) else argument for argument in args)
        return attrs.evolve(self, press=Press(screen, carried), input=None, notice=notice)


ScreenFunction = Callable[[Visit], Awaitable[Screen]]


@attrs.frozen
class ScreenEntry:
    """A screen as the dispatcher knows it."""

    make: ScreenFunction
    before_rules: bool
    """Whether who has not accepted the rules may see it."""
    refused: str
    """The text for a refusal that has no better one."""


SCREENS: dict[str, ScreenEntry] = {}
"""By the letters that buttons carry; the modules of screens fill it."""


def screen(
    name: str, *, before_rules: bool = False, refused: str = "refused"
) -> Callable[[ScreenFunction], ScreenFunction]:
    """Make a function the screen of this name."""

    def register(make: ScreenFunction) -> ScreenFunction:
        assert name not in SCREENS, f"two screens are called {name}"
        SCREENS[name] = ScreenEntry(make, before_rules, refused)
        return make

    return register


async def show(visit: Visit) -> Screen:
    """The screen that the visit asks for. Raises KeyError if there is none."""
    return await SCREENS[visit.press.screen].make(visit)
