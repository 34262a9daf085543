"""Reminders: customers hear in time that their access is about to end."""

from __future__ import annotations

import attrs

from actors.pool.client import pool_of
from actors.pool.database_worker import DatabaseWorker
from db.access.reminders import queue_reminders
from db.errors import LeaseError
from db.lease.queue import Lane
from runtime import Budget, Iteration
from runtime.metrics import counter

REMINDERS = counter("atlas_reminders_total", "Reminders that were queued.")


@attrs.define(eq=False)
class Reminders(DatabaseWorker):
    """Queues each reminder that is due as a message, a page in a transaction; `notifications` sends them.

    Role: the clock of what customers are told about an end. Owns: nothing; what is due is a row that the database keeps.
    Receives: WakeUp. Sends: nothing; the transaction wakes the worker that sends messages.
    On crash: a page is done or not begun.
    Invariants: one message per customer, kind and end; after a downtime the latest relevant one only; none after the end.
    """

    log_name = "reminders"
    waiting = "the reminders wait"
    starts_at_once = True  # reminders that came due meanwhile are worth less with every minute

    async def iterate(self, budget: Budget) -> Iteration:
        pool = pool_of(self.context, self.pool, lane=Lane.BATCH)
        queued = 0
        try:
            while True:
                page = await pool.run("reminders.queue", queue_reminders, self.page_size)
                self.context.failpoint("queued")
                queued += page.queued
                REMINDERS.inc(page.queued)
                await budget.count(page.looked_at)
                if page.looked_at < self.page_size or budget.is_spent:
                    return Iteration(done=queued, more=page.looked_at == self.page_size)
        except LeaseError as error:
            return self.without_database(error, done=queued)
