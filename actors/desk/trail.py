"""What operators did at the desk, in the audit trail: at once while the database is there, else when it is back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import attrs
import trio

from actors.pool.client import Pool
from db.tx import Tx
from db.work.audit import act_as, record_audit
from runtime import Event, EventBus
from runtime.desk import DeskAction

_KEPT: Final = 1000
"""Actions that wait for the database; beyond that the oldest is in the log alone."""
_AGAIN: Final = 5.0
_WITHIN: Final = 5.0


@attrs.define(eq=False)
class ActionTrail:
    """Writes down each action that did not write to the audit trail itself, refused ones too."""

    pool: Pool
    _waiting: deque[DeskAction] = attrs.field(init=False, factory=lambda: deque(maxlen=_KEPT))
    _news: trio.Event = attrs.field(init=False, factory=trio.Event)

    def subscribe(self, events: EventBus) -> Callable[[], None]:
        """Take what is told from now on; returns a function that ends it."""
        return events.subscribe(self._note, DeskAction)

    def _note(self, event: Event) -> None:
        if isinstance(event, DeskAction) and not event.is_kept:
            self._waiting.append(event)
            self._news.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            while self._waiting:
                action = self._waiting.popleft()
                try:
                    await self.pool.run("desk.trail", _write, action, within=_WITHIN, hold=_WITHIN)
                except Exception:  # noqa: BLE001  # whatever the database says, probes and the desk are served on
                    if len(self._waiting) < _KEPT:
                        self._waiting.appendleft(action)
                    await trio.sleep(_AGAIN)


async def _write(tx: Tx, action: DeskAction) -> None:
    await act_as(tx, action.identity)
    details = {"why": action.why, "outcome": action.outcome}
    subject = f"{action.action} {action.what}".strip()
    await record_audit(tx, action.identity.actor, "desk.action", subject=subject, details=details)
