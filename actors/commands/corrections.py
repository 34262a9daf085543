"""`atlas refund`, `atlas adjust`, `atlas compensate`: money that goes back, or is corrected by hand."""

from __future__ import annotations

import click

from actors.commands.at_provider import refund_at_provider, refund_data, refund_sentence
from actors.commands.database import in_transaction
from actors.commands.parameters import KOPECKS, NAME, PROVIDER, REASON, SIGNED_KOPECKS, TELEGRAM_ID
from db.access.subscriptions import get_subscription
from db.billing.adjustments import adjust_balance
from db.billing.compensation import Compensation
from db.billing.compensation import compensate as compensate_subscription
from db.billing.ledger import balance
from db.billing.refunds import Refund, refund_charge
from db.customers import find_customer
from db.errors import BusinessError
from db.money import Money
from db.tx import Tx
from runtime.cli import acting_operator, config_option, emit, json_option


@click.command()
@click.option("--provider", type=PROVIDER, required=True, help="Who captured the money, such as manual.")
@click.option("--charge", "charge_id", type=NAME, required=True, help="The provider's id of the charge.")
@click.option(
    "--amount", type=KOPECKS, help="How much went back: kopecks, or roubles as 149.00. Default: all that is left."
)
@click.option("--keep-access", is_flag=True, help="Do not take back what the charge bought.")
@click.option(
    "--chargeback", is_flag=True, help="It has gone back already: take back what it bought, the rest is owed to us."
)
@click.option("--write-off", is_flag=True, help="Take as our loss what is not there any more.")
@click.option("--key", type=NAME, help="What makes a repetition the same refund. Default: made of charge and amount.")
@click.option("--at-provider", is_flag=True, help="Have the provider make the payment too, and record it when it has.")
@config_option
@json_option
@click.pass_context
def refund(
    ctx: click.Context,
    provider: str,
    charge_id: str,
    amount: int | None,
    keep_access: bool,
    chargeback: bool,
    write_off: bool,
    key: str | None,
    at_provider: bool,
    as_json: bool,
) -> None:
    """Record that a captured charge went back to its payer, in part or whole.

    The payment itself is made at the provider, by hand or with --at-provider. A charge that is refunded whole takes the
    access that it bought and the referrer's reward along. Money that is spent, or was given to the balance as
    compensation, is not refunded; after a --chargeback what it bought is taken back, the newest first, what is lacking is a
    debt that later rewards pay, and a case has the numbers. Repeating it changes nothing; a second refund of the same
    amount needs a --key of its own.
    """
    part = None if amount is None else Money(amount)
    name = key or f"{provider}:{charge_id}:{'rest' if amount is None else amount}"
    if at_provider and chargeback:
        raise click.UsageError("a --chargeback has been made by the provider already: leave --at-provider out")
    if at_provider:
        asked = refund_at_provider(
            ctx, provider, charge_id, part, takes_access=not keep_access, writes_off=write_off, key=name
        )
        emit(refund_data(asked), as_json, lambda: refund_sentence(asked))
        return

    async def run(tx: Tx) -> Refund:
        return await refund_charge(
            tx,
            provider,
            charge_id,
            amount=part,
            actor=acting_operator(ctx).actor,
            idempotency_key=name,
            revoke=not keep_access,
            chargeback=chargeback,
            write_off=write_off,
        )

    done = in_transaction(ctx, "refund", run)
    data = {
        "refund": done.id,
        "replayed": done.replayed,
        "money_in": done.money_in_id,
        "amount": done.amount.amount,
        "currency": done.amount.currency,
        "written_off": done.written_off.amount,
        "owed": done.owed.amount,
        "case": done.case_id,
        "clawed_back": done.clawed_back.amount,
        "access_taken_back_seconds": None if done.taken_back is None else int(done.taken_back.total_seconds()),
    }
    emit(data, as_json, lambda: _refund_sentence(done))


def _refund_sentence(done: Refund) -> str:
    parts = [f"refund {done.id}: {done.amount} of money-in {done.money_in_id} went back"]
    if done.taken_back is not None:
        parts.append(f"{done.taken_back.days} d {done.taken_back.seconds // 3600} h of access taken back")
    if done.clawed_back:
        parts.append(f"{done.clawed_back} of the referrer's reward taken back")
    if done.written_off:
        parts.append(f"{done.written_off} written off")
    if done.owed:
        parts.append(f"{done.owed} owed by the customer")
    if done.case_id is not None:
        parts.append(f"the numbers are in case {done.case_id}")
    return "; ".join(parts) + (" (recorded before; nothing was changed)" if done.replayed else "")


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("telegram_id", type=TELEGRAM_ID)
@click.argument("amount", type=SIGNED_KOPECKS)
@click.option("--reason", type=REASON, required=True, help="Why; the customer reads it.")
@click.option(
    "--key", type=NAME, required=True, help="What makes a repetition the same adjustment, such as a ticket's number."
)
@config_option
@json_option
@click.pass_context
def adjust(ctx: click.Context, telegram_id: int, amount: int, reason: str, key: str, as_json: bool) -> None:
    """Add AMOUNT kopecks to the balance of customer TELEGRAM_ID, or take them off if it is negative.

    It is booked apart from what customers pay. The same --key again changes nothing; a balance never falls below zero.
    """

    async def run(tx: Tx) -> tuple[int, Money]:
        journal = await adjust_balance(
            tx, telegram_id, Money(amount), reason=reason, actor=acting_operator(ctx).actor, idempotency_key=key
        )
        return journal, await balance(tx, (await find_customer(tx, telegram_id)).id)

    journal, now = in_transaction(ctx, "adjust", run)
    data = {"journal": journal, "telegram_id": telegram_id, "amount": amount, "balance": now.amount}
    emit(data, as_json, lambda: f"journal {journal}: customer {telegram_id} {Money(amount)}; the balance is {now}")


@click.command()
@click.argument("telegram_id", type=TELEGRAM_ID)
@click.option("--reason", type=REASON, required=True, help="Why; the customer reads it.")
@config_option
@json_option
@click.pass_context
def compensate(ctx: click.Context, telegram_id: int, reason: str, as_json: bool) -> None:
    """Credit customer TELEGRAM_ID for the paid time that was not delivered, and end the access.

    Done by itself when a key cannot be activated. Repeating it finds nothing left and changes nothing.
    """

    async def run(tx: Tx) -> Compensation:
        found = await get_subscription(tx, telegram_id)
        if found is None:
            raise BusinessError(f"customer {telegram_id} never had a subscription")
        return await compensate_subscription(tx, found.id, reason=reason, actor=acting_operator(ctx).actor)

    done = in_transaction(ctx, "compensate", run)
    data = {"telegram_id": telegram_id, "amount": done.amount.amount, "journal": done.journal_id}
    emit(data, as_json, lambda: _compensation_sentence(done, telegram_id))


def _compensation_sentence(done: Compensation, telegram_id: int) -> str:
    if not done.amount:
        return f"customer {telegram_id} has no paid time left that was not delivered; nothing was changed"
    return f"customer {telegram_id} was credited {done.amount}; the access has ended"
