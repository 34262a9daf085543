"""What the keys of one iteration share: its budget, its nodes, and what has to be said of those that are late."""

from __future__ import annotations

import attrs
import trio

from db.keys import KeyClaim
from runtime.worker import Budget


@attrs.define(eq=False)
class Overdue:
    """The keys of one iteration that have waited too long, or failed too often, and are not settled."""

    after: float
    "Seconds that are too long."
    attempts: int
    "Failures that are too many."
    count: int = 0
    oldest: KeyClaim | None = None
    waited: float = 0.0
    why: str = ""

    def note(self, claim: KeyClaim, waited: float, attempts: int, why: str) -> None:
        """Take in a key that was not settled: so many seconds after it was wanted, with so many failures."""
        if waited < self.after and attempts < self.attempts:
            return
        self.count += 1
        if self.oldest is None or waited > self.waited:
            self.oldest, self.waited, self.why = attrs.evolve(claim, attempts=attempts), waited, why


@attrs.define(eq=False)
class Round:
    """What the keys of one iteration share."""

    budget: Budget
    overdue: Overdue
    at_the_database: trio.CapacityLimiter
    "Keys whose outcome may be written down at the same time."
    claimed_at: float = attrs.field(factory=trio.current_time)
    "On trio's clock: what the claims know of the database's clock was so at this moment."
    is_whole: bool = True
    "Every claim was used up or given back."
    silent: dict[str, Exception] = attrs.field(factory=dict)
    "Nodes that did not answer in time, and how that looked."
    _slots: dict[str, trio.CapacityLimiter] = attrs.field(factory=dict)

    def waited(self, claim: KeyClaim) -> float:
        """Seconds since the key has been wanted so, by the database's clock."""
        return claim.waited + trio.current_time() - self.claimed_at

    def slots_of(self, node: str, concurrency: int) -> trio.CapacityLimiter:
        """How many keys may be told to this node at a time, shared by the whole iteration."""
        return self._slots.setdefault(node, trio.CapacityLimiter(concurrency))
