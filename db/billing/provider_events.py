"""What providers send: stored as it came before it is acknowledged, booked once, and never read out of a log again.

A provider's own statement is read page by page, so that what no event told of is booked all the same.

An event is settled in the one transaction that books what it says. Its row is locked first, so the gateway and the
watcher may both come with it: the second finds the first one's outcome.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal

import attrs

from db.billing.cases import open_case
from db.billing.invoices import CheckoutVerdict, check_checkout, close_invoice, mark_invoice_paid
from db.billing.payment_facts import (
    LONGEST_NAME,
    Captured,
    Checkout,
    Contact,
    Held,
    InvoiceClosed,
    NothingToBook,
    ProviderFact,
    Reversed,
    is_name,
)
from db.billing.purchases import finalize_purchase
from db.billing.reversals import book_hold, book_reversal, end_hold
from db.customers import add_customer, touch_contact_unless_busy
from db.errors import BusinessError
from db.tx import Row, Tx, rows_of
from db.work.claims import Claimer, claimable, claimed, released

EventState = Literal["received", "processed", "ignored", "failed"]
MAX_ATTEMPTS = 12
"""Failures after which an event is given up and a case opened; an outage is none."""
FIRST_RETRY_SECONDS = 5.0
LAST_RETRY_SECONDS = 1800.0
_NAME_LENGTH = 160
OVERLAP: Final = 20
"""Entries that are read once more: what was not final when it was read, or was listed a little late."""


@attrs.frozen
class StoredEvent:
    """An event as it was stored or claimed: one row of `provider_events`."""

    id: int
    provider: str
    event_id: str
    state: EventState
    outcome: Mapping[str, object]
    """What it led to; empty while it is not settled."""
    is_new: bool = False
    epoch: int | None = None
    """The claim's number, which fences what its holder writes; `None` for the caller that stored it."""
    body: bytes = attrs.field(default=b"", repr=False)
    attempts: int = 0
    received_at: datetime | None = None

    @property
    def is_settled(self) -> bool:
        """Whether the event was booked, ignored or given up: nothing is left to do."""
        return self.state != "received"


async def store_event(tx: Tx, provider: str, event_id: str, body: bytes, grace_seconds: float = 10.0) -> StoredEvent:
    """Keep an authentic event before anybody says that it arrived. One that is known already is returned as it stands.

    A known id with another body is another event, kept under a name of its own: ids come again at some providers, and
    whether the two say the same is not judged by their names. The watcher leaves a new event alone for `grace_seconds`:
    the caller that stored it goes on with it now. One whose id cannot be kept is kept under another name, and given up at
    once with a case.
    """
    if not is_name(event_id):
        name = hashlib.sha256(event_id.encode("utf-8", "surrogatepass") + b"\0" + body).hexdigest()
        event = await store_event(tx, provider, f"refused:{name}", body, grace_seconds)
        why = f"its id is empty, has more than {LONGEST_NAME} characters or some that cannot be kept"
        return event if event.is_settled else await fail_event(tx, event, why)
    row = await tx.fetchrow(
        """
        INSERT INTO provider_events (provider, event_id, body, next_attempt_at)
        VALUES ($1, $2, $3, atlas_now() + $4::interval)
        ON CONFLICT (provider, event_id) DO NOTHING
        RETURNING id, provider, event_id, state, outcome::text AS outcome
        """,
        provider,
        event_id,
        body,
        timedelta(seconds=grace_seconds),
    )
    is_new = row is not None
    if row is None:
        row = await tx.fetchrow(
            """
            SELECT id, provider, event_id, state, outcome::text AS outcome, body = $3 AS is_same FROM provider_events
            WHERE provider = $1 AND event_id = $2
            """,
            provider,
            event_id,
            body,
        )
        if row is not None and not row["is_same"]:
            another = f"{event_id[:_NAME_LENGTH]}#{hashlib.sha256(body).hexdigest()[:32]}"
            return await store_event(tx, provider, another, body, grace_seconds)
    assert row is not None, "the conflicting event is committed, and only ignored ones of last week are pruned"
    return _stored(row, is_new=is_new)


async def claim_events(tx: Tx, owner: Claimer, limit: int, lease_seconds: float) -> Sequence[StoredEvent]:
    """Claim up to `limit` due events that are not settled, oldest due first, for `lease_seconds` of database time."""
    rows = await tx.fetch(
        f"""
        WITH due AS MATERIALIZED (
            SELECT id FROM provider_events
            WHERE state = 'received' AND next_attempt_at <= (SELECT atlas_now())
              AND {claimable()}
            ORDER BY next_attempt_at, id LIMIT $3
            FOR NO KEY UPDATE SKIP LOCKED
        )
        UPDATE provider_events e
        SET {claimed("atlas_now() + $4::interval")}
        FROM due WHERE e.id = due.id
        RETURNING e.id, provider, event_id, state, outcome::text AS outcome, claim_epoch, body, attempts, received_at
        """,  # noqa: S608 - our own fragments
        owner.name,
        owner.incarnation,
        limit,
        timedelta(seconds=lease_seconds),
    )
    events = [
        attrs.evolve(
            _stored(row),
            epoch=row["claim_epoch"],
            body=row["body"],
            attempts=row["attempts"],
            received_at=row["received_at"],
        )
        for row in rows
    ]
    return sorted(events, key=lambda event: event.id)


