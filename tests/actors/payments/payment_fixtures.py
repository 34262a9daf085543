"""A gateway on a real database, with its own pool, a simulator of every provider, and customers who order and pay."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeVar, TypeVarTuple

import attrs
import httpx
import trio

from actors.gateway.gateway import Gateway, GatewaySettings
from actors.payments.heleket import HeleketSettings
from actors.payments.invoicing import open_invoice_for
from actors.payments.payment_watcher import PaymentWatcher
from actors.payments.platega import PlategaSettings
from actors.payments.provider import Provider
from actors.payments.registry import close_providers, open_providers
from actors.payments.settings import (
    CryptoBotSettings,
    PaymentSettings,
    StripeSettings,
    TelegramPaymentSettings,
    YooKassaSettings,
)
from actors.pool.client import Pool, gate_of, pool_of
from actors.pool.pool import PoolActor
from actors.pool.settings import PoolSettings
from actors.shop.settings import ShopSettings
from db.billing.invariants import check_invariants
from db.billing.invoices import Invoice
from db.billing.orders import Order, open_order, open_topup
from db.billing.pricing import find_plan
from db.customers import add_customer
from db.embedded import EmbeddedSettings
from db.money import Money
from db.schema.demo_clock import set_clock_offset
from db.settings import DatabaseSettings, WithdrawalSettings
from db.tx import Tx
from runtime import AddressState, Context, Event, Ref
from runtime.config import Secret
from runtime.testing import ActorSystem, OnCrash, actor_system
from simulators.cryptobot import CryptoBot
from simulators.delivery import Event as Delivered
from simulators.delivery import deliver, deliver_until_taken
from simulators.heleket import Heleket
from simulators.platega import Platega
from simulators.server import serving
from simulators.stripe import Stripe
from simulators.telegram import Telegram
from simulators.yookassa import YooKassa
from tests.actors.pool_fixtures import Holder, until_full

T = TypeVar("T")
E = TypeVar("E", bound=Event)
Args = TypeVarTuple("Args")

TELEGRAM_TOKEN = "123456789:simulated-bot-token-of-these-tests-0000"
WEBHOOK_SECRET = "a-secret_of-Telegram"
CRYPTOBOT_TOKEN = "12345:simulated-app-token"
YOOKASSA_KEY = "simulated-shop-key"
STRIPE_KEY = "sk_simulated"
STRIPE_SECRET = "whsec_simulated"
PLATEGA_SECRET = "simulated-platega-key"
HELEKET_KEY = "simulated-heleket-payment-key"
Simulator = Telegram | CryptoBot | YooKassa | Stripe | Platega | Heleket
PATIENCE = 15.0


@attrs.define
class Outside:
    """The providers as they are outside, and where each is."""

    telegram: Telegram
    cryptobot: CryptoBot
    yookassa: YooKassa
    stripe: Stripe
    platega: Platega
    heleket: Heleket
    settings: PaymentSettings

    def provider(self, name: str) -> Simulator:
        """The simulator of that name."""
        found = getattr(self, name)
        assert isinstance(found, Simulator)
        return found


@asynccontextmanager
async def outside(telegram: Telegram | None = None) -> AsyncIterator[Outside]:
    """Every provider's simulator, served, and the settings that point to them; `telegram` in the place of one without chats."""
    telegram = telegram or Telegram(TELEGRAM_TOKEN, WEBHOOK_SECRET)
    cryptobot = CryptoBot(CRYPTOBOT_TOKEN)
    yookassa = YooKassa("506751", YOOKASSA_KEY)
    stripe = Stripe(STRIPE_KEY, [STRIPE_SECRET])
    platega = Platega("d3c1f9a2-0000-4000-8000-000000000001", PLATEGA_SECRET)
    heleket = Heleket("8b03432e-385b-4670-8d06-064591096795", HELEKET_KEY)
    async with AsyncExitStack() as stack:
        all_of_them = (telegram, cryptobot, yookassa, stripe, platega, heleket)
        urls = [await stack.enter_async_context(serving(each.app)) for each in all_of_them]
        settings = PaymentSettings(
            telegram=TelegramPaymentSettings(
                token=Secret(TELEGRAM_TOKEN), webhook_secret=Secret(WEBHOOK_SECRET), rate="1.30", url=urls[0]
            ),
            cryptobot=CryptoBotSettings(token=Secret(CRYPTOBOT_TOKEN), rate="92.50", url=urls[1]),
            yookassa=YooKassaSettings(
                shop_id="506751",
                secret_key=Secret(YOOKASSA_KEY),
                return_url="https://shop.example/thanks",
                networks=("127.0.0.1/32",),
                url=urls[2],
            ),
            stripe=StripeSettings(
                secret_key=Secret(STRIPE_KEY),
                webhook_secret=Secret(STRIPE_SECRET),
                rate="93.10",
                success_url="https://shop.example/thanks",
                url=urls[3],
            ),
            platega=PlategaSettings(
                merchant_id=platega.merchant_id,
                secret=Secret(PLATEGA_SECRET),
                return_url="https://shop.example/thanks",
                url=urls[4],
            ),
            heleket=HeleketSettings(
                merchant=heleket.merchant,
                payment_key=Secret(HELEKET_KEY),
                callback_url="https://shop.example/payments/heleket",
                success_url="https://shop.example/thanks",
                rate="92.50",
                url=urls[5],
            ),
        )
        yield Outside(*all_of_them, settings)


