"""Automatic renewal: plans that customers want to keep are bought again from their balances before they end."""

from __future__ import annotations

import logging
import random
from typing import ClassVar

import attrs

from actors.announcements import PurchaseFinal
from actors.pool.client import Pool, pool_of
from actors.pool.database_worker import ClaimingWorker
from db.billing.renewal_schedule import MAX_FAILURES, RenewalClaim, claim_renewals, fail_renewal, postpone_renewal
from db.billing.renewals import RenewalResult, renew
from db.errors import DatabaseBusy, LeaseError
from db.lease.queue import Lane
from runtime import Budget, Event, Iteration, Killed, WakeUp
from runtime.metrics import counter

RENEWALS = counter("atlas_renewals_total", "Renewals that were tried, by how the try ended.", labels=("outcome",))


@attrs.frozen
class Renewed(Event):
    """A subscription was paid for from the balance."""

    level: ClassVar[int] = logging.INFO
    subscription: int
    price: str
    until: str

    def line(self) -> str:
        return f"subscription {self.subscription} is renewed for {self.price}, until {self.until}"


@attrs.frozen
class RenewalLacksFunds(Event):
    """A balance does not cover a renewal."""

    level: ClassVar[int] = logging.INFO
    subscription: int
    price: str
    next_try: str

    def line(self) -> str:
        return f"subscription {self.subscription} is not renewed: its balance lacks {self.price}; tried again {self.next_try}"


@attrs.frozen
class RenewalPostponed(Event):
    """The database could not do it now, as when another session keeps the customer's row locked; no failure was counted."""

    level: ClassVar[int] = logging.WARNING
    subscription: int
    retry_in: float
    why: str

    def line(self) -> str:
        return f"the renewal of subscription {self.subscription} waits {self.retry_in:.0f} s: {self.why}"


@attrs.frozen
class RenewalFailed(Event):
    """A renewal ended in an error of ours; nothing was debited."""

    level: ClassVar[int] = logging.ERROR
    subscription: int
    failures: int
    is_final: bool
    why: str

    def line(self) -> str:
        what = "a case is open for it (`atlas cases`)" if self.is_final else "it is tried again"
        return f"the renewal of subscription {self.subscription} failed {self.failures} times, {what}: {self.why}"


_BUSY_RETRY = (5.0, 10.0)


@attrs.define(eq=False)
class AutoRenewal(ClaimingWorker):
    """Claims renewals that are due, a page at a time, and tries to pay each one in a transaction of its own.

    Role: the only one who charges without being asked each time. Owns: nothing that may not die with it; what is due is a
    row that the database keeps. Receives: WakeUp, also when a balance grew that a renewal was waiting for. Sends: nothing.
    On crash: its claims are free for the next incarnation at once, and no failure is counted.
    Invariants: a period is charged at most once, with its extension, whatever restarts; one customer's trouble delays no
    other; not enough money is no success and no failure, and neither is a row that another session keeps locked.
    """

    log_name = "renewals"
    waiting = "the renewals wait"
    starts_at_once = True

    async def iterate(self, budget: Budget) -> Iteration:
        pool = pool_of(self.context, self.pool, lane=Lane.BATCH)
        try:
            claimer = await self.take_claimer(pool)
            claims = await pool.run("auto_renewal.claim", claim_renewals, claimer, self.page_size, self.claim_seconds)
            self.context.failpoint("claimed")
            all_settled = True
            for claim in claims:
                if budget.is_spent:
                    return Iteration(done=budget.done, more=True, note="the rest is claimed again")
                all_settled &= await self._renew(pool, claim)
                await budget.count()
        except LeaseError as error:
            return self.without_database(error, done=budget.done)
        self.keep_claimer(claimer, all_claims_settled=all_settled)
        return Iteration(done=len(claims), more=len(claims) == self.page_size)

    async def _renew(self, pool: Pool, claim: RenewalClaim) -> bool:
        """Whether the claim is used up."""
        try:
            outcome = await pool.run("auto_renewal.renew", renew, claim)
        except DatabaseBusy as error:
            return await self._postpone(pool, claim, str(error))
        except (LeaseError, Killed):
            raise
        except Exception as error:  # noqa: BLE001  whatever is wrong with one customer must not stop the others
            await self._fail(pool, claim, f"{type(error).__name__}: {error}")
            return True
        self.context.failpoint("renewed")
        RENEWALS.labels(outcome.result.value).inc()
        if outcome.result is RenewalResult.RENEWED:
            self.context.publish(PurchaseFinal("balance", "entitlement"))
            self.context.emit(
                Renewed(
                    actor=self.context.name,
                    subscription=claim.subscription_id,
                    price=str(outcome.price),
                    until=f"{outcome.expires_at:%Y-%m-%d %H:%M} UTC",
                )
            )
        elif outcome.result is RenewalResult.LACKS_FUNDS:
            self.context.emit(
                RenewalLacksFunds(
                    actor=self.context.name,
                    subscription=claim.subscription_id,
                    price=str(outcome.price),
                    next_try=f"{outcome.next_try:%Y-%m-%d %H:%M} UTC",
                )
            )
        return True

    async def _postpone(self, pool: Pool, claim: RenewalClaim, why: str) -> bool:
        delay = random.uniform(*_BUSY_RETRY)  # noqa: S311  spreads load, guards nothing
        is_given_back = await pool.run("auto_renewal.postpone", postpone_renewal, claim, delay, why)
        self.context.failpoint("postponed")
        self.context.after(delay, WakeUp())
        RENEWALS.labels("postponed").inc()
        self.context.emit(
            RenewalPostponed(actor=self.context.name, subscription=claim.subscription_id, retry_in=delay, why=why)
        )
        return is_given_back

    async def _fail(self, pool: Pool, claim: RenewalClaim, why: str) -> None:
        failures = await pool.run("auto_renewal.fail", fail_renewal, claim, why)
        self.context.failpoint("failed")
        if failures is None:
            return  # another process has it now
        RENEWALS.labels("failed").inc()
        self.context.emit(
            RenewalFailed(
                actor=self.context.name,
                subscription=claim.subscription_id,
                failures=failures,
                is_final=failures >= MAX_FAILURES,
                why=why,
            )
        )