async def settle_event(tx: Tx, event: StoredEvent, fact: ProviderFact) -> StoredEvent:
    """Book what the event says and write its outcome, all or nothing, once; settled before, the first outcome is returned.

    A claim that was lost meanwhile changes nothing: then the event is returned as it stands, settled or not. Raises as
    `finalize_purchase` does.
    """
    current = await _lock(tx, event)
    if current.is_settled or not _is_holder(event, current):
        return current
    outcome = await book_fact(tx, event.provider, fact)
    state = _state_after(fact, outcome)
    return await _settle(tx, event, state, outcome)


async def fail_event(tx: Tx, event: StoredEvent, error: str) -> StoredEvent:
    """Give the event up: no repetition can book it. A case tells a human, who finds the body in the row."""
    current = await _lock(tx, event)
    if current.is_settled or not _is_holder(event, current):
        return current
    case_id = await open_case(
        tx,
        "provider_event",
        f"provider_event:{event.id}",
        details={"provider": event.provider, "error": error[:300]},
    )
    return await _settle(tx, event, "failed", {"result": "failed", "case": case_id, "error": error[:300]})


async def postpone_event(tx: Tx, event: StoredEvent, error: str, *, counts: bool, at_least: float = 0.0) -> bool:
    """Try again later, each time after twice the time. A failure counts, an outage does not.

    `False`: the claim was lost, or it has been settled meanwhile; nothing was written.
    """
    tag = await tx.execute(
        f"""
        UPDATE provider_events
        SET attempts = attempts + $3::int, last_error = $4,
            -- without a counter the delay grows with the age, so that an outage costs no attempts
            next_attempt_at = atlas_now() + greatest($7::float8, least($6::float8, greatest($5::float8 * 2 ^ attempts,
                extract(epoch FROM atlas_now() - received_at) / 4)) * (0.75 + random() / 2)) * interval '1 second',
            {released()}
        WHERE id = $1 AND ($2::bigint IS NULL OR claim_epoch = $2) AND state = 'received'
        """,  # noqa: S608 - our own fragments
        event.id,
        event.epoch,
        int(counts),
        error[:500],
        FIRST_RETRY_SECONDS,
        LAST_RETRY_SECONDS,
        at_least,
    )
    return rows_of(tag) == 1


async def prune_events(tx: Tx, older_than: timedelta = timedelta(days=7), limit: int = 1000) -> int:
    """Forget up to `limit` events that meant nothing and are older; returns how many. Events about money are kept."""
    tag = await tx.execute(
        """
        WITH old AS MATERIALIZED (
            SELECT id FROM provider_events WHERE state = 'ignored' AND settled_at < atlas_now() - $1::interval
            ORDER BY settled_at LIMIT $2 FOR UPDATE SKIP LOCKED
        )
        DELETE FROM provider_events USING old WHERE provider_events.id = old.id
        """,
        older_than,
        limit,
    )
    return rows_of(tag)


async def book_fact(tx: Tx, provider: str, fact: ProviderFact) -> dict[str, object]:
    """Book what a provider said and return the outcome, with its `result`; the same fact again changes nothing.

    Raises as `finalize_purchase` does.
    """
    match fact:
        case Captured():
            await _note_contact(tx, fact.contact)
            outcome = await finalize_purchase(tx, fact.command)
            await mark_invoice_paid(tx, provider, fact.invoice_id, fact.command.order_id)
            await end_hold(tx, provider, fact.command.charge_id, "it was captured")
            return {
                "result": outcome.result.value,
                "money_in": outcome.money_in_id,
                "problem": outcome.problem,
                "replayed": outcome.replayed,
            }
        case Checkout():
            await _note_contact_unless_busy(tx, fact.contact)
            return {"result": "checkout", "verdict": (await check_checkout(tx, fact)).value}
        case Reversed():
            return await book_reversal(tx, provider, fact)
        case Held():
            return await book_hold(tx, provider, fact)
        case InvoiceClosed():
            closed = await close_invoice(tx, provider, fact.invoice_id, fact.why)
            await end_hold(tx, provider, fact.invoice_id, f"it was let go: {fact.why}")
            return {"result": "invoice_closed", "why": fact.why, "closed": closed}
        case NothingToBook():
            await _note_contact(tx, fact.contact)
            return {"result": "nothing", "why": fact.why}


