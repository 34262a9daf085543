"""A seeded mix of money operations whose outcome does not depend on who is faster, run by clients that keep dying.

Every job is repeated until it has been answered once, as a customer's front end or a provider does, and many jobs say the
same thing twice. Whatever the order, the totals are known beforehand.
"""

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import asyncpg
import attrs
import trio
import trio_asyncio

from db.adjustments import adjust_balance
from db.balance_purchases import finalize_balance_purchase
from db.cases import credit_case
from db.errors import BusinessError
from db.money import Money
from db.orders import open_order, open_topup
from db.promos import add_promo
from db.purchases import FinalizePurchase, finalize_purchase
from db.refunds import refund_charge
from db.tx import Tx
from db.withdrawals import approve_withdrawal, list_withdrawals, request_withdrawal
from tests.db.database import Connection, Database

CONNECTIONS = 8
CLIENTS = 24
CRASHES = 0.25
"""Of all attempts, how many die on the way."""

Work = Callable[[Tx], Awaitable[object]]


class Crashed(Exception):
    """The client's connection died, before or after the commit."""


@attrs.define
class Crashing(Connection):
    """A connection that dies before its n-th statement, cut by the client or by the server; COMMIT counts."""

    raw: Any
    statements_left: int
    by_server: Callable[[int], Awaitable[None]] | None

    async def fetch(self, query: str, /, *args: object) -> Any:
        await self._count()
        return await super().fetch(query, *args)

    async def fetchrow(self, query: str, /, *args: object) -> Any:
        await self._count()
        return await super().fetchrow(query, *args)

    async def fetchval(self, query: str, /, *args: object) -> Any:
        await self._count()
        return await super().fetchval(query, *args)

    async def execute(self, query: str, /, *args: object) -> str:
        await self._count()
        return await super().execute(query, *args)

    async def _count(self) -> None:
        self.statements_left -= 1
        if self.statements_left >= 0:
            return
        if self.by_server is not None:
            await self.by_server(self.raw.get_server_pid())
        self.raw.terminate()
        raise Crashed


@attrs.define
class Torture:
    """One run over one database."""

    database: Database
    seed: int
    serializable: bool = False
    seen: Counter[str] = attrs.field(factory=Counter)
    _dice: random.Random = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._dice = random.Random(self.seed)

    async def run(self, jobs: Sequence[Work]) -> None:
        """Let the clients do all jobs, in a seeded order, each until it has been answered."""
        order = list(jobs)
        self._dice.shuffle(order)
        queue = iter(order)
        give, take = trio.open_memory_channel[Connection](CONNECTIONS)
        for _ in range(CONNECTIONS):
            await give.send(await self._connect())

        async def client() -> None:
            for job in queue:
                while not await self._attempt(job, give, take):
                    pass

        try:
            async with trio.open_nursery() as nursery:
                for _ in range(CLIENTS):
                    nursery.start_soon(client)
        finally:
            for _ in range(CONNECTIONS):
                take.receive_nowait().raw.terminate()

    async def _attempt(
        self, job: Work, give: trio.MemorySendChannel[Connection], take: trio.MemoryReceiveChannel[Connection]
    ) -> bool:
        connection = await take.receive()
        tx, dies_after_commit = self._doomed(connection)
        try:
            await connection.execute(
                f"BEGIN ISOLATION LEVEL {'SERIALIZABLE' if self.serializable else 'READ COMMITTED'}"
            )
            try:
                await job(tx)
            except BusinessError as refusal:
                await connection.execute("ROLLBACK")
                self.seen[type(refusal).__name__] += 1
                return True
            await connection.execute("COMMIT")
            if dies_after_commit:
                connection.raw.terminate()
                self.seen["died after the commit"] += 1
                return False
            self.seen["done"] += 1
            return True
        except Crashed:
            self.seen["died on the way"] += 1
            return False
        except asyncpg.PostgresError as error:
            self.seen[error.sqlstate or "?"] += 1
            if not self.serializable or error.sqlstate not in ("40001", "40P01"):
                raise
            await connection.execute("ROLLBACK")
            return False
        finally:
            with trio.CancelScope(shield=True):
                alive = connection if not connection.raw.is_closed() else await self._connect()
                await give.send(alive)

    def _doomed(self, connection: Connection) -> tuple[Tx, bool]:
        if self._dice.random() >= CRASHES:
            return connection, False
        step = self._dice.randrange(14)
        if step > 11:
            return connection, True
        by_server = self._kill if self._dice.random() < 0.5 else None
        return Crashing(connection.raw, step, by_server), False

    async def _kill(self, pid: int) -> None:
        # Waits until the backend is gone, as a crash is only over when its locks are.
        async with self.database.connect() as control:
            await control.execute("SELECT pg_terminate_backend($1, 5000)", pid)

    async def _connect(self) -> Connection:
        return Connection(await trio_asyncio.aio_as_trio(asyncpg.connect)(self.database.dsn))


