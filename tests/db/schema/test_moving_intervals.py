"""A database of before gets the interval that each grant owns: derived from the events, against a model that counts hours."""

import json
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import count

import attrs
import pytest

from db.schema import moving_over
from db.schema.migrate import load_migrations, migrate
from db.schema.moving_over import move_next_page
from tests.db.database import Connection, Database

pytestmark = pytest.mark.unchecked_money("made by hand; each test looks at the views itself")

BEGAN = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=400)
NOW = 400 * 24
"""The hour of the move, counted from `BEGAN`."""
RANKS = {"basic": 10, "plus": 20}
PRICE = {"basic": 14900, "plus": 29900}
SECTIONS = 16
"""The migrations that were released before intervals."""


def at(hour: float) -> datetime:
    return BEGAN + timedelta(hours=hour)


@attrs.define
class Held:
    """One grant, in hours."""

    event: int
    tariff: str
    left: int
    taken: int = 0


@attrs.define
class Customer:
    """What the rules of before say, hour by hour; and the rows that they wrote."""

    connection: Connection
    id: int
    subscription: int = 0
    hour: int = 0
    end: int | None = None
    position: int = 0
    held: list[Held] = attrs.field(factory=list)
    charges: dict[str, Held] = attrs.field(factory=dict)

    def wait(self, hours: int) -> None:
        """Each hour is used of the best tariff, of the oldest grant."""
        for _ in range(hours):
            best = min(
                (each for each in self.held if each.left), key=lambda one: (-RANKS[one.tariff], one.event), default=None
            )
            if best is not None:
                best.left -= 1
            self.hour += 1

    async def buy(self, charge: str, tariff: str = "basic", hours: int = 720, cost: int | None = None) -> Held:
        amount = PRICE[tariff] if cost is None else cost
        order = await self.fetch(
            """
            INSERT INTO orders (customer_id, kind, tariff, days, list_amount, price_amount, quoted_amount, quoted_asset,
                                quoted_rate, idempotency_key, state, paid_from, paid_at, expires_at)
            VALUES ($1, 'subscription', $2, 30, $3, $3, $3, 'RUB', 1, $4, 'paid', 'provider', $5, $5) RETURNING id
            """,
            self.id, tariff, amount, charge, at(self.hour),
        )  # fmt: skip
        money = await self.fetch(
            """
            INSERT INTO money_in (provider, charge_id, customer_id, order_id, amount, asset, booked_amount)
            VALUES ('test', $1, $2, $3, $4, 'RUB', $4) RETURNING id
            """,
            charge, self.id, order, amount,
        )  # fmt: skip
        journal = await self.post("purchase", f"purchase:{order}", ("world", "revenue"), amount, order, money)
        held = await self.grant("payment", tariff, hours, order, money, journal)
        self.charges[charge] = held
        return held

    async def grant(self, source: str, tariff: str, hours: int, *facts: int | None) -> Held:
        new_end = max(self.hour, self.end or 0) + hours
        if not self.subscription:
            self.subscription = await self.fetch(
                "INSERT INTO subscriptions (customer_id, tariff, source, state, expires_at) "
                "VALUES ($1, $2, $3, 'active', $4) RETURNING id",
                self.id, tariff, source, at(new_end),
            )  # fmt: skip
        event = await self.event("grant", source, tariff, hours, new_end, *facts)
        self.held.append(Held(event, tariff, hours))
        return self.held[-1]

    async def cut(self, kind: str) -> None:
        for each in self.held:
            each.taken, each.left = each.taken + each.left, 0
        await self.event(kind, "admin", "basic", None, min(self.end or 0, self.hour))

    async def refund(self, charge: str) -> None:
        """Of before: what was left of the tariff, at most the period; of its own grant first, then of the newest."""
        own = self.charges[charge]
        amount, money = PRICE[own.tariff], await self.fetch("SELECT id FROM money_in WHERE charge_id = $1", charge)
        period = await self.fetch(
            "SELECT extract(epoch FROM period)::int / 3600 FROM entitlement_events WHERE id = $1", own.event
        )
        open_hours = min(period, sum(each.left for each in self.held if each.tariff == own.tariff))
        taken = open_hours
        for each in (own, *(one for one in reversed(self.held) if one is not own and one.tariff == own.tariff)):
            part = min(each.left, open_hours)
            each.left, each.taken, open_hours = each.left - part, each.taken + part, open_hours - part
        journal = await self.post("refund", f"refund:{charge}", ("revenue", "world"), amount, None, money)
        event = None
        if taken:
            event = await self.event("refund", "payment", own.tariff, taken, (self.end or 0) - taken)
        await self.connection.execute(
            "INSERT INTO refunds (money_in_id, journal_id, idempotency_key, amount, currency, actor, event_id) "
            "VALUES ($1, $2, $3, $4, 'RUB', 'o', $5)",
            money, journal, charge, amount, event,
        )  # fmt: skip

    async def compensate(self, amount: int) -> int:
        await self.cut("compensation")
        key = f"compensation:{self.subscription}:{self.position}"
        return await self.post("compensation", key, ("compensation_expense", "customer"), amount)

    async def event(
        self, kind: str, source: str, tariff: str, hours: int | None, new_end: int,
        order: int | None = None, money: int | None = None, journal: int | None = None,
    ) -> int:  # fmt: skip
        self.position += 1
        await self.connection.execute(
            "UPDATE subscriptions SET expires_at = $2, state = $3 WHERE id = $1",
            self.subscription, at(new_end), "active" if kind == "grant" else "revoked",
        )  # fmt: skip
        number = await self.fetch(
            """
            INSERT INTO entitlement_events (subscription_id, position, kind, source, tariff, period, previous_end, new_end,
                                            order_id, money_in_id, journal_id, actor, created_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'o', $12) RETURNING id
            """,
            self.subscription, self.position, kind, source, tariff, None if hours is None else timedelta(hours=hours),
            None if self.end is None else at(self.end), at(new_end), order, money, journal, at(self.hour),
        )  # fmt: skip
        self.end = new_end
        return number

    async def post(
        self,
        kind: str,
        key: str,
        accounts: tuple[str, str],
        amount: int,
        order: int | None = None,
        money: int | None = None,
    ) -> int:
        journal = await self.fetch(
            "INSERT INTO journals (kind, idempotency_key, customer_id, order_id, money_in_id) "
            "VALUES ($1, $2, $3, $4, $5) RETURNING id",
            kind, key, self.id, order, money,
        )  # fmt: skip
        await self.connection.execute(
            """
            INSERT INTO postings (journal_id, account_id, currency, amount)
            SELECT $1, a.id, 'RUB', leg.amount FROM (VALUES ($2, -$4::bigint), ($3, $4)) AS leg (kind, amount)
            JOIN accounts a ON a.kind = leg.kind AND (a.customer_id = $5 OR a.customer_id IS NULL)
            """,
            journal, *accounts, amount, self.id,
        )  # fmt: skip
        return journal

    async def fetch(self, query: str, *values: object) -> int:
        number: int = await self.connection.fetchval(query, *values)
        return number

    @property
    def expected(self) -> dict[int, tuple[int, datetime]]:
        """By event: the hours taken, and when it ends, for those of which something is left."""
        ends, hour = {}, self.hour
        for each in sorted(self.held, key=lambda one: (-RANKS[one.tariff], one.event)):
            hour += each.left
            if each.left:
                ends[each.event] = (each.taken, at(hour))
        return ends