@attrs.define(eq=False)
class Harness:
    """A system with a gateway in it."""

    system: ActorSystem
    gateway: Ref
    pool: Pool
    outside: Outside
    providers: dict[str, Provider]
    events: list[Event]
    dsn: str

    @property
    def url(self) -> str:
        """Where the running incarnation of the gateway listens."""
        return self.system.address(self.gateway).facts["listening"]

    async def run(self, function: Callable[[Tx, *Args], Awaitable[T]], *args: *Args) -> T:
        """Run a business function beside the gateway."""
        return await self.pool.run("test", function, *args, within=PATIENCE)

    async def value(self, query: str, *args: object) -> object:
        """One value from the database."""

        async def look(tx: Tx) -> object:
            return await tx.fetchval(query, *args)

        return await self.run(look)

    async def move_clock(self, **offset: float) -> None:
        """Set the database's clock to this far from the real one."""
        await self.run(set_clock_offset, timedelta(**offset))

    async def order(self, provider: str, *, key: str = "click", telegram_id: int = 1001, topup: int = 0) -> Order:
        """A customer's order with a quote of that provider: 30 days of basic, or a top-up of so many kopecks."""
        adapter = self.providers[provider]

        async def place(tx: Tx) -> Order:
            await add_customer(tx, telegram_id)
            if topup:
                price = Money(topup)
                quote = adapter.quote(price)
                return await open_topup(tx, telegram_id, price, idempotency_key=key, quote=quote)
            quote = adapter.quote((await find_plan(tx, "basic", 30)).price)
            return await open_order(tx, telegram_id, "basic", 30, idempotency_key=key, quote=quote)

        return await self.run(place)

    async def invoice(self, provider: str, order: Order) -> Invoice:
        """The order's invoice with that provider."""
        return await open_invoice_for(self.pool, self.providers[provider], order.id)

    async def deliver(self, provider: str, event: Delivered) -> httpx.Response:
        """The provider delivers once."""
        return await deliver(f"{self.url}/payments/{provider}", event)

    async def deliver_until_taken(self, provider: str, event: Delivered) -> int:
        """The provider delivers until it is told 2xx."""
        with trio.fail_after(PATIENCE):
            while True:
                try:
                    return await deliver_until_taken(f"{self.url}/payments/{provider}", event)
                except RuntimeError:
                    await self.next_event()

    async def next_event(self) -> None:
        """Wait for the next event of the system."""
        happened = trio.Event()
        unsubscribe = self.system.services.events.subscribe(lambda _: happened.set())
        try:
            await happened.wait()
        finally:
            unsubscribe()

    async def until_event(self, kind: type[E]) -> E:
        """Wait for an event of this kind and return the first."""
        with trio.fail_after(PATIENCE):
            while True:
                for event in self.events:
                    if isinstance(event, kind):
                        return event
                await self.next_event()

    async def until_full(self, name: str) -> None:
        """Wait until that pool has all its connections."""
        ref = self.system.address(name).ref
        with trio.fail_after(PATIENCE):
            while True:
                state = gate_of(ref).state
                if state is not None and await until_full(state):
                    return
                await self.next_event()

    async def until_gateway(self, incarnation: int) -> None:
        """Wait until that incarnation of the gateway serves."""
        with trio.fail_after(PATIENCE):
            await self.system.up(self.gateway, incarnation)
            assert self.gateway.address.state is AddressState.UP

    async def watcher(self, name: str = "payment_watcher", *, pool: str = "pool.main") -> Ref:
        """A payment watcher that looks when it is woken."""
        return await self.system.start(
            PaymentWatcher(self.outside.settings, pool=pool, interval=3600.0, start_jitter=(3600.0, 3600.0)),
            name=name,
            on_crash=OnCrash.RESTART,
        )

    async def broken_invariants(self) -> list[str]:
        """What the money views list, those left out that wait for workers which do not run here."""
        return [
            f"{invariant.name}: {invariant.sample}"
            for invariant in await self.run(check_invariants)
            if not invariant.holds and (not invariant.at_rest or invariant.name == "money_rule1_events_are_settled")
        ]

    async def counts(self) -> tuple[int, int, int]:
        """Charges, entitlement events and cases."""

        async def look(tx: Tx) -> tuple[int, int, int]:
            row = await tx.fetchrow(
                """
                SELECT (SELECT count(*) FROM money_in) AS charges, (SELECT count(*) FROM entitlement_events) AS grants,
                       (SELECT count(*) FROM cases) AS cases
                """
            )
            assert row is not None
            return row["charges"], row["grants"], row["cases"]

        return await self.run(look)