@attrs.frozen
class Mix:
    """The jobs and what they add up to."""

    jobs: Sequence[Work]
    totals: dict[str, int]
    """Sum per system account and of all balances, and how many journals of each kind."""


async def prepare(database: Database, size: int = 1) -> Mix:
    """Customers, orders and funds, and the jobs upon them; ``size`` multiplies."""
    jobs: list[Work] = []
    totals: Counter[str] = Counter()

    def add(times: int, work: Work) -> None:
        jobs.extend([work] * times)

    def count(kind: str, number: int, **moves: int) -> None:
        if kind:
            totals[f"journals {kind}"] += number
        for account, amount in moves.items():
            totals[account] += number * amount

    await _payers(database, size, add, count)
    await _spenders(database, size, add, count)
    await _withdrawers(database, size, add, count)
    await _refunded(database, size, add, count)
    await _promos(database, size, add, count)
    await _strangers(database, size, add, count)
    return Mix(jobs, {name: value for name, value in totals.items() if value})


Add = Callable[[int, Work], None]
Count = Callable[..., None]


async def _payers(database: Database, size: int, add: Add, count: Count) -> None:
    """Friends who refer to each other in rings of three buy and top up; every charge is reported three times."""
    for ring in range(2 * size):
        people = [10_000 + 10 * ring + number for number in range(3)]
        ids = [(await database.add_customer(telegram_id)).id for telegram_id in people]
        async with database.connect() as connection:
            for number, own in enumerate(ids):
                # Registration cannot make a cycle; data that was taken over from elsewhere can.
                await connection.execute("UPDATE customers SET referrer_id = $1 WHERE id = $2", ids[number - 1], own)
        for telegram_id in people:
            for number in range(2):
                key = f"buy-{telegram_id}-{number}"
                order = await database.run(open_order, telegram_id, "basic", 30, idempotency_key=key)
                add(3, _pay(key, 14_900, order.id))
                count("purchase", 1, world=-14_900, revenue=14_900)
                count("referral_reward", 1, referral_expense=-1_490, customer=1_490)
            key = f"top-{telegram_id}"
            topup = await database.run(open_topup, telegram_id, Money(20_000), idempotency_key=key)
            add(3, _pay(key, 20_000, topup.id))
            count("topup", 1, world=-20_000, customer=20_000)
            count("referral_reward", 1, referral_expense=-2_000, customer=2_000)


async def _spenders(database: Database, size: int, add: Add, count: Count) -> None:
    """Who has money for three plans asks for five at once, each twice: three are bought, nothing is overdrawn."""
    for number in range(3 * size):
        telegram_id = 20_000 + number
        await _fund(database, telegram_id, 3 * 14_900 + 5_000, count)
        for click in range(5):
            add(2, _spend(telegram_id, f"click-{click}"))
        count("balance_purchase", 3, customer=-14_900, revenue=14_900)


async def _withdrawers(database: Database, size: int, add: Add, count: Count) -> None:
    """Who has 2 000 roubles asks for 600 five times, each twice, while an operator approves what there is."""
    for number in range(2 * size):
        telegram_id = 30_000 + number
        await _fund(database, telegram_id, 200_000, count)
        for ask in range(5):
            add(2, _withdraw(telegram_id, f"ask-{ask}"))
        count("withdrawal_reserve", 3, customer=-60_000, withdrawal_reserve=60_000)
        count("withdrawal_paid", 3, withdrawal_reserve=-60_000, world=60_000)
    add(4, approve_all)


