"""The payment watcher: invoices whose payment no message told us of, and events that were stored and not booked."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import attrs
import trio

from actors.announcements import PurchaseFinal
from actors.payments.events import INVOICES, LatePayment, ProviderAway, RefundMade
from actors.payments.intake import Intake, Unsettled
from actors.payments.provider import NotUnderstood, NotYet, PaymentError, ProviderRefused, StillOpen
from actors.payments.refunding import ask_for_refund
from actors.payments.registry import Providers, close_providers, open_providers
from actors.payments.settings import PaymentSettings
from actors.pool.client import Pool
from actors.pool.database_worker import ClaimingWorker, close_at_end
from db.billing.invoices import (
    Invoice,
    claim_invoices,
    close_invoice,
    close_stale_invoices,
    doubt_invoice,
    postpone_invoice,
    question_invoice,
    settle_invoice,
)
from db.billing.payment_facts import Captured, InvoiceClosed
from db.billing.pricing import note_rates
from db.billing.provider_events import (
    StoredEvent,
    book_statement,
    claim_events,
    postpone_event,
    prune_events,
    statement_position,
)
from db.billing.provider_refunds import ProviderRefund, claim_refunds, postpone_refund, settle_refund
from db.errors import ChargeConflict, DatabaseBusy, LeaseError
from runtime import Budget, Iteration, WakeUp, get_logger

log = get_logger("payments")
T = TypeVar("T")

_BUSY_RETRY = 5.0
_OFF_SECONDS = 300.0


@attrs.define(eq=False)
class PaymentWatcher(ClaimingWorker):
    """Settles what is late: stored events whose receiver died, open invoices that their provider says are paid, and refunds
    whose outcome is not known.

    Role: makes sure of D2 for money: a payment counts although every message about it was lost. Owns: its providers' HTTP
    clients. Receives: WakeUp. Sends: requests for leases to `pool`, by default not the gateway's.
    On crash: its claims are free for the next incarnation at once, and no attempt is counted.
    Invariants: no lease is held while a provider is asked; a row that fails delays no other; a payment found by asking and
    the same one told by an event are one payment.
    """

    log_name = "payments"
    starts_at_once = True

    payments: PaymentSettings
    concurrency: int = 4
    """Rows that are worked on at the same time."""
    statement_seconds: float = attrs.field(default=600.0, validator=attrs.validators.gt(0))
    """Seconds between two readings of the statements of providers that have one."""
    _providers: Providers = attrs.field(init=False, factory=dict)
    _statements_due: float = attrs.field(init=False, default=-math.inf)
    _rates_due: float = attrs.field(init=False, default=-math.inf)

    async def on_start(self) -> None:
        await super().on_start()
        self._providers = open_providers(self.payments)
        close = functools.partial(close_providers, self._providers)
        self.context.start_task(close_at_end, close, name="clients", inherit_deadline=False)

    async def iterate(self, budget: Budget) -> Iteration:
        intake = Intake.of(self.context, self.pool)
        try:
            claimer = await self.take_claimer(intake.pool)
            events = await intake.pool.run(
                "payment_watcher.events", claim_events, claimer, self.page_size, self.claim_seconds
            )
            self.context.failpoint("claimed")
            all_settled = await self._each(budget, events, lambda event: self._settle_event(intake, event))
            names = [name for name, provider in self._providers.items() if provider.is_watched]
            invoices = await intake.pool.run(
                "payment_watcher.invoices", claim_invoices, claimer, names, self.page_size, self.claim_seconds
            )
            all_settled &= await self._each(budget, invoices, lambda invoice: self._look_at(intake, invoice))
            names = [name for name, provider in self._providers.items() if provider.refunds]
            refunds = await intake.pool.run(
                "payment_watcher.refunds", claim_refunds, claimer, names, self.page_size, self.claim_seconds
            )
            all_settled &= await self._each(budget, refunds, lambda refund: self._refund(intake.pool, refund))
            await self._ask_for_rates(intake.pool)
            await self._read_statements(budget, intake.pool)
            await intake.pool.run("payment_watcher.stale", close_stale_invoices)
            await intake.pool.run("payment_watcher.prune", prune_events)
        except LeaseError as error:
            return self.without_database(error)
        self.keep_claimer(claimer, all_claims_settled=all_settled and not budget.is_spent)
        if not all_settled:
            self.context.after(_BUSY_RETRY, WakeUp())
        done = (len(events), len(invoices), len(refunds))
        return Iteration(done=sum(done), more=self.page_size in done)

    async def _ask_for_rates(self, pool: Pool) -> None:
        """Keep the table of rates new. A source that is away leaves what there is, which ages."""
        source = self._providers.get(self.payments.rates.source)
        if source is None or trio.current_time() < self._rates_due:
            return
        self._rates_due = trio.current_time() + self.payments.rates.every
        try:
            rates = await source.exchange_rates()
        except (PaymentError, ProviderRefused) as error:
            self.context.emit(ProviderAway(self.context.name, source.name, str(error)))
            return
        await pool.run("payment_watcher.rates", note_rates, rates, source.name)

    async def _read_statements(self, budget: Budget, pool: Pool) -> None:
        """Book what no message told of, at the start and every `statement_seconds`. A provider that is away waits for its
        next turn."""
        if trio.current_time() < self._statements_due:
            return
        self._statements_due = trio.current_time() + self.statement_seconds
        for provider in self._providers.values():
            if not provider.has_statement:
                continue
            position = await pool.run("payment_watcher.position", statement_position, provider.name)
            is_last = False
            try:
                while not is_last and not budget.is_spent:
                    page = await provider.read_statement(position)
                    found = await pool.run(
                        "payment_watcher.statement",
                        book_statement,
                        provider.name,
                        page.facts,
                        page.position,
                        page.unreadable,
                    )
                    self.context.failpoint("read")
                    for order, result in found:
                        self.context.emit(LatePayment(self.context.name, provider.name, order or 0, result))
                        self.context.publish(PurchaseFinal(provider.name, result, order_id=order))
                    position, is_last = page.position, page.is_last
            except (PaymentError, ProviderRefused) as error:
                self.context.emit(ProviderAway(self.context.name, provider.name, str(error)))

    async def _each(self, budget: Budget, rows: Sequence[T], work: Callable[[T], Awaitable[None]]) -> bool:
        """Do the work for each row, several at a time, as long as there is time. The database's absence ends it all.

        Whether each claim was used up or given back: a row that another session keeps locked is left.
        """
        slots = trio.CapacityLimiter(self.concurrency)
        lost: list[LeaseError] = []
        all_settled = True

        async def one(row: T) -> None:
            nonlocal all_settled
            async with slots:
                if budget.is_spent or lost:
                    return
                with budget.isolate(type(row).__name__):
                    try:
                        await work(row)
                    except DatabaseBusy as error:
                        all_settled = False
                        log.warning("a row is left for a moment", row=type(row).__name__, error=str(error))
                    except LeaseError as error:
                        lost.append(error)
            await budget.count()

        async with trio.open_nursery() as nursery:
            for row in rows:
                nursery.start_soon(one, row)
        if lost:
            raise lost[0]
        return all_settled

    async def _settle_event(self, intake: Intake, event: StoredEvent) -> None:
        provider = self._providers.get(event.provider)
        if provider is None:
            why = f"payments.{event.provider} is off: set its credentials again until its events are booked"
            self.context.emit(ProviderAway(self.context.name, event.provider, why))
            postpone = functools.partial(postpone_event, counts=False, at_least=_OFF_SECONDS)
            await intake.pool.run("payment_watcher.postpone", postpone, event, why)
            return
        # It has been noted when the event is due again.
        with contextlib.suppress(Unsettled):
            await intake.settle(provider, event)

    async def _refund(self, pool: Pool, refund: ProviderRefund) -> None:
        provider = self._providers[refund.provider]
        try:
            answer = await ask_for_refund(provider, refund)
            self.context.failpoint("refunded")
        except (PaymentError, ProviderRefused) as error:
            self.context.emit(ProviderAway(self.context.name, provider.name, str(error)))
            await pool.run("payment_watcher.postpone", postpone_refund, refund, str(error))
            return
        if answer.state == "pending" and refund.state == "pending":
            await pool.run("payment_watcher.postpone", postpone_refund, refund, answer.why)
            return
        settled = await pool.run("payment_watcher.refund", settle_refund, refund, answer)
        self.context.emit(RefundMade(self.context.name, provider.name, settled.id, settled.state, answer.why))

    async def _look_at(self, intake: Intake, invoice: Invoice) -> None:
        provider, pool = self._providers[invoice.provider], intake.pool
        try:
            found = await provider.look_up(invoice)
            self.context.failpoint("asked")
            match found:
                case Captured():
                    outcome = await pool.run("payment_watcher.settle", settle_invoice, invoice, found)
                    if outcome is not None and not outcome.replayed:
                        self.context.emit(
                            LatePayment(self.context.name, invoice.provider, invoice.order_id, outcome.result.value)
                        )
                        result, money_in = outcome.result.value, outcome.money_in_id
                        self.context.publish(PurchaseFinal(invoice.provider, result, money_in, invoice.order_id))
                case InvoiceClosed():
                    await pool.run(
                        "payment_watcher.close", close_invoice, invoice.provider, found.invoice_id, found.why
                    )
                case StillOpen():
                    await pool.run("payment_watcher.postpone", postpone_invoice, invoice)
        except (NotUnderstood, ChargeConflict) as error:
            log.warning("an invoice needs a human", invoice=invoice.id, provider=invoice.provider, why=str(error))
            await pool.run("payment_watcher.question", question_invoice, invoice, str(error))
            self.context.failpoint("questioned")
            INVOICES.labels(invoice.provider, "questioned").inc()
        except NotYet as error:
            self.context.emit(ProviderAway(self.context.name, invoice.provider, str(error)))
            await pool.run("payment_watcher.doubt", doubt_invoice, invoice, str(error))
            self.context.failpoint("doubted")
            INVOICES.labels(invoice.provider, "unknown").inc()
        except (PaymentError, ProviderRefused) as error:
            self.context.emit(ProviderAway(self.context.name, invoice.provider, str(error)))
            await pool.run("payment_watcher.postpone", postpone_invoice, invoice, str(error))
            self.context.failpoint("postponed")
        else:
            self.context.failpoint("looked")
            outcomes = {Captured: "settled", InvoiceClosed: "closed", StillOpen: "open"}
            INVOICES.labels(invoice.provider, outcomes[type(found)]).inc()
