"""Limits a customer hold in the transaction, also for several at once; a captured payment is never refused."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
import trio

from db.billing.grants import grant_trial
from db.billing.invoices import reserve_invoice
from db.billing.orders import cancel_order, find_order, open_order, open_topup
from db.billing.payment_facts import FinalizePurchase, PaymentResult
from db.billing.purchases import finalize_purchase, record_manual_purchase
from db.errors import BusinessError
from db.keys.reissue import request_reissue
from db.money import Money
from db.settings import LimitSettings, TrialSettings
from db.work.limits import Allowance, LimitReached
from tests.db.database import Database

LIMITS = LimitSettings()
FRONT = Allowance(LIMITS, "front_end:web")
ANNA = Allowance(LIMITS, "operator:anna", may_exceed=True)
Ask = Callable[[Database, str, Allowance | None], Awaitable[object]]


async def order(database: Database, key: str, allowance: Allowance | None = FRONT) -> int:
    return (await database.run(open_order, 1001, "basic", 30, idempotency_key=key, allowance=allowance)).id


async def topup(database: Database, key: str, allowance: Allowance | None = FRONT) -> int:
    return (await database.run(open_topup, 1001, Money(20_000), idempotency_key=key, allowance=allowance)).id


async def reissue(database: Database, key: str, allowance: Allowance | None = FRONT) -> str:
    return await database.run(request_reissue, 1001, actor="front_end:web", idempotency_key=key, allowance=allowance)


async def checkout(database: Database, key: str, allowance: Allowance | None = FRONT) -> int:
    number = await order(database, key, None)
    return (await database.run(reserve_invoice, number, "test", ("RUB",), allowance=allowance)).id


async def ready(database: Database) -> None:
    await database.add_customer()
    await database.buy()


ASKS = {
    "orders": (order, 5, "limits.open_orders", timedelta(minutes=30)),
    "top-ups": (topup, 5, "limits.open_orders", timedelta(minutes=30)),
    "reissues": (reissue, 3, "limits.reissues", timedelta(minutes=5)),
    "checkouts": (checkout, 5, "limits.checkouts", timedelta(minutes=1)),
}
each = pytest.mark.parametrize(("ask", "most", "setting", "window"), ASKS.values(), ids=ASKS)


@each
async def test_one_more_is_refused_and_says_which_limit_since_when_and_when_again(
    database: Database, ask: Ask, most: int, setting: str, window: timedelta
) -> None:
    await ready(database)
    for number in range(most):
        await ask(database, f"k{number}", FRONT)
    audited = await database.count("audit")
    with pytest.raises(LimitReached) as refused:
        await ask(database, "one-more", FRONT)
    said = str(refused.value)
    assert f"customer with Telegram id 1001 has {most}" in said
    assert f"{most} are allowed (setting {setting}); the first of them is from 20" in said
    assert "Again from 20" in said
    assert window.total_seconds() - 60 < refused.value.retry_seconds <= window.total_seconds()
    assert refused.value.exit_code == 75
    assert await database.count("audit") == audited, "nothing was changed"


@each
async def test_it_is_allowed_again_when_the_time_is_over(
    database: Database, ask: Ask, most: int, setting: str, window: timedelta
) -> None:
    await ready(database)
    for number in range(most):
        await ask(database, f"k{number}", FRONT)
    await database.move_clock(seconds=window.total_seconds() + 1)
    await ask(database, "later", FRONT)


@each
async def test_a_repeated_request_does_not_count_and_is_never_refused(
    database: Database, ask: Ask, most: int, setting: str, window: timedelta
) -> None:
    await ready(database)
    first = [await ask(database, f"k{number}", FRONT) for number in range(most)]
    assert [await ask(database, f"k{number}", FRONT) for number in range(most)] == first


@each
async def test_many_at_once_do_not_exceed_it_together(
    database: Database, ask: Ask, most: int, setting: str, window: timedelta
) -> None:
    await ready(database)
    done: list[object] = []
    refused: list[LimitReached] = []

    async def one(number: int) -> None:
        try:
            done.append(await ask(database, f"k{number}", FRONT))
        except LimitReached as error:
            refused.append(error)

    async with trio.open_nursery() as nursery:
        for number in range(most + 7):
            nursery.start_soon(one, number)
    assert (len(done), len(refused)) == (most, 7)


@each
async def test_an_operator_may_exceed_it_explicitly_and_that_is_audited(
    database: Database, ask: Ask, most: int, setting: str, window: timedelta
) -> None:
    await ready(database)
    for number in range(most):
        await ask(database, f"k{number}", ANNA)
    exceeded = "SELECT count(*) FROM audit WHERE action = 'limit_exceeded' AND actor = 'operator:anna' AND subject = $1"
    assert await database.fetchval(exceeded, setting) == 0, "what is within the limit is nothing special"
    for number in range(2):
        await ask(database, f"more{number}", ANNA)
    assert await database.fetchval(exceeded, setting) == 2
    with pytest.raises(LimitReached, match=f"has {most + 2}"):
        await ask(database, "front", FRONT)


@each
async def test_limits_of_one_customer_are_nothing_to_another(
    database: Database, ask: Ask, most: int, setting: str, window: timedelta
) -> None:
    await ready(database)
    for number in range(most):
        await ask(database, f"k{number}", FRONT)
    await database.add_customer(2002)
    await database.run(open_order, 2002, "basic", 30, idempotency_key="k", allowance=FRONT)


async def test_when_again_looks_past_those_beyond_the_limit(database: Database) -> None:
    await ready(database)
    for number in range(5):
        await order(database, f"k{number}", ANNA)
    await database.move_clock(minutes=10)
    await order(database, "beyond", ANNA)
    with pytest.raises(LimitReached) as refused:
        await order(database, "front")
    # six are open and five allowed: two have to end, and the first five end together
    assert refused.value.retry_seconds <= 20 * 60


async def test_a_cancelled_or_paid_order_is_not_open(database: Database) -> None:
    await ready(database)
    numbers = [await order(database, f"k{number}") for number in range(5)]
    await database.run(cancel_order, numbers[0], actor="front_end:web")
    numbers.append(await order(database, "after-cancel"))
    found = await database.run(find_order, numbers[1])
    await database.run(finalize_purchase, FinalizePurchase("test", "c", found.quote.amount, found.id))
    await order(database, "after-payment")
    with pytest.raises(LimitReached):
        await order(database, "one-more")


async def test_a_captured_payment_is_never_refused(database: Database) -> None:
    await ready(database)
    numbers = [await order(database, f"k{number}") for number in range(5)]
    bought = await database.run(
        record_manual_purchase, 1001, "basic", 30, "manual", "cash", None, actor="operator:anna"
    )
    assert bought.result is PaymentResult.ENTITLEMENT
    for number in numbers:
        found = await database.run(find_order, number)
        outcome = await database.run(
            finalize_purchase, FinalizePurchase("test", f"c{number}", found.quote.amount, number)
        )
        assert outcome.result is PaymentResult.ENTITLEMENT


async def test_a_charge_of_a_cancelled_order_is_credited(database: Database) -> None:
    await ready(database)
    number = await order(database, "k")
    assert await database.run(cancel_order, number, actor="front_end:web")
    assert not await database.run(cancel_order, number, actor="front_end:web")
    found = await database.run(find_order, number)
    outcome = await database.run(finalize_purchase, FinalizePurchase("test", "late", found.quote.amount, number))
    assert (outcome.result, outcome.problem) == (PaymentResult.BALANCE_CREDIT, "late")


# -- the trial --------------------------------------------------------------------------------------------------------


async def attempt(database: Database, rules: TrialSettings | None = None, allowance: Allowance = FRONT) -> str:
    """As a front end's request does it: a refusal is committed with the attempt."""

    async def run(tx: object) -> str:
        try:
            await grant_trial(
                tx,  # type: ignore[arg-type]
                1001,
                actor="front_end:web",
                rules=rules or TrialSettings(),
                allowance=allowance,
            )
        except BusinessError as error:
            return f"{type(error).__name__}: {error}"
        return "given"

    return await database.run(run)


async def test_one_attempt_an_hour_refused_ones_included(database: Database) -> None:
    await ready(database)
    assert "a subscription that runs" in await attempt(database)
    assert "has 1 attempts to start the trial lately, and 1 are allowed (setting limits.trials)" in await attempt(
        database
    )
    await database.move_clock(minutes=61)
    assert "a subscription that runs" in await attempt(database)
    assert await database.count("trial_attempts") == 1, "those whose time is over go"


async def test_after_the_trial_the_answer_stays_that_there_is_one(database: Database) -> None:
    await database.add_customer()
    assert await attempt(database) == "given"
    for _ in range(3):
        assert "has had the trial; there is one per customer" in await attempt(database)


async def test_many_attempts_at_once_are_one_trial(database: Database) -> None:
    await database.add_customer()
    found: list[str] = []

    async def one() -> None:
        found.append(await attempt(database))

    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(one)
    assert found.count("given") == 1
    assert await database.count("trials") == 1
