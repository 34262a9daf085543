"""What waits for a human in the database: counted now and then for all who look, and shown on the first page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import attrs
import trio

from actors.health.housekeeping import VIOLATIONS
from actors.keys.events import KEYS_SETTLED
from actors.pool.client import Pool
from db.stories import Backlog, read_backlog
from runtime.desk import Addition, Desk, Figure, Need, Row
from runtime.error_text import error_text

EVERY: Final = 10.0
"""Seconds between two counts."""
_WITHIN: Final = 2.0


@attrs.define(eq=False)
class BacklogWatch:
    """Counts what waits, and tells the desk."""

    pool: Pool
    last: Backlog | None = None
    trouble: str = ""

    async def run(self) -> None:
        """Count until cancelled. A database that does not answer is a fact to be shown."""
        while True:
            try:
                self.last = await self.pool.run("desk.backlog", read_backlog, within=_WITHIN, hold=_WITHIN)
                self.trouble = ""
            except Exception as error:  # noqa: BLE001  # whatever the database says, probes and the desk are served on
                self.trouble = error_text(error)
            await trio.sleep(EVERY)

    def addition(self, desk: Desk) -> Addition:
        """The needs, facts and figures that follow."""
        del desk
        return Addition(
            needs=self.needs,
            facts=self.facts,
            figures=(
                Figure("payments", "Payments a minute", self._payments, is_rate=True),
                Figure("activations", "Activations a minute", _activations, is_rate=True),
            ),
            words=_WORDS,
        )

    def needs(self) -> Sequence[Need]:
        """What of it needs a human."""
        found: list[Need] = []
        broken = violations()
        if broken:
            found.append(
                Need(
                    "money",
                    f"does not add up: {', '.join(f'{view} {rows}' for view, rows in broken.items())}; `atlas verify` says where",
                )
            )
        now = self.last
        if now is None:
            return found
        if now.late_keys:
            found.append(
                Need(
                    "keys",
                    f"{now.late_keys} wait for access longer than two minutes",
                    since=_moment(now.oldest_key),
                    hurt="They have paid or were given access, and cannot connect.",
                    href="/actors/activation",
                )
            )
        if now.open_cases:
            found.append(
                Need(
                    "cases",
                    f"{now.open_cases} open",
                    is_urgent=False,
                    since=_moment(now.oldest_case),
                    href="/cases",
                )
            )
        if now.withdrawals:
            found.append(
                Need(
                    "withdrawals",
                    f"{now.withdrawals} to pay out",
                    is_urgent=False,
                    since=_moment(now.oldest_withdrawal),
                    href="/withdrawals",
                )
            )
        if now.late_notices:
            found.append(
                Need(
                    "notices",
                    f"{now.late_notices} were tried and are not sent after five minutes",
                    is_urgent=False,
                    href="/actors/notifications",
                )
            )
        return found

    def facts(self) -> Sequence[Row]:
        """What is said beside the heartbeats."""
        broken = violations()
        rows = [
            Row("money adds up", f"{sum(broken.values())} rows do not" if broken else "all views empty", bool(broken))
        ]
        if self.trouble:
            rows.append(Row("database", self.trouble, is_wrong=True, href="/pools"))
        elif self.last is not None:
            rows.append(Row("cases", f"{self.last.open_cases}", href="/cases"))
        return rows

    def _payments(self) -> float | None:
        return None if self.last is None or self.trouble else float(self.last.payments)


def violations() -> Mapping[str, int]:
    """The money views that were not empty at housekeeping's last look, with their rows."""
    return {values[0]: int(figure) for values, figure in VIOLATIONS.samples().items() if figure}


def _activations() -> float:
    return sum(figure for values, figure in KEYS_SETTLED.samples().items() if values == ("activation", "activated"))


def _moment(at: datetime | None) -> float | None:
    return None if at is None else round(at.timestamp())


_WORDS: Final = {
    "money adds up": "деньги сходятся",
    "database": "база данных",
    "cases": "случаи",
    "Payments a minute": "Платежей в минуту",
    "Activations a minute": "Активаций в минуту",
}
