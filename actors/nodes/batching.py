"""Changes of one node's keys, sent together when many are asked for at once (group commit)."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

import attrs

from runtime import Deferred
from runtime.metrics import histogram
from vpn.errors import NodeError
from vpn.protocol import Applied, KeySpec, Removal, Removed

MAX_CHANGES: Final = 200
"Changes that are sent together: few enough that the next one waits for less than a second."

BATCH_SIZE = histogram(
    "atlas_node_changes_together", "Changes of keys sent in one request.", buckets=(1, 2, 5, 10, 20, 50, 100, 200)
)

Change: TypeAlias = KeySpec | Removal
ChangeOutcome: TypeAlias = Applied | Removed | NodeError
PendingAnswer: TypeAlias = Deferred[Applied] | Deferred[Removed]


@attrs.frozen
class _QueuedChange:
    change: Change
    answer: PendingAnswer

    @property
    def is_abandoned(self) -> bool:
        return not self.answer.is_open and self.answer.deadline < float("inf")


@attrs.define(eq=False)
class ChangeBatcher:
    """Group commit: a change that finds nothing on its way goes at once and alone; what arrives meanwhile goes together.

    `send` gets a group and answers with the outcome of each, or raises NodeError for all of them. A group has at most
    MAX_CHANGES changes and never two of one key; changes of one key keep their order. Who gave up before its change was
    sent is left out. At most `max_in_flight` groups are on their way at once; `start` starts the task of one.
    """

    start: Callable[[Callable[[], Awaitable[None]]], object]
    send: Callable[[Sequence[Change]], Awaitable[Sequence[ChangeOutcome]]]
    max_in_flight: int = 2
    _waiting: deque[_QueuedChange] = attrs.field(init=False, factory=deque)
    _keys_in_flight: set[str] = attrs.field(init=False, factory=set)
    _in_flight: int = attrs.field(init=False, default=0)

    def add(self, change: Change, answer: PendingAnswer) -> None:
        """Send the change, now or with the next group; its outcome is the answer."""
        self._waiting.append(_QueuedChange(change, answer))
        if self._in_flight < self.max_in_flight:
            self._in_flight += 1
            self.start(self._send_batches)

    @property
    def waiting(self) -> int:
        """Changes that are not sent yet."""
        return len(self._waiting)

    async def _send_batches(self) -> None:
        try:
            while group := self._next_batch():
                names = {each.change.key_id for each in group}
                self._keys_in_flight |= names
                try:
                    await self._send(group)
                finally:
                    self._keys_in_flight -= names
        finally:
            self._in_flight -= 1

    def _next_batch(self) -> list[_QueuedChange]:
        group: list[_QueuedChange] = []
        later: deque[_QueuedChange] = deque()
        taken = set(self._keys_in_flight)
        while self._waiting and len(group) < MAX_CHANGES:
            each = self._waiting.popleft()
            if each.is_abandoned:
                continue
            (later if each.change.key_id in taken else group).append(each)
            taken.add(each.change.key_id)
        self._waiting.extendleft(reversed(later))
        return group

    async def _send(self, group: Sequence[_QueuedChange]) -> None:
        BATCH_SIZE.observe(len(group))
        try:
            outcomes: Sequence[ChangeOutcome] = await self.send([each.change for each in group])
        except NodeError as error:
            outcomes = [error] * len(group)
        for each, outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, NodeError):
                each.answer.fail(outcome)
            else:
                each.answer.reply(outcome)  # type: ignore[arg-type]  # a put is answered with Applied, a removal with Removed
