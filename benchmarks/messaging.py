"""What messaging costs, as ratios to plain trio, asyncio and pykka in the same run.

All durations are medians of rounds in each of which everything is measured once, in a new random order, so that a busy machine
slows all sides alike. asyncio and pykka run in a process of their own.
"""

from __future__ import annotations

import functools
import statistics

import attrs

from benchmarks.messages.asks import ask
from benchmarks.messages.idle_memory import allocated, resident
from benchmarks.messages.lateness import NAP, lateness
from benchmarks.messages.restarts import restarts
from benchmarks.messages.spawns import spawn
from benchmarks.messages.tells import tell
from benchmarks.processes import OwnProcess
from benchmarks.result import Result, faster, figure, share
from benchmarks.rounds import medians, percentile
from benchmarks.yardsticks import plain_asyncio, plain_trio, with_pykka
from runtime import DEFAULT_CAPACITY

MICROSECONDS = 1e6
MILLISECONDS = 1e3
BURST = 1_000
BUSY_ACTORS = 20
LONG_HANDLER = 100e-6


@attrs.frozen
class Sizes:
    """How much of everything."""

    rounds: int = 25
    hops: int = 5_000
    asks: int = 1_000
    spawns: int = 100
    restart_rounds: int = 5
    restarts: int = 1_000
    idle_actors: int = 10_000
    idle_supervised: int = 1_000
    lateness_rounds: int = 3
    lateness_seconds: float = 2.0


QUICK = Sizes(
    rounds=1,
    hops=2_000,
    asks=200,
    spawns=30,
    restart_rounds=1,
    restarts=100,
    idle_actors=200,
    idle_supervised=50,
    lateness_rounds=1,
    lateness_seconds=0.1,
)


def measure(quick: bool) -> list[Result]:
    """Every line of the group; `quick` proves that it runs, its figures mean little."""
    sizes = QUICK if quick else Sizes()
    return [*_exchanges(sizes), *_restarts(sizes), *_memory(sizes), *_lateness(sizes)]


def _exchanges(sizes: Sizes) -> list[Result]:
    with OwnProcess() as other:
        took = medians(
            {
                "tell": lambda: tell(sizes.hops, BURST),
                "tell, default mailbox": lambda: tell(
                    sizes.hops // DEFAULT_CAPACITY * DEFAULT_CAPACITY, DEFAULT_CAPACITY
                ),
                "trio hop": lambda: plain_trio.channel_hop(sizes.hops, 0),
                "trio hop, buffered": lambda: plain_trio.channel_hop(sizes.hops, DEFAULT_CAPACITY),
                "asyncio hop": lambda: other.call(plain_asyncio.queue_hop, sizes.hops),
                "pykka tell": lambda: other.call(with_pykka.tell, sizes.hops, BURST),
                "ask": lambda: ask(sizes.asks),
                "trio ping-pong": lambda: plain_trio.ping_pong(sizes.asks),
                "asyncio ping-pong": lambda: other.call(plain_asyncio.future_ping_pong, sizes.asks),
                "pykka ask": lambda: other.call(with_pykka.ask, sizes.asks),
                "spawn": lambda: spawn(sizes.spawns),
                "trio start": lambda: plain_trio.task_start(sizes.spawns),
                "asyncio start": lambda: other.call(plain_asyncio.task_start, sizes.spawns),
                "pykka start": lambda: other.call(with_pykka.spawn, sizes.spawns),
            },
            sizes.rounds,
        )
    us = {name: seconds * MICROSECONDS for name, seconds in took.items()}
    tells = functools.partial(faster, "tell + handle", us["tell"], "us")
    asks = functools.partial(faster, "ask round trip with deadline", us["ask"], "us")
    spawns = functools.partial(share, "spawn, supervised, until it serves", us["spawn"], "us")
    return [
        tells("an awaited trio channel hop", us["trio hop"], at_least=10, wanted=15),
        tells(
            f"the same, buffer of {DEFAULT_CAPACITY}",
            us["trio hop, buffered"],
            at_least=10,
            wanted=15,
        ),
        faster(
            f"tell + handle, mailbox of {DEFAULT_CAPACITY} (the default), an ask after each {DEFAULT_CAPACITY}",
            us["tell, default mailbox"],
            "us",
            "an awaited trio channel hop",
            us["trio hop"],
            at_least=10,
            wanted=15,
        ),
        tells("an asyncio.Queue hop", us["asyncio hop"]),
        tells("pykka's tell", us["pykka tell"], at_least=5),
        share(
            "ask round trip with deadline",
            us["ask"],
            "us",
            "a raw trio ping-pong",
            us["trio ping-pong"],
            at_most=3,
        ),
        share("ask round trip with deadline", us["ask"], "us", "an asyncio future ping-pong", us["asyncio ping-pong"]),
        asks("pykka's ask", us["pykka ask"], at_least=4),
        spawns("trio's nursery.start", us["trio start"]),
        spawns("an asyncio task that has started", us["asyncio start"]),
        spawns("pykka's start", us["pykka start"]),
    ]