class OldShop:
    """A database of the released migrations, and customers who did things under the rules of before."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._numbers = count(1)

    async def customer(self) -> Customer:
        number = await self.connection.fetchval(
            "INSERT INTO customers (telegram_id) VALUES ($1) RETURNING id", next(self._numbers)
        )
        await self.connection.execute(
            "INSERT INTO accounts (kind, customer_id, currency, balance) VALUES ('customer', $1, 'RUB', 0)", number
        )
        return Customer(self.connection, number)

    async def move(self) -> None:
        await migrate(self.connection)

    async def intervals(self, customer: Customer) -> dict[int, tuple[int, datetime]]:
        rows = await self.connection.fetch(
            "SELECT event_id, taken, ends_at FROM entitlement_intervals WHERE subscription_id = $1 AND ends_at > $2",
            customer.subscription, at(NOW),
        )  # fmt: skip
        return {row["event_id"]: (row["taken"] // timedelta(hours=1), row["ends_at"]) for row in rows}

    async def problems(self) -> list[str]:
        rows = await self.connection.fetch(
            "SELECT subject || ' ' || problem AS it FROM money_i08_refunds_within_captured"
        )
        rows = [
            *rows,
            *await self.connection.fetch("SELECT subject || ' ' || problem AS it FROM money_i09_ends_follow_events"),
        ]
        return [row["it"] for row in rows]

    async def cases(self) -> list[tuple[str, str, dict[str, object]]]:
        rows = await self.connection.fetch("SELECT kind, subject, details::text AS details FROM cases ORDER BY id")
        return [(row["kind"], row["subject"], json.loads(row["details"])) for row in rows]


@pytest.fixture
async def shop(empty_database: Database) -> AsyncIterator[OldShop]:
    async with empty_database.connect() as connection:
        await migrate(connection, purpose="test", migrations=load_migrations()[:SECTIONS])
        yield OldShop(connection)


async def test_random_histories_are_derived_as_hours_are_counted(shop: OldShop) -> None:
    chance = random.Random(7)
    customers = []
    for number in range(60):
        customer = await shop.customer()
        await shop.connection.execute("BEGIN")
        charges = [f"{number}-{k}" for k in range(12)]
        while customer.hour < NOW:
            customer.wait(min(NOW - customer.hour, chance.choice((1, 30, 200, 900, 3000))))
            what = chance.choice(("buy", "buy", "gift", "refund", "revoke")) if customer.subscription else "buy"
            if what == "buy" and charges:
                await customer.buy(charges.pop(), chance.choice(("basic", "plus")), chance.choice((720, 2160, 8760)))
            elif what == "gift":
                await customer.grant("admin", chance.choice(("basic", "plus")), chance.choice((24, 72)))
            elif what == "refund" and (paid := [name for name in customer.charges if name]):
                await customer.refund(name := chance.choice(paid))
                del customer.charges[name]
            elif what == "revoke" and chance.random() < 0.3:
                await customer.cut("revoke")
        await shop.connection.execute("COMMIT")
        customers.append(customer)
    await shop.move()
    for customer in customers:
        assert await shop.intervals(customer) == customer.expected
    assert await shop.problems() == []
    assert {kind for kind, _, _ in await shop.cases()} <= {"interval_strangers"}


async def test_time_of_others_that_a_refund_took_is_told_with_its_hours(shop: OldShop) -> None:
    customer = await shop.customer()
    await shop.connection.execute("BEGIN")
    first = await customer.buy("first")
    customer.wait(720)
    second = await customer.buy("second")
    customer.wait(100)
    await customer.refund("first")
    await shop.connection.execute("COMMIT")
    await shop.move()
    [(kind, subject, details)] = await shop.cases()
    assert (kind, subject) == ("interval_strangers", f"subscription:{customer.subscription}")
    assert isinstance(details["refunds"], list)
    told = [(refund["of_event"], refund["hours_of_events"]) for refund in details["refunds"]]
    assert told == [(first.event, {str(second.event): 620.0})]
    assert await shop.problems() == []


async def test_what_a_compensation_gave_back_is_divided_where_the_amounts_leave_one_way(shop: OldShop) -> None:
    whole, timely, twice = await shop.customer(), await shop.customer(), await shop.customer()
    await shop.connection.execute("BEGIN")
    events = [(await whole.buy("w1")).event, (await whole.buy("w2", "plus")).event]
    whole.wait(48)
    one = await whole.compensate(14900 + 29900)
    events.append((await timely.buy("t")).event)
    timely.wait(240)
    other = await timely.compensate(14900 * 480 // 720)
    await twice.buy("d1")
    await twice.buy("d2")
    twice.wait(48)
    third = await twice.compensate(12345)
    await shop.connection.execute("COMMIT")
    await shop.move()
    rows = await shop.connection.fetch("SELECT journal_id, event_id, amount FROM compensation_parts ORDER BY event_id")
    expected = [(one, events[0], 14900), (one, events[1], 29900), (other, events[2], 9933)]
    assert [(row["journal_id"], row["event_id"], row["amount"]) for row in rows] == expected
    [(kind, subject, details)] = await shop.cases()
    assert (kind, subject, details["amount"]) == ("compensation_split", f"journal:{third}", 12345), (
        "a case, never a guess"
    )
    assert await shop.problems() == []


async def test_an_end_that_the_events_do_not_lead_to_is_a_case_with_both(shop: OldShop) -> None:
    customer = await shop.customer()
    await shop.connection.execute("BEGIN")
    await customer.buy("first")
    await shop.connection.execute("COMMIT; BEGIN")
    await shop.connection.execute("SET LOCAL session_replication_role = replica")
    await shop.connection.execute("UPDATE subscriptions SET expires_at = $1", at(9000))
    await shop.connection.execute("COMMIT")
    await shop.move()
    [(kind, _, details)] = await shop.cases()
    assert (kind, details["stored"], details["derived"]) == ("interval_move", str(at(9000)), str(at(720)))


async def test_a_move_that_died_between_pages_goes_on_and_moves_nobody_twice(
    shop: OldShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    customers = [await shop.customer() for _ in range(7)]
    await shop.connection.execute("BEGIN")
    for number, customer in enumerate(customers):
        await customer.buy(f"c{number}", hours=12_000)
        customer.wait(NOW)
    await shop.connection.execute("COMMIT")
    pages = 0

    async def dies(tx: Connection) -> bool:
        nonlocal pages
        pages += 1
        if pages % 2:
            raise ConnectionError("the process was killed")
        return await move_next_page(tx, limit=2)

    monkeypatch.setattr("db.schema.migrate.move_next_page", dies)
    while True:
        try:
            await shop.move()
        except ConnectionError:
            await shop.connection.execute("ROLLBACK")
        else:
            break
    assert pages > 2 * len(moving_over.STEPS) * 3
    for customer in customers:
        assert await shop.intervals(customer) == customer.expected
    assert await shop.problems() == []
