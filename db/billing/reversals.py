"""Money that goes back at a provider, is fought over there, or is held and not captured: told by it, judged by a human.

One dispute is one case, whatever is told of it in whatever order; a lost one is another, with what it cost. A refund that
we asked for is no case: its own row knows of it.
"""

import json

from db.billing.cases import open_case
from db.billing.payment_facts import Held, Reversed
from db.tx import Row, Tx
from db.work.audit import record_audit

_ADVICE = {
    "lost": "the money is gone: `atlas refund --provider {provider} --charge {charge} --chargeback` takes back what it bought",
    "failed": "the money is still at the provider: pay it back in another way, or correct the books",
    "cancelled": "the money is still at the provider: ask for the refund again, or correct the books",
}


async def book_reversal(tx: Tx, provider: str, fact: Reversed) -> dict[str, object]:
    """Write down what the provider said of a charge; returns the event's outcome."""
    charge = await tx.fetchrow(_CHARGE, provider, fact.charge_id)
    if fact.what == "refund":
        own = await _refund_of_ours(tx, charge, fact)
        if own is not None and fact.stage == "told":
            # What was not known to be done is asked about now.
            await tx.execute(
                "UPDATE provider_refunds SET next_attempt_at = atlas_now() WHERE id = $1 AND state IN ('asking', 'pending')",
                own["id"],
            )
            return {"result": fact.what, "ours": own["id"]}
        if own is not None and own["state"] in ("asking", "pending"):
            await tx.execute(
                """
                UPDATE provider_refunds SET state = 'refused', settled_at = atlas_now(), last_error = $2, claimed_by = NULL,
                    claimed_incarnation = NULL, claim_until = NULL, claim_epoch = claim_epoch + 1
                WHERE id = $1
                """,
                own["id"],
                fact.stage,
            )
            await _audit(tx, provider, fact, charge, f"provider_refund:{own['id']}")
            return {"result": fact.what, "ours": own["id"], "stage": fact.stage}
    case_id = await _case_of(tx, provider, fact, charge)
    await _audit(tx, provider, fact, charge, f"case:{case_id}")
    return {"result": fact.what, "case": case_id, **({} if fact.stage == "told" else {"stage": fact.stage})}


async def book_hold(tx: Tx, provider: str, fact: Held) -> dict[str, object]:
    """Money of a customer is held at the provider and nobody has taken it: a case, unless it was captured meanwhile."""
    if await tx.fetchval(
        "SELECT EXISTS (SELECT FROM money_in WHERE provider = $1 AND charge_id = $2)", provider, fact.charge_id
    ):
        return {"result": "hold", "why": "it was captured"}
    order = await tx.fetchrow("SELECT id, customer_id FROM orders WHERE id = $1", fact.order_id)
    case_id = await open_case(
        tx,
        "provider_hold",
        f"{provider}:{fact.charge_id}",
        customer_id=None if order is None else order["customer_id"],
        details={
            "provider": provider,
            "charge": fact.charge_id,
            "amount": fact.amount,
            "order": None if order is None else order["id"],
            "until": fact.until,
            "advice": "capture it at the provider, or let it go there; this shop captures at once and holds nothing itself",
        },
    )
    return {"result": "hold", "case": case_id}


async def end_hold(tx: Tx, provider: str, charge_id: str, how: str) -> None:
    """The money that was held is captured or let go: its case has nothing to say any more."""
    await _close(tx, "provider_hold", f"{provider}:{charge_id}", how, provider)


_CHARGE = """
SELECT m.id, m.customer_id, m.booked_amount, s.expires_at,
       (SELECT coalesce(sum(r.amount), 0)::bigint FROM refunds r WHERE r.money_in_id = m.id) AS refunded
FROM money_in m
LEFT JOIN entitlement_events e ON e.money_in_id = m.id
LEFT JOIN subscriptions s ON s.id = e.subscription_id
WHERE m.provider = $1 AND m.charge_id = $2
LIMIT 1
"""


