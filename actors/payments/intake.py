"""An authentic event on its way into the books: stored, understood, settled. Each step may be the last one that runs."""

from __future__ import annotations

import functools

import attrs
import trio

from actors.announcements import PurchaseFinal
from actors.payments.events import (
    DELIVERIES,
    EVENT_SETTLE_SECONDS,
    EventFailed,
    EventPostponed,
    EventSettled,
    ProviderAway,
)
from actors.payments.provider import NotUnderstood, NotYet, PaymentError, Provider, ProviderRefused, ProviderUnavailable
from actors.pool.client import Pool, pool_of
from db.billing.payment_facts import Captured
from db.billing.provider_events import (
    MAX_ATTEMPTS,
    StoredEvent,
    fail_event,
    postpone_event,
    settle_event,
    store_event,
)
from db.driver.classify import Fault, classify, sqlstate
from db.errors import BusinessError
from runtime import AtlasError, Context, Killed

_WITHIN = 2.5
"""Seconds for a connection, and again for a transaction. What a provider waits for has a deadline of its own."""


class Unsettled(PaymentError):
    """The event could not be settled for now."""

    def __init__(self, text: str, *, is_stored: bool = True) -> None:
        super().__init__(text)
        self.is_stored = is_stored
        """Whether it is safe: the watcher goes on with it."""


