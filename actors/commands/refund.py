"""`atlas refund`: record that a captured charge went back to its payer."""

from __future__ import annotations

import click

from actors.commands.database import OPERATOR, in_transaction
from actors.commands.parameters import KOPECKS, NAME, PROVIDER
from db.money import Money
from db.refunds import Refund, refund_charge
from db.tx import Tx
from runtime.cli.options import config_option, json_option
from runtime.cli.output import emit


@click.command()
@click.option("--provider", type=PROVIDER, required=True, help="Who captured the money, such as manual.")
@click.option("--charge", "charge_id", type=NAME, required=True, help="The provider's id of the charge.")
@click.option("--amount", type=KOPECKS, help="How much went back, in kopecks. Default: all that is left.")
@click.option("--keep-access", is_flag=True, help="Do not take back what the charge bought.")
@click.option(
    "--write-off", is_flag=True, help="Take as a loss what the balance does not cover, as after a chargeback."
)
@click.option("--key", type=NAME, help="What makes a repetition the same refund. Default: made of charge and amount.")
@config_option
@json_option
@click.pass_context
def refund(
    ctx: click.Context,
    provider: str,
    charge_id: str,
    amount: int | None,
    keep_access: bool,
    write_off: bool,
    key: str | None,
    as_json: bool,
) -> None:
    """Record that a captured charge went back to its payer, in part or whole.

    The payment itself is made at the provider. A charge that is refunded whole takes the access that it bought and the
    referrer's reward along. Repeating it changes nothing; a second refund of the same amount needs a --key of its own.
    """
    part = None if amount is None else Money(amount)

    async def run(tx: Tx) -> Refund:
        return await refund_charge(
            tx,
            provider,
            charge_id,
            amount=part,
            actor=OPERATOR,
            idempotency_key=key or f"{provider}:{charge_id}:{'rest' if amount is None else amount}",
            revoke=not keep_access,
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
        "clawed_back": done.clawed_back.amount,
        "access_taken_back_seconds": None if done.taken_back is None else int(done.taken_back.total_seconds()),
    }
    emit(data, as_json, lambda: _sentence(done))


def _sentence(done: Refund) -> str:
    parts = [f"refund {done.id}: {done.amount} of money-in {done.money_in_id} went back"]
    if done.taken_back is not None:
        parts.append(f"{done.taken_back.days} d {done.taken_back.seconds // 3600} h of access taken back")
    if done.clawed_back:
        parts.append(f"{done.clawed_back} of the referrer's reward taken back")
    if done.written_off:
        parts.append(f"{done.written_off} written off")
    return "; ".join(parts) + (" (recorded before; nothing was changed)" if done.replayed else "")