def _state_after(fact: ProviderFact, outcome: Mapping[str, object]) -> EventState:
    """Events that meant nothing for money may be forgotten after a while."""
    match fact:
        case Checkout():
            return "ignored" if outcome["verdict"] == CheckoutVerdict.FINE else "processed"
        case InvoiceClosed():
            return "processed" if outcome["closed"] else "ignored"
        case NothingToBook():
            return "ignored"
    return "processed"


async def _note_contact_unless_busy(tx: Tx, contact: Contact | None) -> None:
    """A checkout has seconds: it does not wait for a payment of the same customer that is being booked."""
    if contact is not None and not await touch_contact_unless_busy(tx, contact.telegram_id):
        await _note_contact(tx, contact)


async def _note_contact(tx: Tx, contact: Contact | None) -> None:
    if contact is not None:
        await add_customer(
            tx,
            contact.telegram_id,
            language=contact.language,
            referrer_telegram_id=contact.referrer_telegram_id,
        )


async def _lock(tx: Tx, event: StoredEvent) -> StoredEvent:
    row = await tx.fetchrow(
        """
        SELECT id, provider, event_id, state, outcome::text AS outcome, claim_epoch FROM provider_events
        WHERE id = $1 FOR NO KEY UPDATE
        """,
        event.id,
    )
    if row is None:  # pruned: it meant nothing
        return attrs.evolve(event, state="ignored", outcome={"result": "nothing", "why": "it was settled long ago"})
    return attrs.evolve(_stored(row), epoch=row["claim_epoch"])


def _is_holder(event: StoredEvent, current: StoredEvent) -> bool:
    return event.epoch is None or event.epoch == current.epoch


async def _settle(tx: Tx, event: StoredEvent, state: EventState, outcome: dict[str, object]) -> StoredEvent:
    await tx.execute(
        f"""
        UPDATE provider_events
        SET state = $2, outcome = $3::text::jsonb, settled_at = atlas_now(), attempts = attempts + 1, last_error = NULL,
            {released()}
        WHERE id = $1
        """,  # noqa: S608 - our own fragments
        event.id,
        state,
        json.dumps(outcome),
    )
    return attrs.evolve(event, state=state, outcome=outcome)


def _stored(row: Row, *, is_new: bool = False) -> StoredEvent:
    return StoredEvent(
        id=row["id"],
        provider=row["provider"],
        event_id=row["event_id"],
        state=row["state"],
        outcome={} if row["outcome"] is None else json.loads(row["outcome"]),
        is_new=is_new,
    )


async def statement_position(tx: Tx, provider: str) -> int:
    """From which entry on the provider's statement is to be read; 0 if it never was."""
    position = await tx.fetchval("SELECT position FROM provider_statements WHERE provider = $1", provider)
    return max(0, (position or 0) - OVERLAP)


async def book_statement(
    tx: Tx, provider: str, facts: Sequence[ProviderFact], position: int, unreadable: Sequence[tuple[int, str]] = ()
) -> Sequence[tuple[int | None, str]]:
    """Book what a page of the statement says and is not booked yet, and note that it was read up to `position`.

    Returns the order and the result of each payment that nothing had told of. A fact that cannot be booked, and an entry that
    was `unreadable`, is a case and holds up no other. Reading a page twice changes nothing.
    """
    charges = [fact.command.charge_id for fact in facts if isinstance(fact, Captured)]
    rows = await tx.fetch(
        "SELECT charge_id FROM money_in WHERE provider = $1 AND charge_id = ANY($2::text[])", provider, charges
    )
    known = {row["charge_id"] for row in rows}
    found: list[tuple[int | None, str]] = []
    for fact in facts:
        if isinstance(fact, Captured) and fact.command.charge_id in known:
            continue
        await tx.execute("SAVEPOINT entry")
        try:
            outcome = await book_fact(tx, provider, fact)
        except BusinessError as error:
            await tx.execute("ROLLBACK TO SAVEPOINT entry")
            await _open_case(tx, provider, _name_of(fact), str(error))
        else:
            if isinstance(fact, Captured) and not outcome.get("replayed"):
                found.append((fact.command.order_id, str(outcome.get("result", ""))))
    for number, why in unreadable:
        await _open_case(tx, provider, f"entry {number}", why)
    await tx.execute(
        """
        INSERT INTO provider_statements (provider, position) VALUES ($1, $2)
        ON CONFLICT (provider) DO UPDATE
            SET position = greatest(provider_statements.position, excluded.position), read_at = atlas_now()
        """,
        provider,
        position,
    )
    return found


async def _open_case(tx: Tx, provider: str, about: str, why: str) -> None:
    await open_case(tx, "provider_statement", f"{provider}:{about}", details={"provider": provider, "error": why[:300]})


def _name_of(fact: ProviderFact) -> str:
    if isinstance(fact, Captured):
        return fact.command.charge_id
    return fact.charge_id if isinstance(fact, Reversed) else type(fact).__name__
