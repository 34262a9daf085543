"""`atlas refund --at-provider`: the provider is asked to give the money back, and the books follow its answer."""

from __future__ import annotations

from typing import ClassVar

import click

from actors.commands.database import in_session
from actors.payments.provider import Provider, ProviderUnavailable
from actors.payments.refunding import ask_for_refund
from actors.payments.registry import close_providers, open_providers
from actors.payments.settings import PaymentSettings
from db.billing.provider_refunds import ProviderRefund, reserve_refund, settle_refund
from db.driver.session import Session
from db.errors import BusinessError
from db.money import Money
from db.tx import Tx
from db.work.audit import act_as
from runtime import AtlasError
from runtime.cli import acting_operator, load_config
from runtime.exit_codes import UNSTOPPED

_WITHIN = 10.0


class RefundUnknown(AtlasError):
    """The provider did not say what became of a refund; the payment watcher asks until it does."""

    exit_code: ClassVar[int] = UNSTOPPED


class RefundRefused(BusinessError):
    """The provider does not give this money back; nothing was booked."""


def refund_at_provider(
    ctx: click.Context,
    provider: str,
    charge_id: str,
    amount: Money | None,
    *,
    takes_access: bool,
    writes_off: bool,
    key: str,
) -> ProviderRefund:
    """Have the provider give back a charge, or `amount` roubles of it; returns the refund, done or on its way.

    Raises RefundUnknown (75) when its outcome is not known, RefundRefused (65), and BusinessError as `reserve_refund` does.
    """
    config = load_config(ctx)
    who = acting_operator(ctx)

    async def use(session: Session) -> ProviderRefund:
        providers = open_providers(config.section(PaymentSettings))
        try:
            adapter = providers.get(provider)
            if adapter is None:
                on = ", ".join(sorted(providers)) or "none"
                raise BusinessError(f"no payment provider {provider!r} is on; on are {on}; nothing was asked")
            if not adapter.refunds:
                raise BusinessError(
                    f"{provider} has no way to give money back from here: pay it back by hand, and record it with "
                    "`atlas refund` without --at-provider; nothing was asked"
                )
            only_whole = adapter.refunds == "whole"

            async def reserve(tx: Tx) -> ProviderRefund:
                await act_as(tx, who)
                return await reserve_refund(
                    tx,
                    provider,
                    charge_id,
                    amount=amount,
                    only_whole=only_whole,
                    takes_access=takes_access,
                    writes_off=writes_off,
                    actor=who.actor,
                    idempotency_key=f"at_provider:{key}",
                )

            refund = await session.run("refund.reserve", reserve, within=_WITHIN)
            return refund if refund.is_settled else await _ask(session, adapter, refund)
        finally:
            await close_providers(providers)

    done = in_session(ctx, use)
    if done.state == "refused":
        raise RefundRefused(
            f"{provider} does not give {done.amount} of charge {charge_id!r} back: {done.why or 'it did not say why'}; nothing "
            "was booked. The same command asks again"
        )
    return done


async def _ask(session: Session, provider: Provider, refund: ProviderRefund) -> ProviderRefund:
    try:
        answer = await ask_for_refund(provider, refund)  # no transaction is open, and no lease of a pool is held
    except ProviderUnavailable as error:
        raise RefundUnknown(
            f"{error}; whether the money went back is not known: refund {refund.id} is asked about by the payment watcher "
            "until it is, and the same command says what became of it"
        ) from error
    return await session.run("refund.settle", settle_refund, refund, answer, within=_WITHIN)


def refund_data(done: ProviderRefund) -> dict[str, object]:
    """The fields of the command's JSON."""
    return {
        "provider_refund": done.id,
        "state": done.state,
        "refund": done.refund_id,
        "money_in": done.money_in_id,
        "amount": done.booked.amount,
        "currency": done.booked.currency,
        "sent_back": done.amount.amount,
        "asset": done.amount.currency,
    }


def refund_sentence(done: ProviderRefund) -> str:
    """What the command says."""
    said = f"refund {done.id} at {done.provider}: {done.amount} of money-in {done.money_in_id}"
    if done.state == "pending":
        return f"{said} is on its way back; it is booked when {done.provider} says that it has arrived"
    if done.refund_id is None:
        return f"{said} went back, and the books refused it: a case is open, see `atlas cases`"
    return f"{said} went back, booked as refund {done.refund_id} of {done.booked}"