def _restarts(sizes: Sizes) -> list[Result]:
    with OwnProcess() as own, OwnProcess() as trio_alone, OwnProcess() as asyncio_alone:
        own.call(restarts, sizes.restarts // 10)
        rounds, trio_rounds, asyncio_rounds = [], [], []
        for _ in range(sizes.restart_rounds):
            rounds.append(own.call(restarts, sizes.restarts))
            trio_rounds.append(trio_alone.call(plain_trio.restart_p99, sizes.restarts))
            asyncio_rounds.append(asyncio_alone.call(plain_asyncio.restart_p99, sizes.restarts))
    name = "crash → restarted and serving, no backoff"
    middle = statistics.median(statistics.median(seconds) for seconds in rounds)
    slowest = statistics.median(percentile(seconds, 0.99) for seconds in rounds)
    bare = functools.partial(share, f"{name}: p99", slowest * MILLISECONDS, "ms")
    return [
        figure(f"{name}: median", middle * MILLISECONDS, "ms"),
        figure(f"{name}: p99", slowest * MILLISECONDS, "ms", at_most=1),
        bare("a trio task caught and begun again: p99", statistics.median(trio_rounds) * MILLISECONDS),
        bare("the same in asyncio: p99", statistics.median(asyncio_rounds) * MILLISECONDS),
    ]


def _memory(sizes: Sizes) -> list[Result]:
    with OwnProcess() as own:
        rss = own.call(resident, sizes.idle_actors)
    with OwnProcess() as own:
        python = own.call(allocated, sizes.idle_actors)
    with OwnProcess() as own:
        supervised = own.call(functools.partial(resident, is_supervised=True), sizes.idle_supervised)
    with OwnProcess() as own:
        trio_task = own.call(plain_trio.idle_task_memory, sizes.idle_actors)
    with OwnProcess() as own:
        asyncio_task = own.call(plain_asyncio.idle_task_memory, sizes.idle_actors)
    with OwnProcess() as own:
        pykka_actor = own.call(with_pykka.idle_actor_memory, sizes.idle_supervised)
    many, fewer = f"{sizes.idle_actors:,}", f"{sizes.idle_supervised:,}"
    name = f"memory per idle actor: RSS over {many}"
    return [
        figure(name, rss, "bytes", at_most=12_000, wanted=8_000),
        share(name, rss, "bytes", "a trio task with a memory channel", trio_task),
        share(name, rss, "bytes", "an asyncio task with a queue", asyncio_task),
        share(name, rss, "bytes", f"a pykka actor: RSS over {fewer}", pykka_actor),
        figure(f"memory per idle actor: allocated by Python over {many}", python, "bytes"),
        figure(
            f"memory per idle actor with its supervisor's share: RSS over {fewer}",
            supervised,
            "bytes",
            at_most=12_000,
            wanted=8_000,
        ),
    ]


def _lateness(sizes: Sizes) -> list[Result]:
    beside: dict[str, tuple[int, float]] = {
        "an idle loop": (0, 0.0),
        f"{BUSY_ACTORS} busy actors with empty handlers": (BUSY_ACTORS, 0.0),
        f"{BUSY_ACTORS} busy actors with handlers of {LONG_HANDLER * MICROSECONDS:.0f} us": (BUSY_ACTORS, LONG_HANDLER),
    }
    seconds = sizes.lateness_seconds
    with OwnProcess() as other:
        late = medians(
            {
                **{name: functools.partial(lateness, *load, seconds) for name, load in beside.items()},
                "trio": lambda: plain_trio.lateness_p99(BUSY_ACTORS, seconds, NAP),
                "asyncio": lambda: other.call(plain_asyncio.lateness_p99, BUSY_ACTORS, seconds, NAP),
            },
            sizes.lateness_rounds,
        )
    lines = [
        figure(f"loop lateness beside {name}: p99", late[name] * MILLISECONDS, "ms", at_most=5 if load[0] else None)
        for name, load in beside.items()
    ]
    for other_loop in ("trio", "asyncio"):
        name = f"loop lateness beside {BUSY_ACTORS} {other_loop} tasks that never rest: p99"
        lines.append(figure(name, late[other_loop] * MILLISECONDS, "ms"))
    return lines