async def _refunded(database: Database, size: int, add: Add, count: Count) -> None:
    """Of a charge of 149 roubles five refunds of 40 are asked for at once: three fit; the reward shrinks with them."""
    for number in range(2 * size):
        referrer, friend = 40_000 + 10 * number, 40_001 + 10 * number
        await database.add_customer(referrer)
        await database.add_customer(friend, referrer=referrer)
        await database.buy(friend, charge_id=f"refunded-{number}")
        count("purchase", 1, world=-14_900, revenue=14_900)
        count("referral_reward", 1, referral_expense=-1_490, customer=1_490)
        for part in range(5):
            add(2, _refund(f"refunded-{number}", f"part-{number}-{part}"))
        count("refund", 3, revenue=-4_000, world=4_000)
        count("referral_clawback", 3)
        count("", 1, customer=-1_200, referral_expense=1_200)


async def _promos(database: Database, size: int, add: Add, count: Count) -> None:
    """Six customers want a code that three may use: three orders are opened and paid."""
    for number in range(size):
        code = f"code{number}"
        await database.run(add_promo, code, 50, max_uses=3, actor="test")
        for person in range(6):
            telegram_id = 50_000 + 10 * number + person
            await database.add_customer(telegram_id)
            add(2, _buy_with_promo(telegram_id, code))
        count("purchase", 3, world=-7_450, revenue=7_450)


async def _strangers(database: Database, size: int, add: Add, count: Count) -> None:
    """Money of nobody known is parked, and two operators credit it to two customers at once: one of them gets it."""
    await database.add_customer(60_001)
    await database.add_customer(60_002)
    for number in range(2 * size):
        parked = await database.run(
            finalize_purchase, FinalizePurchase("test", f"stranger-{number}", Money(5_000), None, 1)
        )
        assert parked.case_id is not None
        count("suspense", 1, world=-5_000, suspense=5_000)
        for telegram_id in (60_001, 60_002):
            add(2, _credit(parked.case_id, telegram_id))
        count("case_credit", 1, suspense=-5_000, customer=5_000)


async def _fund(database: Database, telegram_id: int, kopecks: int, count: Count) -> None:
    await database.add_customer(telegram_id)
    await database.run(
        adjust_balance, telegram_id, Money(kopecks), reason="x", actor="test", idempotency_key=f"fund-{telegram_id}"
    )
    count("admin_adjust", 1, adjustment=-kopecks, customer=kopecks)


def _pay(charge_id: str, kopecks: int, order_id: int) -> Work:
    return lambda tx: finalize_purchase(tx, FinalizePurchase("test", charge_id, Money(kopecks), order_id))


def _spend(telegram_id: int, key: str) -> Work:
    return lambda tx: finalize_balance_purchase(tx, telegram_id, "basic", 30, idempotency_key=key)


def _withdraw(telegram_id: int, key: str) -> Work:
    return lambda tx: request_withdrawal(tx, telegram_id, Money(60_000), destination="card", idempotency_key=key)


async def approve_all(tx: Tx) -> None:
    """Approve what waits, under the withdrawal's own reference."""
    for found in await list_withdrawals(tx):
        await approve_withdrawal(tx, found.id, actor="test", reference=f"bank-{found.id}")


def _refund(charge_id: str, key: str) -> Work:
    return lambda tx: refund_charge(tx, "test", charge_id, amount=Money(4_000), actor="test", idempotency_key=key)


def _buy_with_promo(telegram_id: int, code: str) -> Work:
    async def work(tx: Tx) -> None:
        key = f"promo-{telegram_id}"
        order = await open_order(tx, telegram_id, "basic", 30, idempotency_key=key, promo_code=code)
        await finalize_purchase(tx, FinalizePurchase("test", key, order.price, order.id))

    return work


def _credit(case_id: int, telegram_id: int) -> Work:
    return lambda tx: credit_case(tx, case_id, telegram_id, actor="test")


async def totals(database: Database) -> dict[str, int]:
    """What the ledger holds, in the words of ``Mix.totals``."""
    async with database.connect() as connection:
        rows = await connection.fetch(
            """
            SELECT a.kind AS name, sum(p.amount)::bigint AS total
            FROM postings p JOIN accounts a ON a.id = p.account_id GROUP BY a.kind
            UNION ALL
            SELECT 'journals ' || kind, count(*) FROM journals GROUP BY kind
            """
        )
    return {row["name"]: row["total"] for row in rows if row["total"]}
