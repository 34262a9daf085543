"""The figures of the runtime itself: actors up, ends and restarts by reason, mailboxes, messages not handled.

They are read from the actors when they are asked for; nothing is counted along the way of a message. All actors that descend
from one declared actor share one label, `name.*`, so that there are never more labels than declared actors, twice.
"""

from __future__ import annotations

import importlib.metadata
import operator
import platform
from collections import Counter
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

BUILD_INFO = gauge(
    "atlas_build_info",
    "1, with the version of the program, of Python and of trio.",
    labels=("version", "python", "trio"),
)
READY = gauge("atlas_ready", "1 while the system as a whole is ready, as `/readyz` and `atlas status` say.")
NOT_READY = gauge(
    "atlas_not_ready",
    "1 for each reason for which the system is not ready (effect not_ready), or that it can do with (effect degraded).",
    labels=("actor", "about", "reason", "effect"),
)
UP = gauge(
    "atlas_actor_up",
    "1 while an incarnation of the actor serves, else 0; of spawned ones, how many.",
    labels=("actor",),
)
CHILD_STATE = gauge(
    "atlas_child_state",
    "1 for the state that an actor or a group is in, of spawned actors how many are; parked and unstopped need an operator.",
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


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def publish(system: RunningSystem) -> Callable[[], None]:
    """Let the metrics of this process show this system; returns a function that ends it."""

    spawned = system.services.spawned

    def of_actors(
        figure: Callable[[Address], float], *, past: str = "", together: Callable[[float, float], float] = operator.add
    ) -> Callable[[], Samples]:
        def samples() -> Samples:
            found: dict[tuple[str, ...], float] = {}
            for address in system.registry:
                label, value = (address.metric_label,), figure(address)
                found[label] = together(found[label], value) if label in found else value
            for (name, counted), value in spawned.past.items():
                if counted == past:
                    found[name,] = found.get((name,), 0) + value
            return found.items()

        return samples

    def states() -> Samples:
        found = Counter(
            (system.tree.label_of(child.name), child.state.value) for child in system.tree.children(limit=None)
        )
        return found.items()

    def note(event: Event) -> None:
        assert isinstance(event, ChildExited), "it subscribes to nothing else"
        ENDS.labels(system.tree.label_of(event.actor), event.reason).inc()

    def reasons() -> Samples:
        judged = judge_readiness(system.registry)
        for effect, found in (("not_ready", judged.not_ready), ("degraded", judged.degraded)):
            for reason in found:
                yield (reason.actor, reason.about, reason.kind, effect), 1

    BUILD_INFO.labels(_version("atlas"), platform.python_version(), _version("trio")).set(1)
    READY.from_source(lambda: [((), system.is_up and judge_readiness(system.registry).is_ready)])
    NOT_READY.from_source(reasons)
    UP.from_source(of_actors(lambda address: address.is_up))
    RESTARTS.from_source(of_actors(lambda address: address.restarts, past="restarts"))
    MAILBOX_DEPTH.from_source(of_actors(lambda address: address.mailbox.statistics().current_buffer_used))
    MAILBOX_OLDEST.from_source(of_actors(lambda address: address.mailbox.statistics().oldest_age, together=max))
    MAILBOX_DROPPED.from_source(of_actors(lambda address: address.mailbox.dropped, past="dropped"))
    EXPIRED.from_source(of_actors(lambda address: address.expired, past="expired"))
    CHILD_STATE.from_source(states)
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
