"""Everything that customers, providers and operators do, in any order, against the model: ends, purses, rewards, withdrawals.

`ATLAS_MODEL_SEQUENCES` says how many sequences (`make model`), `ATLAS_MODEL_SEED` which ones (`make soak` runs others for hours).
A failing one is shrunk, and kept by Hypothesis in `.hypothesis`.
"""

import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count

import attrs
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from db.access.subscriptions import mark_revoked
from db.billing.adjustments import adjust_balance
from db.billing.balance_purchases import finalize_balance_purchase
from db.billing.compensation import compensate
from db.billing.grants import grant_access, grant_trial
from db.billing.ledger import purses
from db.billing.orders import open_order, open_topup
from db.billing.payment_facts import FinalizePurchase
from db.billing.pricing import set_vip
from db.billing.promos import add_promo
from db.billing.purchases import finalize_purchase
from db.billing.referrals import withdrawable
from db.billing.refunds import refund_charge
from db.billing.withdrawals import approve_withdrawal, reject_withdrawal, request_withdrawal
from db.customers import add_customer
from db.errors import BusinessError
from db.money import Money
from db.schema.demo_clock import set_clock_offset
from db.tx import Tx
from tests.db.database import SEAL, Connection, Database
from tests.db.model.book import HOUR, PRICES, Book, Customer, Refused

SEQUENCES = int(os.environ.get("ATLAS_MODEL_SEQUENCES", "40"))
SEED = int(os.environ["ATLAS_MODEL_SEED"]) if "ATLAS_MODEL_SEED" in os.environ else None
"""The same sequences each time, unless another seed is given."""
SHORTEST, LONGEST = 6, 22
PROVIDERS = ("telegram", "stripe", "yookassa", "cryptobot")
EPOCH = datetime(2020, 1, 1, tzinfo=UTC)
_telegram_ids = count(1)
Action = tuple[str, int, int, int]


def micros(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)


@attrs.define
class Pair:
    """A customer of the database, and of the model."""

    telegram_id: int
    id: int
    ought: Customer
    withdrawals: list[int] = attrs.field(factory=list)
    charges: list[str] = attrs.field(factory=list)