async def start_pool(system: ActorSystem, dsn: str, name: str, size: int = 3) -> Ref:
    """A pool on the test's database."""
    database = DatabaseSettings(purpose="test", dsn=Secret(dsn))
    actor = PoolActor(database, PoolSettings(size=size, idle_check=0.3), EmbeddedSettings(), migrate=False)
    return await system.start(actor, name=name, on_crash=OnCrash.RESTART)


@asynccontextmanager
async def harness(
    dsn: str,
    *,
    gateway: GatewaySettings | None = None,
    shop: ShopSettings | None = None,
    withdrawals: WithdrawalSettings | None = None,
    telegram: Telegram | None = None,
    change: Callable[[PaymentSettings], PaymentSettings] = lambda settings: settings,
) -> AsyncIterator[Harness]:
    """Start it all; at the end every money invariant must hold."""
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        providers = await stack.enter_async_context(outside(telegram))
        system = await stack.enter_async_context(actor_system())
        providers.settings = change(providers.settings)
        events: list[Event] = []
        system.services.events.subscribe(events.append)
        # One for what a test holds locked, one for who waits for that, one in reserve, and some for the others.
        await start_pool(system, dsn, "pool.main", size=5)
        await start_pool(system, dsn, "pool.gateway", size=5)
        contexts: list[Context] = []
        await system.start(Holder(contexts.append), name="test")
        ref = await system.start(
            Gateway(
                gateway or GatewaySettings(port=0),
                providers.settings,
                shop or ShopSettings(),
                withdrawals or WithdrawalSettings(Path(directory) / "payout.key"),
            ),
            name="gateway",
            on_crash=OnCrash.RESTART,
        )
        adapters = open_providers(providers.settings)
        found = Harness(system, ref, pool_of(contexts[0], "pool.main"), providers, adapters, events, dsn)
        await found.until_full("pool.main")
        await found.until_full("pool.gateway")
        try:
            yield found
            assert await found.broken_invariants() == []
        finally:
            await close_providers(adapters)
