"""`atlas buy`, `atlas topup`, `atlas buy-from-balance`: payments that an operator saw, and plans that a balance pays
for.
"""

from __future__ import annotations

import click

from actors.commands.database import in_transaction
from actors.commands.parameters import DAYS, KOPECKS, NAME, PROVIDER, TELEGRAM_ID
from db.billing.balance_purchases import BalancePurchase, finalize_balance_purchase
from db.billing.payment_facts import PaymentResult, PurchaseOutcome
from db.billing.pricing import quote_plan
from db.billing.purchases import record_manual_purchase, record_manual_topup
from db.errors import BusinessError
from db.money import Money
from db.tx import Tx
from runtime.cli import acting_operator, config_option, emit, json_option
from runtime.wording import moment


@click.command()
@click.option("--customer", "telegram_id", type=TELEGRAM_ID, required=True, help="Telegram id of who paid.")
@click.option("--tariff", type=NAME, required=True, help="What was bought, such as basic.")
@click.option("--days", type=DAYS, required=True, help="For how long, such as 30.")
@click.option("--provider", type=PROVIDER, required=True, help="Who captured the money, such as manual.")
@click.option(
    "--charge",
    "charge_id",
    type=NAME,
    required=True,
    help="The provider's id of the charge; the same id is the same money.",
)
@click.option("--amount", type=KOPECKS, required=True, help="What was captured: kopecks, or roubles as 149.00.")
@click.option("--promo", type=NAME, help="The promo code that the price was promised with.")
@config_option
@json_option
@click.pass_context
def buy(
    ctx: click.Context,
    telegram_id: int,
    tariff: str,
    days: int,
    provider: str,
    charge_id: str,
    amount: int,
    promo: str | None,
    as_json: bool,
) -> None:
    """Record a captured payment and what it buys, in one transaction.

    Repeating a charge returns its first outcome. An amount that is not the price is credited to the customer's balance, as
    for any other payment. The running supervisor activates the key by itself; `atlas subscription` shows how far it is.
    """

    async def run(tx: Tx) -> PurchaseOutcome:
        return await record_manual_purchase(
            tx,
            telegram_id,
            tariff,
            days,
            provider,
            charge_id,
            Money(amount),
            promo_code=promo,
            actor=acting_operator(ctx).actor,
        )

    outcome = in_transaction(ctx, "buy", run)
    emit(outcome_data(outcome), as_json, lambda: outcome_sentence(outcome, telegram_id))


def outcome_data(outcome: PurchaseOutcome) -> dict[str, object]:
    """What a payment led to, for `--json`."""
    return {
        "result": outcome.result.value,
        "replayed": outcome.replayed,
        "problem": outcome.problem,
        "money_in": outcome.money_in_id,
        "order": outcome.order_id,
        "expires_at": None if outcome.expires_at is None else outcome.expires_at.isoformat(),
        "key": outcome.key_id,
        "credited": None if outcome.credited is None else outcome.credited.amount,
        "case": outcome.case_id,
    }


def outcome_sentence(outcome: PurchaseOutcome, telegram_id: int) -> str:
    """What a payment led to, in words."""
    again = " (recorded before; nothing was changed)" if outcome.replayed else ""
    if outcome.result is PaymentResult.CASE:
        return f"money-in {outcome.money_in_id} waits for a human as case {outcome.case_id}{again}"
    if outcome.credited is not None:
        why = f", because of its {outcome.problem}" if outcome.problem else ""
        credit = f"{outcome.credited} credited to the balance of customer {telegram_id}"
        return f"money-in {outcome.money_in_id}: {credit}{why}{again}"
    assert outcome.expires_at is not None
    until = moment(outcome.expires_at)
    return (
        f"money-in {outcome.money_in_id}: customer {telegram_id} has access until {until}{again}\n"
        f"next: atlas subscription {telegram_id}"
    )


@click.command()
@click.option("--customer", "telegram_id", type=TELEGRAM_ID, required=True, help="Telegram id of who paid.")
@click.option("--provider", type=PROVIDER, required=True, help="Who captured the money, such as manual.")
@click.option(
    "--charge",
    "charge_id",
    type=NAME,
    required=True,
    help="The provider's id of the charge; the same id is the same money.",
)
@click.option("--amount", type=KOPECKS, required=True, help="What was captured: kopecks, or roubles as 149.00.")
@config_option
@json_option
@click.pass_context
def topup(ctx: click.Context, telegram_id: int, provider: str, charge_id: str, amount: int, as_json: bool) -> None:
    """Record a captured payment that tops up a balance, from 100 to 100 000 RUB.

    Repeating a charge returns its first outcome.
    """

    async def run(tx: Tx) -> PurchaseOutcome:
        return await record_manual_topup(
            tx, telegram_id, provider, charge_id, Money(amount), actor=acting_operator(ctx).actor
        )

    outcome = in_transaction(ctx, "topup", run)
    emit(outcome_data(outcome), as_json, lambda: outcome_sentence(outcome, telegram_id))


@click.command("buy-from-balance")
@click.option("--customer", "telegram_id", type=TELEGRAM_ID, required=True, help="Telegram id of whose balance it is.")
@click.option("--tariff", type=NAME, required=True, help="What is bought, such as basic.")
@click.option("--days", type=DAYS, required=True, help="For how long, such as 30.")
@click.option(
    "--price",
    type=KOPECKS,
    help="The price that the customer saw: kopecks, or roubles as 149.00; without it, the price is said.",
)
@click.option("--promo", type=NAME, help="A promo code.")
@click.option("--key", type=NAME, required=True, help="What makes a repetition the same purchase.")
@config_option
@json_option
@click.pass_context
def buy_from_balance(
    ctx: click.Context,
    telegram_id: int,
    tariff: str,
    days: int,
    price: int | None,
    promo: str | None,
    key: str,
    as_json: bool,
) -> None:
    """Buy a plan from a customer's balance, if it covers the price.

    The customer agreed to --price; if the plan costs something else, nothing is debited. The same --key again changes
    nothing.
    """

    async def run(tx: Tx) -> BalancePurchase:
        if price is None:
            now = (await quote_plan(tx, telegram_id, tariff, days, promo_code=promo)).price
            raise BusinessError(
                f"{tariff} for {days} d costs customer {telegram_id} {now}; nothing was debited. Repeat it with "
                f"--price {now.amount} once the customer agrees"
            )
        return await finalize_balance_purchase(
            tx,
            telegram_id,
            tariff,
            days,
            seen_price=Money(price),
            idempotency_key=key,
            promo_code=promo,
            actor=acting_operator(ctx).actor,
        )

    done = in_transaction(ctx, "buy-from-balance", run)
    data = {
        "order": done.order_id,
        "price": done.price.amount,
        "currency": done.price.currency,
        "expires_at": done.expires_at.isoformat(),
        "key": done.key_id,
        "replayed": done.replayed,
    }
    emit(data, as_json, lambda: _sentence(done, telegram_id))


def _sentence(done: BalancePurchase, telegram_id: int) -> str:
    again = " (bought before; nothing was changed)" if done.replayed else ""
    until = moment(done.expires_at)
    return f"order {done.order_id}: customer {telegram_id} paid {done.price} and has access until {until}{again}"
