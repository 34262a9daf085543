"""The figures of the runtime itself: actors up, ends and restarts by reason, mailboxes, messages not handled.

They are read from the actors when they are asked for; nothing is counted along the way of a message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from runtime.core.readiness import judge_readiness
from runtime.events import Event
from runtime.metrics import counter, gauge
from runtime.operations.running import RunningSystem
from runtime.supervision.events import ChildExited

if TYPE_CHECKING:
    from runtime.core.address import Address

Samples = Iterable[tuple[tuple[str, ...], float]]

READY = gauge("atlas_ready", "1 while the system as a whole is ready, as `/readyz` and `atlas status` say.")
NOT_READY = gauge(
    "atlas_not_ready",
    "1 for each reason for which the system is not ready (effect not_ready), or that it can do with (effect degraded).",
    labels=("actor", "about", "reason", "effect"),
)
UP = gauge("atlas_actor_up", "1 while an incarnation of the actor serves, else 0.", labels=("actor",))
CHILD_STATE = gauge(
    "atlas_child_state",
    "1 for the state that an actor or a group is in; parked and unstopped need an operator.",
    labels=("child", "state"),
)
RESTARTS = counter("atlas_actor_restarts_total", "Incarnations beyond the first.", labels=("actor",))
ENDS = counter("atlas_child_ends_total", "Incarnations that ended, by how they did.", labels=("child", "reason"))
MAILBOX_DEPTH = gauge("atlas_mailbox_depth", "User messages waiting.", labels=("actor",))
MAILBOX_OLDEST = gauge(
    "atlas_mailbox_oldest_seconds", "How long the oldest user message has been waiting.", labels=("actor",)
)
MAILBOX_DROPPED = counter("atlas_mailbox_dropped_total", "Messages lost to the overflow policy.", labels=("actor",))
EXPIRED = counter(
    "atlas_requests_expired_total", "Requests whose deadline passed before their turn came.", labels=("actor",)
)
DEAD_LETTERS = counter("atlas_dead_letters_total", "Messages that nobody handled.", labels=("actor", "message"))


def publish(system: RunningSystem) -> Callable[[], None]:
    """Let the metrics of this process show this system; returns a function that ends it."""

    def of_actors(figure: Callable[[Address], float]) -> Callable[[], Samples]:
        return lambda: [((address.name,), figure(address)) for address in system.registry]

    def note(event: Event) -> None:
        assert isinstance(event, ChildExited), "it subscribes to nothing else"
        ENDS.labels(event.actor, event.reason).inc()

    def reasons() -> Samples:
        judged = judge_readiness(system.registry)
        for effect, found in (("not_ready", judged.not_ready), ("degraded", judged.degraded)):
            for reason in found:
                yield (reason.actor, reason.about, reason.kind, effect), 1

    READY.from_source(lambda: [((), system.is_up and judge_readiness(system.registry).is_ready)])
    NOT_READY.from_source(reasons)
    UP.from_source(of_actors(lambda address: address.is_up))
    RESTARTS.from_source(of_actors(lambda address: address.restarts))
    MAILBOX_DEPTH.from_source(of_actors(lambda address: address.mailbox.statistics().current_buffer_used))
    MAILBOX_OLDEST.from_source(of_actors(lambda address: address.mailbox.statistics().oldest_age))
    MAILBOX_DROPPED.from_source(of_actors(lambda address: address.mailbox.dropped))
    EXPIRED.from_source(of_actors(lambda address: address.expired))
    CHILD_STATE.from_source(lambda: [((child.name, child.state.value), 1) for child in system.tree.children()])
    DEAD_LETTERS.from_source(lambda: system.services.deadletters.counts().items())
    unsubscribe = system.services.events.subscribe(note, ChildExited)

    def withdraw() -> None:
        unsubscribe()
        for instrument in (
            READY,
            NOT_READY,
            UP,
            RESTARTS,
            MAILBOX_DEPTH,
            MAILBOX_OLDEST,
            MAILBOX_DROPPED,
            EXPIRED,
            CHILD_STATE,
            DEAD_LETTERS,
        ):
            instrument.from_source(None)

    return withdraw
