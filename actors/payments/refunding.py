"""Asking a provider to give money back: the row exists before, the books follow its answer, and no lease is held between."""

from __future__ import annotations

from actors.payments.events import REFUNDS
from actors.payments.provider import Provider, ProviderRefused, ProviderUnavailable
from db.billing.provider_refunds import ProviderRefund, RefundAnswer


async def ask_for_refund(provider: Provider, refund: ProviderRefund) -> RefundAnswer:
    """What the provider says of a reserved refund, asked under its key; the caller settles it with `settle_refund`.

    Raises ProviderUnavailable when the outcome is not known, and ProviderRefused when the provider refuses us, not the refund:
    either way the row is asked about again.
    """
    try:
        answer = await provider.refund(refund)
    except (ProviderUnavailable, ProviderRefused):
        REFUNDS.labels(provider.name, "unknown").inc()
        raise
    REFUNDS.labels(provider.name, answer.state).inc()
    return answer