async def _refund_of_ours(tx: Tx, charge: Row | None, fact: Reversed) -> Row | None:
    """The refund that we asked for and that this is; of what is told as a sum, if ours come to it together."""
    if charge is None:
        return None
    return await tx.fetchrow(
        """
        SELECT id, state FROM provider_refunds
        WHERE money_in_id = $1 AND (reference = $2 OR request_key = $3 OR ($4::bigint IS NOT NULL AND state <> 'refused'
            AND (SELECT sum(amount) FROM provider_refunds WHERE money_in_id = $1 AND state <> 'refused' AND asset = $5) >= $4))
        ORDER BY (reference = $2 OR request_key = $3) DESC NULLS LAST, id DESC LIMIT 1
        FOR NO KEY UPDATE
        """,
        charge["id"],
        fact.reference,
        fact.request_key,
        None if fact.in_all is None else fact.in_all.amount,
        None if fact.in_all is None else fact.in_all.currency,
    )


async def _case_of(tx: Tx, provider: str, fact: Reversed, charge: Row | None) -> int:
    kind, subject = f"provider_{fact.what}", f"{provider}:{fact.reference}"
    if fact.stage in _ADVICE:
        number = await _open(tx, f"{kind}_{fact.stage}", subject, provider, fact, charge)
        if fact.what == "dispute":
            await _open(tx, kind, subject, provider, fact, charge)
            await _close(tx, kind, subject, f"lost, see case {number}", provider)
        return number
    number = await _open(tx, kind, subject, provider, fact, charge)
    if fact.stage == "won":
        await _close(tx, kind, subject, "the provider decided for us", provider)
    return number


async def _open(tx: Tx, kind: str, subject: str, provider: str, fact: Reversed, charge: Row | None) -> int:
    """The case, with what was told of it so far and what the charge has brought and bought. A closed one is final: what is told
    after it is in the audit trail."""
    details: dict[str, object] = {
        "provider": provider,
        "charge": fact.charge_id,
        "money_in": None if charge is None else charge["id"],
        "amount": fact.amount,
        "booked": None if charge is None else charge["booked_amount"],
        "refunded": None if charge is None else charge["refunded"],
        "access_until": None if charge is None or charge["expires_at"] is None else charge["expires_at"].isoformat(),
    }
    if fact.stage in _ADVICE:
        details["advice"] = _ADVICE[fact.stage].format(provider=provider, charge=fact.charge_id)
    number = await open_case(
        tx, kind, subject, customer_id=None if charge is None else charge["customer_id"], details=details
    )
    await tx.execute(
        """
        UPDATE cases SET details = details || $2::text::jsonb
            || jsonb_build_object('told', coalesce(details->'told', '[]') || $3::text::jsonb)
        WHERE id = $1 AND state = 'open' AND NOT coalesce(details->'told', '[]') @> $3::text::jsonb
        """,
        number,
        json.dumps({name: details[name] for name in ("booked", "refunded", "access_until")}),
        json.dumps([f"{fact.stage} {fact.amount}"]),
    )
    return number


async def _close(tx: Tx, kind: str, subject: str, resolution: str, actor: str) -> None:
    await tx.execute(
        """
        UPDATE cases SET state = 'closed', closed_at = atlas_now(), resolution = $3, closed_by = $4
        WHERE kind = $1 AND subject = $2 AND state = 'open'
        """,
        kind,
        subject,
        resolution,
        actor,
    )


async def _audit(tx: Tx, provider: str, fact: Reversed, charge: Row | None, subject: str) -> None:
    await record_audit(
        tx,
        provider,
        f"provider_{fact.what}",
        customer_id=None if charge is None else charge["customer_id"],
        subject=subject,
        details={"charge": fact.charge_id, "amount": fact.amount, "stage": fact.stage},
    )