@attrs.frozen
class Intake:
    """Takes events for one incarnation of one actor. Its failpoints are `stored`, `understood` and `settled`."""

    context: Context
    pool: Pool

    @classmethod
    def of(cls, context: Context, pool: str) -> Intake:
        """For the actor whose context this is. Raises UnknownActor."""
        return cls(context, pool_of(context, pool))

    async def receive(
        self, provider: Provider, event_id: str, body: bytes, *, arrived_at: float | None = None
    ) -> StoredEvent:
        """Store the event, settle it, and return it settled; a repetition returns the first outcome.

        `arrived_at` is when it came by the loop's clock, by default now. Raises Unsettled when that was not possible now, and
        then the provider was told what it waits for. What was stored is safe either way.
        """
        began = trio.current_time() if arrived_at is None else arrived_at
        is_stored = False
        try:
            with trio.move_on_at(began + provider.judge_within(body)) as patience:
                event = await self._store(provider, event_id, body)
                is_stored = True
                self.context.failpoint("stored")
                if event.is_settled and event.is_new:
                    DELIVERIES.labels(provider.name, event.state).inc()
                    why = "its id cannot be kept"
                    self.context.emit(EventFailed(self.context.name, provider.name, event.id, why))
                elif event.is_settled:
                    DELIVERIES.labels(provider.name, "replayed").inc()
                else:
                    event = await self._settle_now(provider, attrs.evolve(event, body=body))
                    EVENT_SETTLE_SECONDS.labels(provider.name).observe(trio.current_time() - began)
        except Unsettled:
            await self._refuse_unjudged(provider, body)
            raise
        if patience.cancelled_caught:
            await self._refuse_unjudged(provider, body)
            raise Unsettled("it could not be judged in the time that its provider gives", is_stored=is_stored)
        await self._follow_up(provider, body, event)
        return event

    async def settle(self, provider: Provider, event: StoredEvent) -> StoredEvent:
        """Understand a stored event and book it. Raises Unsettled after noting when it is to be tried again."""
        settled = await self._settle_now(provider, event)
        await self._follow_up(provider, event.body, settled)
        return settled

    async def _store(self, provider: Provider, event_id: str, body: bytes) -> StoredEvent:
        try:
            return await self.pool.run(
                "payments.store", store_event, provider.name, event_id, body, within=_WITHIN, hold=_WITHIN
            )
        except Exception as error:
            if not is_away(error):
                raise
            raise Unsettled(f"the event could not be stored: {in_plain_words(error)}", is_stored=False) from error

    async def _settle_now(self, provider: Provider, event: StoredEvent) -> StoredEvent:
        try:
            fact = await provider.understand(event.body)
            self.context.failpoint("understood")
            settled = await self.pool.run("payments.settle", settle_event, event, fact, within=_WITHIN, hold=_WITHIN)
        except (NotUnderstood, BusinessError) as error:
            if isinstance(error, ProviderRefused):  # our credentials, not the event
                raise await self._postponed(event, error, counts=False) from error
            return await self._failed(event, str(error))
        except ProviderUnavailable as error:
            raise await self._postponed(event, error, counts=False) from error
        except NotYet as error:
            if event.attempts + 1 >= MAX_ATTEMPTS:
                return await self._failed(event, str(error))
            raise await self._postponed(event, error, counts=True) from error
        except Killed:
            raise
        except Exception as error:
            if is_away(error):
                raise await self._postponed(event, error, counts=False) from error
            if event.attempts + 1 >= MAX_ATTEMPTS:
                return await self._failed(event, in_plain_words(error))
            raise await self._postponed(event, error, counts=True) from error
        self.context.failpoint("settled")
        if not settled.is_settled:
            raise Unsettled("somebody else has claimed the event")
        DELIVERIES.labels(provider.name, settled.state).inc()
        outcome = settled.outcome
        if isinstance(fact, Captured) and settled.state != "failed" and outcome.get("replayed") is False:
            money_in = outcome.get("money_in")
            self.context.publish(
                PurchaseFinal(
                    provider.name,
                    str(outcome.get("result", "")),
                    money_in if isinstance(money_in, int) else None,
                    fact.command.order_id,
                )
            )
        if settled.state == "processed":
            self.context.emit(
                EventSettled(
                    self.context.name,
                    provider.name,
                    settled.id,
                    str(settled.outcome.get("result", "")),
                    str(settled.outcome.get("problem", "")),
                )
            )
        return settled

    async def _follow_up(self, provider: Provider, body: bytes, event: StoredEvent) -> None:
        """The event is safe: that the provider cannot be told more for now is no reason to have it sent again."""
        if event.state == "failed":
            await self._refuse_unjudged(provider, body)
            return
        try:
            await provider.follow_up(body, event)
        except (PaymentError, ProviderRefused) as error:
            self.context.emit(ProviderAway(self.context.name, provider.name, str(error)))

    async def _refuse_unjudged(self, provider: Provider, body: bytes) -> None:
        try:
            await provider.refuse_unjudged(body)
        except (PaymentError, ProviderRefused) as error:
            self.context.emit(ProviderAway(self.context.name, provider.name, str(error)))

    async def _failed(self, event: StoredEvent, why: str) -> StoredEvent:
        try:
            failed = await self.pool.run("payments.fail", fail_event, event, why, within=_WITHIN, hold=_WITHIN)
        except Exception as error:
            if not is_away(error):
                raise
            raise Unsettled(f"the event is stored, and the database went away: {in_plain_words(error)}") from error
        DELIVERIES.labels(event.provider, failed.state).inc()
        self.context.emit(EventFailed(self.context.name, event.provider, event.id, why))
        return failed

    async def _postponed(self, event: StoredEvent, error: Exception, *, counts: bool) -> Unsettled:
        why = in_plain_words(error)
        DELIVERIES.labels(event.provider, "postponed").inc()
        self.context.emit(EventPostponed(self.context.name, event.provider, event.id, why))
        with trio.CancelScope(shield=True):
            try:
                postpone = functools.partial(postpone_event, counts=counts)
                await self.pool.run("payments.postpone", postpone, event, why, within=1.0, hold=1.0)
            except Exception as lost:
                if not is_away(lost):  # otherwise it is due again when the claim or the first grace ends
                    raise
        return Unsettled(f"the event is stored and will be settled later: {why}")


def in_plain_words(error: BaseException) -> str:
    """What may be told of an error. Our own are sentences; a driver's or the server's may quote the body that it was about."""
    if isinstance(error, AtlasError):
        return str(error)
    code = sqlstate(error)
    return f"{type(error).__name__} ({code})" if code else type(error).__name__


def is_away(error: BaseException) -> bool:
    """Whether the database is not there, or not now: nothing is known to be wrong with the event."""
    return classify(error) in (Fault.DOWN, Fault.TRANSIENT, Fault.AMBIGUOUS)
