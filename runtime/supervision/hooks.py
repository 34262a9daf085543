"""Calls from a supervisor into its children, none of which may harm the supervisor."""

from __future__ import annotations

from collections.abc import Callable

from runtime.events import Event
from runtime.supervision.slot import Slot
from runtime.supervision_events import ChildHookFailed, ChildParked

Emit = Callable[[Event], None]


class Hooks:
    """Tells children what becomes of them; an exception of theirs is reported and goes no further."""

    def __init__(self, supervisor: str, emit: Emit) -> None:
        self._supervisor = supervisor
        self._emit = emit

    def decide(self, slot: Slot, *, restarts: bool) -> None:
        """What follows its end."""
        self.call(slot, "on_decided", lambda: slot.child.on_decided(restarts=restarts))

    def park(self, slot: Slot, reason: str) -> None:
        """No further incarnation until an operator restarts it."""
        self._emit(ChildParked(actor=slot.name, supervisor=self._supervisor, reason=reason))
        self.call(slot, "on_parked", lambda: slot.child.on_parked(reason))

    def finish(self, slot: Slot, reason: str) -> None:
        """No further incarnation is planned. Told once."""
        if not slot.finished:
            slot.finished = True
            self.call(slot, "on_final", lambda: slot.child.on_final(reason))

    def call(self, slot: Slot, hook: str, call: Callable[[], None]) -> None:
        """Call into the child."""
        try:
            call()
        except Exception as error:  # noqa: BLE001  # a child's bug must not stop the supervision of its siblings
            self.report(slot, hook, error)

    def report(self, slot: Slot, hook: str, error: Exception) -> None:
        """A hook raised."""
        text = f"{type(error).__name__}: {error}"
        self._emit(ChildHookFailed(actor=slot.name, supervisor=self._supervisor, hook=hook, error=text))
