"""The runtime's own figures, as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import pytest
import trio
import trio.testing
from prometheus_client.parser import text_string_to_metric_families

from runtime.child import StopCause, StopReason
from runtime.config.loader import load_text
from runtime.core.actor import Actor, handler
from runtime.message import Message, Suspend
from runtime.metrics import METRICS
from runtime.operations.metrics import publish
from runtime.system.system import System

TREE = """
[actor.plain]
actor = "{here}:Plain"
mailbox = {{ capacity = 2, overflow = "drop_newest" }}
[actor.weak]
actor = "{here}:Plain"
give_up = "park"
backoff = {{ initial = 0, maximum = 0, jitter = 0 }}
"""


@attrs.frozen
class Fall(Message):
    """Crash."""


@attrs.frozen
class Hint(Message):
    """May be lost."""

    droppable = True


@attrs.frozen
class Unknown(Message):
    """Nobody handles it."""


@attrs.define(eq=False)
class Plain(Actor):
    """Does as it is told."""

    @handler
    async def fall(self, _: Fall) -> None:
        raise RuntimeError("told to")

    @handler
    async def hint(self, _: Hint) -> None:
        """Take it."""


@pytest.fixture
def system() -> Iterator[System]:
    """A system whose figures are shown."""
    system = System(load_text(TREE.format(here=__name__)))
    withdraw = publish(system)
    yield system
    withdraw()
    assert not {name for name, _, _ in figures() if name == "atlas_actor_up"}, "a system that has ended shows nothing"


def figures() -> dict[tuple[str, str, str], float]:
    """All samples that name an actor or a child: by metric, name, and the other label if there is one."""
    found: dict[tuple[str, str, str], float] = {}
    for family in text_string_to_metric_families(METRICS.render()):
        for sample in family.samples:
            labels = dict(sample.labels)
            whom = labels.pop("actor", None) or labels.pop("child", None)
            if whom is not None and len(labels) < 2:
                found[sample.name, whom, "".join(labels.values())] = sample.value
    return found


# S-913
async def test_what_becomes_of_the_actors_and_their_messages_is_shown(
    system: System, autojump_clock: trio.testing.MockClock
) -> None:
    assert autojump_clock.autojump_threshold == 0
    plain, weak = (system.addresses[name].ref for name in ("plain", "weak"))
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: system.root.run(task_status=task_status))
        crashed = figures().get(("atlas_child_ends_total", "weak", "crashed"), 0.0)
        for _ in range(6):
            weak.tell(Fall())
            await trio.testing.wait_all_tasks_blocked()
        plain.tell(Unknown())
        await trio.testing.wait_all_tasks_blocked()
        plain.tell(Suspend())
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            plain.tell(Hint())
        await trio.sleep(7)
        assert 'atlas_not_ready{actor="weak",about="",reason="parked",effect="not_ready"} 1' in METRICS.render()
        shown = figures()
        assert [shown["atlas_actor_up", name, ""] for name in ("plain", "weak")] == [1, 0]
        assert shown["atlas_child_state", "weak", "parked"] == 1
        assert shown["atlas_child_state", "plain", "running"] == 1
        assert shown["atlas_actor_restarts_total", "weak", ""] == 5
        assert shown["atlas_child_ends_total", "weak", "crashed"] == crashed + 6
        assert shown["atlas_mailbox_depth", "plain", ""] == 2
        assert shown["atlas_mailbox_oldest_seconds", "plain", ""] == pytest.approx(7)
        assert shown["atlas_mailbox_dropped_total", "plain", ""] == 1
        assert shown["atlas_dead_letters_total", "plain", "Unknown"] == 1
        assert shown["atlas_requests_expired_total", "plain", ""] == 0
        system.root.request_stop(StopReason(StopCause.SHUTDOWN, "over"))


async def test_a_request_that_came_too_late_is_shown(system: System) -> None:
    address = system.addresses["plain"]
    address.expired += 1  # how it comes to be counted is the message loop's own matter
    assert figures()["atlas_requests_expired_total", "plain", ""] == 1