@attrs.define
class Run:
    """One sequence."""

    connection: Connection
    code: str
    clock: timedelta
    book: Book = attrs.field(factory=Book)
    pairs: list[Pair] = attrs.field(factory=list)
    _names: Iterator[int] = attrs.field(factory=count)

    async def begin(self) -> None:
        """One referrer and two friends of theirs."""
        for number in range(3):
            telegram_id = next(_telegram_ids)
            inviter = self.pairs[0].telegram_id if number else None
            found = await add_customer(self.connection, telegram_id, referrer_telegram_id=inviter)
            ought = Customer(self.pairs[0].ought if number else None)
            self.book.customers.append(ought)
            self.pairs.append(Pair(telegram_id, found.id, ought))

    async def do(self, action: Action) -> None:
        """Do it in a transaction, in the model at the same moment, and compare."""
        what, who, which, size = action
        pair = self.pairs[(1, 1, 1, 2, 2, 0)[who]]  # mostly a friend, whose purchases earn somebody rewards
        if what == "spree":
            await self._spree(who, which, size)
            return
        if what == "wait":
            self.clock += timedelta(hours=(1, 7, 100, 350, 900)[which % 5])
            await self._in_transaction(lambda tx: set_clock_offset(tx, self.clock))
            await self.compare()
            return
        try:
            await self._in_transaction(lambda tx: getattr(self, f"_{what}")(tx, pair, which, size))
        except BusinessError as error:
            assert isinstance(self._refusal, Refused), f"{action}: {error}, and the model has no objection"
        else:
            assert self._refusal is None, f"{action}: the model refuses it, and it was done"
        await self.compare()

    _refusal: Refused | None = None

    async def _in_transaction(self, work: Callable[[Tx], Awaitable[object]]) -> None:
        self._refusal = None
        await self.connection.execute("BEGIN")
        try:
            self.book.pass_time(micros(await self.connection.fetchval("SELECT atlas_now()")))
            await work(self.connection)
            # The nodes have every key at once, so that what was used was delivered.
            await self.connection.execute(
                "UPDATE vpn_keys SET activation_status = 'active', activated_at = atlas_now() "
                "WHERE wanted = 'present' AND activation_status = 'pending'"
            )
        except BaseException:
            await self.connection.execute("ROLLBACK")
            raise
        await self.connection.execute("COMMIT")

    def _ought(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Refused as refusal:
            self._refusal = refusal

    # ---- actions; the model goes first, so that a refusal of either is seen

    async def _buy(self, tx: Tx, pair: Pair, which: int, size: int) -> None:
        plan = list(PRICES)[which % len(PRICES)]
        code = (None, f"{self.code}10", f"{self.code}60")[size % 3]
        promo = None if code is None else int(code[-2:])
        if code is not None and code in self._used_by(pair):
            code, promo = None, None
        price = self.book.price(pair.ought, plan, promo)
        name, provider = self._charge(pair, size)
        if code is not None and promo is not None and self.book.uses_promo(pair.ought, plan, promo):
            self._used_by(pair).add(code)
        order = await open_order(tx, pair.telegram_id, *plan, idempotency_key=name, promo_code=code)
        assert order.price == Money(price)
        how = size % 4
        paid = Money(price + 100) if how == 3 else order.price
        command = FinalizePurchase(provider, name, paid, order.id, pair.telegram_id)
        if how == 3:  # another amount buys nothing and is kept, and the order goes on to hold its code
            self.book.pay_in(pair.ought, name, price + 100)
        else:
            self.book.buy(pair.ought, name, plan, price)
        for _ in range(1 + size % 2):  # some are reported twice
            await finalize_purchase(tx, command)
        if how == 2:  # and some orders are paid twice
            name, provider = self._charge(pair, size)
            self.book.pay_in(pair.ought, name, price)
            await finalize_purchase(tx, FinalizePurchase(provider, name, order.price, order.id, pair.telegram_id))

    async def _topup(self, tx: Tx, pair: Pair, which: int, size: int) -> None:
        # Mostly just what a plan costs, so that little is left of it once that is bought.
        amount = 10_000 + size % 300_000 if size % 4 == 0 else list(PRICES.values())[size % 3]
        name, provider = self._charge(pair, which)
        self.book.pay_in(pair.ought, name, amount)
        order = await open_topup(tx, pair.telegram_id, Money(amount), idempotency_key=name)
        await finalize_purchase(tx, FinalizePurchase(provider, name, Money(amount), order.id))

    async def _spend(self, tx: Tx, pair: Pair, which: int, size: int) -> None:
        affordable = [plan for plan in PRICES if self.book.price(pair.ought, plan, None) <= pair.ought.balance]
        plans = affordable if affordable and which % 6 else list(PRICES)
        plan = plans[which % len(plans)]
        price = self.book.price(pair.ought, plan, None)
        key = f"spend-{next(self._names)}"
        if size % 5 == 0:
            self._refusal = Refused("another price than the one that was seen")
            await finalize_balance_purchase(
                tx, pair.telegram_id, *plan, seen_price=Money(price - 1), idempotency_key=key
            )
        self._ought(lambda: self.book.buy_from_balance(pair.ought, plan, price))
        for _ in range(1 + size % 2):
            await finalize_balance_purchase(tx, pair.telegram_id, *plan, seen_price=Money(price), idempotency_key=key)

    async def _spree(self, who: int, which: int, size: int) -> None:
        """Two plans, each paid by a top-up of its price: which of them goes back with what depends on their order."""
        for plan in (size % 3, size // 3 % 3):
            await self.do(("topup", who, which, (9, 1, 2)[plan]))
            await self.do(("spend", who, 1 + 2 * (which % 2), 1))

    async def _trial(self, tx: Tx, pair: Pair, which: int, size: int) -> None:
        self._ought(lambda: self.book.trial(pair.ought))
        await grant_trial(tx, pair.telegram_id, actor="front_end:test")

    async def _gift(self, tx: Tx, pair: Pair, which: int, size: int) -> None:
        tariff, hours = ("basic", "plus")[which % 2], 1 + size % 200
        self.book.give(pair.ought, tariff, hours * HOUR)
        key = f"gift-{pair.id}-{next(self._names)}"
        await grant_access(tx, pair.telegram_id, tariff, timedelta(hours=hours), idempotency_key=key, actor="o")

    async def _vip(self, tx: Tx, pair: Pair, which: int, size: int) -> None:
        pair.ought.is_vip = not pair.ought.is_vip
        await set_vip(tx, pair.telegram_id, pair.ought.is_vip, actor="o")

    async def _refund(self, tx: Tx, pair: Pair, which: int, size: int) -> None:
        if not pair.charges:
            return
        ways: Sequence[dict[str, bool]] = ({}, {"write_off": True})
        await self._go_back(tx, pair, which % len(pair.charges), size, ways[size % 2])

    async def _chargeback(self, tx: Tx, pair: Pair, which: int, size: int) -> None:
        if not pair.charges:
            return
        # Mostly one of the last three, which bought what still runs.
        newest = min(3, len(pair.charges)) if which % 4 else len(pair.charges)
        ways: Sequence[dict[str, bool]] = (
            {"chargeback": True},
            {"chargeback": True},
            {"chargeback": True, "write_off": True},
        )
        await self._go_back(tx, pair, -1 - which % newest, size, ways[size % 3])

    async def _go_back(self, tx: Tx, pair: Pair, index: int, size: int, how: dict[str, bool]) -> None:
        name = pair.charges[index]
        amount = None if size % 5 < 3 else 1 + size % 20_000
        self._ought(lambda: self.book.refund(pair.ought, name, amount, **how))
        part = None if amount is None else Money(amount)
        key = f"refund-{pair.id}-{next(self._names)}"
        await refund_charge(
            tx, name.split(":")[0], name, amount=part, actor="o", idempotency_key=key,
            chargeback=how.get("chargeback", False), write_off=how.get("write_off", False),
        )  # fmt: skip

    async def _compensate(self, tx: Tx, pair: Pair, which: int, size: int) -> None:
        number = await tx.fetchval("SELECT id FROM subscriptions WHERE customer_id = $1", pair.id)
        if number is not None:
            amount = self.book.compensate(pair.ought)
            assert (await compensate(tx, number, reason="x", actor="o")).amount == Money(amount)

    async def _revoke(self, tx: Tx, pair: Pair, which: int, size: int) -> None:
        if not pair.ought.grants:
            self._refusal = Refused("there never was a subscription")
        self.book.revoke(pair.ought)
        await mark_revoked(tx, pair.telegram_id, actor="o")

    async def _withdraw(self, tx: Tx, pair: Pair, which: int, size: int) -> None:
        amount = 50_000 + size % 40_000 if size % 4 else max(1, self.book.withdrawable(pair.ought))
        self._ought(lambda: self.book.withdraw(pair.ought, amount))
        found = await request_withdrawal(
            tx, pair.telegram_id, Money(amount), destination="card", idempotency_key=f"w-{next(self._names)}",
            actor="front_end:test", seal=SEAL,
        )  # fmt: skip
        pair.withdrawals.append(found.id)

    async def _settle(self, tx: Tx, pair: Pair, which: int, size: int) -> None:
        if pair.withdrawals:
            pays = bool(which % 2)
            self.book.settle_withdrawal(pair.ought, pays=pays)
            number = pair.withdrawals.pop(0)
            if pays:
                await approve_withdrawal(tx, number, actor="o", reference=f"bank {number}", second_above=None)
            else:
                await reject_withdrawal(tx, number, actor="o", reason="no")

    async def _adjust(self, tx: Tx, pair: Pair, which: int, size: int) -> None:
        amount = (1 + size % 60_000) * (1 if which % 3 else -1)
        self._ought(lambda: self.book.adjust(pair.ought, amount))
        key = f"adjust-{pair.id}-{next(self._names)}"
        await adjust_balance(tx, pair.telegram_id, Money(amount), reason="x", actor="o", idempotency_key=key)

    def _charge(self, pair: Pair, size: int) -> tuple[str, str]:
        provider = PROVIDERS[size % len(PROVIDERS)]
        name = f"{provider}:{pair.id}:{next(self._names)}"
        pair.charges.append(name)
        return name, provider

    def _used_by(self, pair: Pair) -> set[str]:
        return self._used.setdefault(pair.id, set())

    _used: dict[int, set[str]] = attrs.field(factory=dict)

    # ---- both sides

    async def compare(self) -> None:
        """Everything that the model knows, at one moment."""
        await self.connection.execute("BEGIN")
        at: datetime = await self.connection.fetchval("SELECT atlas_now()")
        self.book.pass_time(micros(at))
        rows = {row["id"]: row for row in await self.connection.fetch(_ACCESS, at, [pair.id for pair in self.pairs])}
        for pair in self.pairs:
            held = await purses(self.connection, pair.id)
            ought = pair.ought
            assert [held.paid.amount, held.credit.amount, held.earned.amount, held.debt.amount] == [
                ought.paid, ought.credit, ought.earned, ought.debt,
            ]  # fmt: skip
            assert (await withdrawable(self.connection, pair.id)).amount.amount == self.book.withdrawable(ought)
            row = rows[pair.id]
            end = at if row["expires_at"] is None else max(at, row["expires_at"])
            assert micros(end) - micros(at) == ought.left
            assert row["pays"] == ought.is_paying
            assert [left // timedelta(microseconds=1) for left in row["left"]] == [one.left for one in ought.grants]
        await self.connection.execute("COMMIT")
        owed = -sum(one.debt for one in self.book.customers)
        assert self.book.went_out <= self.book.came_in + self.book.gifts + owed, (
            "more was paid out than came in and was given"
        )


_ACCESS = """
SELECT c.id, s.expires_at, c.first_paid_at IS NOT NULL AS pays,
       ARRAY(SELECT greatest(i.ends_at - greatest(i.starts_at, $1), '0') FROM entitlement_intervals i
             WHERE i.subscription_id = s.id ORDER BY i.event_id) AS left
FROM customers c LEFT JOIN subscriptions s ON s.customer_id = c.id WHERE c.id = ANY($2::bigint[])
"""
"""Of each customer the end, whether he is a paying friend, and what is left of each grant."""

# What leads to most of the rules comes most: money in, spent, and back.
ACTIONS: Sequence[str] = (
    *["spree"] * 3, *["topup"] * 2, *["buy"] * 3, *["spend"] * 4, *["refund"] * 2, *["chargeback"] * 4, *["wait"] * 3,
    *["compensate"] * 2, *["adjust"] * 2, "trial", "gift", "vip", "revoke", "withdraw", "withdraw", "settle",
)  # fmt: skip
SEQUENCE = st.lists(
    st.tuples(st.sampled_from(ACTIONS), st.integers(0, 5), st.integers(0, 11), st.integers(0, 1_000_000)),
    min_size=SHORTEST,
    max_size=LONGEST,
)
_codes = count(1)


SEARCH = settings(max_examples=SEQUENCES // 2, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)


@SEARCH
@given(sequence=SEQUENCE)
@(seed(1) if SEED is None else seed(SEED))
async def test_every_sequence_ends_as_the_model_says(database: Database, sequence: Sequence[Action]) -> None:
    await run_sequence(database, sequence)


@SEARCH
@given(sequence=SEQUENCE)
@(seed(2) if SEED is None else seed(SEED + 1))
async def test_every_other_sequence_ends_as_the_model_says_too(database: Database, sequence: Sequence[Action]) -> None:
    """A second search, for a second worker."""
    await run_sequence(database, sequence)


async def run_sequence(database: Database, sequence: Sequence[Action]) -> None:
    async with database.connect() as connection:
        # The clock goes on from one sequence to the next, so that what the earlier ones left stays true.
        clock = await connection.fetchval("SELECT clock_offset FROM database_identity")
        run = Run(connection, f"code{next(_codes)}x", clock=clock)
        for percent in (10, 60):
            await add_promo(connection, f"{run.code}{percent}", percent, actor="o")
        await run.begin()
        for action in sequence:
            await run.do(action)
