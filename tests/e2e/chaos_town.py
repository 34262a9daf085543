"""One round of everything that the service is for, by customers who repeat what got no answer, whatever dies meanwhile."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final, TypeVar

import attrs
import httpx
import trio
import trio.testing

from actors.nodes.messages import ChangeKeys, KickKey, ListKeys, Locate, ReadKey, RestoreKeys
from db.access.subscriptions import mark_revoked
from db.billing.invariants import check_invariants
from db.billing.purchases import record_manual_purchase, record_manual_topup
from db.billing.renewals import set_auto_renew
from db.customers import add_customer
from db.money import Money
from db.schema.demo_clock import set_clock_offset
from db.tx import Tx
from demo.front_end import Declined, FrontEnd
from demo.providers import Providers
from runtime import AdministrationError, AskError, ChildStarted, Event, PeriodicWorker, Request, System, WakeUp
from runtime.http import Timeouts, new_client
from simulators.delivery import Event as Delivery
from tests.e2e.chaos_board import Board, News, board
from tests.e2e.clerk import Away, Clerk, clerk
from vpn.errors import NodeError

T = TypeVar("T")

SHOP_SECRET: Final = "a-secret-of-this-campaign-of-32-characters"
PATIENCE: Final = 60.0
"Seconds after which something that has not come is not going to come."
STEP: Final = timedelta(days=29, hours=18, minutes=30)
"From round to round: a plan of 30 days that was bought in one is to be renewed, or reminded of, in the next."
PRICE: Final = 14900
AT_ONCE: Final = ("postgres", "admin", "pool.gateway")
"Who is killed at any moment as well: nothing that they do, or hardly anything, is a boundary."


def environment(outside: Providers) -> dict[str, str]:
    """What the installation needs for all this to happen."""
    return {
        **outside.environment,
        "ATLAS__DATABASE__PURPOSE": "test",  # its clock may be moved
        "ATLAS__SHOP__KEYS": f"town {SHOP_SECRET}",
        "ATLAS__PAYMENTS__TELEGRAM__MODE": "polling",
        "ATLAS__GATEWAY__RATE": "10000",
        "ATLAS__GATEWAY__BURST": "10000",
    }


@attrs.define
class Town:
    """Its customers, and what has to be true of them at the end of a round."""

    system: System
    clerk: Clerk
    board: Board
    outside: Providers
    http: httpx.AsyncClient
    chance: random.Random
    kills_at_once: int = 0
    charges: int = 0
    "Captured charges so far; each is one money-in."
    purchases: int = 0
    renewals: int = 0
    _rounds: int = 0
    _keeper: int | None = None
    _lapser: int | None = None

    async def round(self) -> None:
        """A month passes, and then everybody acts at the same time."""
        self._rounds += 1
        offset = STEP * (self._rounds - 1)
        await self.persist(lambda tx: set_clock_offset(tx, offset))
        unsubscribe = self.system.services.events.subscribe(self._wake_again)
        deeds = [self._buy_and_leave, self._pay_crypto, self._check_out, self._pay_unheard]
        deeds += [self._renew, self._lapse, self._ask_around, self._kill_at_once]
        try:
            self._wake()
            async with trio.open_nursery() as nursery:
                for deed in deeds:
                    nursery.start_soon(self._in_time, deed)
            await self._in_time(self._all_told)
        finally:
            unsubscribe()

    async def check(self) -> None:
        """The ledger is whole; every captured charge is one money-in, every purchase one journal and one entitlement."""

        async def look(tx: Tx) -> tuple[list[str], dict[str, int]]:
            broken = [str(invariant) for invariant in await check_invariants(tx) if not invariant.holds]
            counts = await tx.fetchrow(
                """
                SELECT (SELECT count(*) FROM money_in) AS charges,
                       (SELECT count(*) FROM journals WHERE kind = 'purchase') AS purchases,
                       (SELECT count(*) FROM entitlement_events WHERE kind = 'grant' AND source = 'payment') AS grants,
                       (SELECT count(*) FROM renewals) AS renewals,
                       (SELECT count(*) FROM cases) AS cases
                """
            )
            assert counts is not None
            return broken, {name: counts[name] for name in ("charges", "purchases", "grants", "renewals", "cases")}

        await self._rest()
        broken, counts = await self.persist(look)
        assert broken == [], broken
        assert counts == {
            "charges": self.charges,
            "purchases": self.purchases,
            "grants": self.purchases,
            "renewals": self.renewals,
            "cases": 0,
        }

    async def _rest(self) -> None:
        """Some of it holds only at rest: let whoever compares nodes end what it has begun."""

        async def look(tx: Tx) -> bool:
            return all(invariant.holds for invariant in await check_invariants(tx) if invariant.at_rest)

        async def settle() -> None:
            while not await self.persist(look):
                self.system.registry.lookup("reconcile").tell(WakeUp())
                await trio.testing.wait_all_tasks_blocked(0.05)

        await self._in_time(settle)

    # --- customers ---------------------------------------------------------------------------------------------------

    async def _buy_and_leave(self) -> None:
        """An operator records a payment, and takes the access away again."""
        who = await self._buy()
        await self._until_key(who, "active")
        await self._revoke(who)

    async def _pay_crypto(self) -> None:
        """A provider tells the gateway of a payment, until the gateway says that it heard."""
        who = self._somebody()
        invoice = await self._invoice(who, "cryptobot")
        await self._deliver("cryptobot", self.outside.cryptobot.pay(int(invoice)))
        await self._until_bought(who)

    async def _check_out(self) -> None:
        """A checkout and a payment that the bot has to fetch."""
        who = self._somebody()
        link = await self._invoice(who, "telegram")
        while not await self._may_pay(who, link):
            pass
        self.outside.telegram.pay(who, link)
        await self._until_bought(who)

    async def _may_pay(self, who: int, link: str) -> bool:
        """One checkout. Telegram gives up after ten seconds, and the customer presses the button again."""
        asked = self.outside.telegram.check_out(who, link)
        try:
            return (await self.outside.telegram.answer_to(asked)).get("ok") is True
        except trio.TooSlowError:
            return False

    async def _pay_unheard(self) -> None:
        """A payment that nobody tells of: whoever watches invoices finds it."""
        who = self._somebody()
        self.outside.yookassa.pay(await self._invoice(who, "yookassa"))

        async def look() -> bool:
            # A look that came before the payment has put the next one off.
            await self.persist(_make_invoices_due)
            self._tell("payment_watcher")
            return self.board.snapshot.key(who) is not None

        await News(self.system).until(look)
        await self._until_bought(who)

    async def _renew(self) -> None:
        """Who bought last month with automatic renewal is renewed once, and leaves; somebody else comes."""
        if self._keeper is not None:
            keeper = self._keeper
            await self.board.until(lambda now: keeper in now.people and now.people[keeper].renewed)
            self.renewals += 1
            await self._revoke(self._keeper)
        self._keeper = await self._buy(auto_renew=True)
        await self._until_key(self._keeper, "active")

    async def _lapse(self) -> None:
        """Who bought last month and does nothing is reminded of the end."""
        if self._lapser is not None:
            lapser = self._lapser
            await self.board.until(lambda now: lapser in now.people and now.people[lapser].reminded)
            await self._revoke(self._lapser)
        self._lapser = await self._buy()
        await self._until_key(self._lapser, "active")

    async def _all_told(self) -> None:
        """Every message has left, and whatever was to be removed is."""
        await self.board.until(lambda now: now.busy == 0)

    # --- operators ---------------------------------------------------------------------------------------------------

    async def _ask_around(self) -> None:
        """What actors ask each other only when they start, or when a node has drifted."""
        with contextlib.suppress(AskError):
            await self.system.registry.lookup("agent.local").ask(Locate(), within=5)
        await self._ask_node(ListKeys("", 10))
        await self._ask_node(ReadKey("k-unknown"))
        await self._ask_node(ChangeKeys(()))
        await self._ask_node(RestoreKeys(()))
        await self._ask_node(KickKey("k-unknown"))

    async def _ask_node(self, request: Request[T]) -> None:
        with contextlib.suppress(AskError, NodeError):
            await self.system.registry.lookup("node.local").ask(request, within=5)

    async def _kill_at_once(self) -> None:
        """In every third round, one of those who pass no boundary."""
        if self._rounds % 3 == 0:
            with contextlib.suppress(AdministrationError):  # it is between two lives
                self.system.operations.kill(self.chance.choice(AT_ONCE), "killed by the campaign")
                self.kills_at_once += 1

    def _wake(self) -> None:
        for plan in self.system.plans.values():
            if issubclass(plan.actor, PeriodicWorker):
                self._tell(plan.name)

    def _wake_again(self, event: Event) -> None:
        """A new incarnation, and after one of the database or a pool everybody, looks at once: intervals are for production."""
        if isinstance(event, ChildStarted):
            self._wake()

    def _tell(self, name: str) -> None:
        self.system.registry.lookup(name).tell(WakeUp())

    # --- how -----------------------------------------------------------------------------------------------------------

    async def persist(self, function: Callable[[Tx], Awaitable[T]]) -> T:
        """What a shop does: repeat until the answer is known. Every function here may be repeated."""
        answers: list[T] = []

        async def try_once() -> bool:
            try:
                answers.append(await self.clerk.run(function))
            except Away:
                return False
            return True

        await News(self.system).until(try_once)
        return answers[0]

    async def _in_time(self, deed: Callable[[], Awaitable[object]]) -> None:
        with trio.move_on_after(PATIENCE) as patience:
            await deed()
        if patience.cancelled_caught:
            raise AssertionError(f"{deed.__name__} waits for ever; the system's last words:\n{self._last_words()}")

    def _last_words(self) -> str:
        children = [f"{address.name}: {address.inspect()}" for address in self.system.addresses.values()]
        told = [f"{record.at:.3f} {record.event.line()}" for record in self.system.services.events.records(60)]
        return "\n".join([*told, *children])

    def _somebody(self) -> int:
        self.board.newest += 1
        return self.board.newest

    async def _buy(self, *, auto_renew: bool = False) -> int:
        who = self._somebody()

        async def buy(tx: Tx) -> None:
            await add_customer(tx, who)
            await record_manual_purchase(tx, who, "basic", 30, "manual", f"c-{who}", Money(PRICE))
            if auto_renew:
                await record_manual_topup(tx, who, "manual", f"t-{who}", Money(PRICE))
                await set_auto_renew(tx, who, True, actor="test")

        await self.persist(buy)
        self.charges += 2 if auto_renew else 1
        self.purchases += 1
        return who

    async def _revoke(self, who: int) -> None:
        await self.persist(lambda tx: mark_revoked(tx, who, actor="test"))
        await self._until_key(who, "removed")

    async def _until_bought(self, who: int) -> None:
        await self._until_key(who, "active")
        self.charges += 1
        self.purchases += 1
        await self._revoke(who)

    async def _until_key(self, who: int, status: str) -> None:
        await self.board.until(lambda now: now.key(who) == status)

    async def _invoice(self, who: int, provider: str) -> str:
        """The shop's front end opens an order and its invoice; repeated until it is answered."""
        customer = f"/customers/{who}"
        await self._shop("PUT", customer, {"language": "ru"})
        order = {"idempotency_key": f"o-{who}", "provider": provider, "tariff": "basic", "days": 30}
        order_id = (await self._shop("POST", f"{customer}/orders", order))["order_id"]
        invoice = await self._shop(
            "POST", f"{customer}/orders/{order_id}/invoice", {"provider": provider, "price": 14_900}
        )
        return str(invoice["pay_url" if provider == "telegram" else "invoice_id"])

    async def _shop(self, method: str, path: str, body: dict[str, object]) -> dict[str, object]:
        answers: list[dict[str, object]] = []

        async def try_once() -> bool:
            try:
                front_end = FrontEnd(self.http, self._gateway(), "town", SHOP_SECRET)
                answers.append(await front_end.ask(method, path, body))
            except Declined as error:
                if error.status < 500:
                    raise
                return False
            except httpx.HTTPError:
                return False
            return True

        await News(self.system).until(try_once)
        return answers[0]

    async def _deliver(self, provider: str, delivery: Delivery) -> None:
        async def try_once() -> bool:
            url = f"{self._gateway()}/payments/{provider}"
            try:
                answer = await self.http.post(url, content=delivery.body, headers=delivery.headers)
            except httpx.HTTPError:
                return False
            assert answer.status_code < 400 or answer.status_code >= 500, answer.text
            return answer.is_success

        await News(self.system).until(try_once)

    def _gateway(self) -> str:
        """Where it listens now: each incarnation takes a free port here. Nowhere, while none is up."""
        return self.system.addresses["gateway"].facts.get("listening", "http://127.0.0.1:9")


async def _make_invoices_due(tx: Tx) -> None:
    await tx.execute("UPDATE invoices SET next_attempt_at = atlas_now() WHERE state = 'open' AND watched")


@asynccontextmanager
async def town(system: System, dsn: str, outside: Providers, seed: int) -> AsyncIterator[Town]:
    """A town in front of a running system."""
    async with (
        # The gateway dies amid bodies: httpx's own client would leave them to the garbage collector, with a warning.
        new_client(timeouts=Timeouts(10.0, 10.0, 10.0, 10.0)) as http,
        clerk(dsn) as clerk_,
        board(system, clerk_) as board_,
    ):
        yield Town(system, clerk_, board_, outside, http, random.Random(seed))
