"""The same actor in pykka: a thread for each. Called in a process of its own only."""

from __future__ import annotations

import gc
import time

import pykka

from benchmarks.messages.resident import rss


class _Counter(pykka.ThreadingActor):
    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def on_receive(self, message: object) -> int:
        if isinstance(message, int):
            self.total += message
        return self.total


def tell(count: int, burst: int) -> float:
    """Seconds for one message told and handled, in bursts that are waited for."""
    ref = _Counter.start()
    try:
        begin = time.perf_counter()
        for _ in range(0, count, burst):
            for _ in range(burst):
                ref.tell(1)
            ref.ask("total", timeout=60)
        return (time.perf_counter() - begin) / count
    finally:
        ref.stop()


def ask(count: int) -> float:
    """Seconds for one ask with a timeout."""
    ref = _Counter.start()
    try:
        begin = time.perf_counter()
        for _ in range(count):
            ref.ask("total", timeout=60)
        return (time.perf_counter() - begin) / count
    finally:
        ref.stop()


def spawn(count: int) -> float:
    """Seconds for one actor, started and able to answer."""
    refs = []
    begin = time.perf_counter()
    for _ in range(count):
        ref = _Counter.start()
        ref.ask("total", timeout=60)
        refs.append(ref)
    took = time.perf_counter() - begin
    for ref in refs:
        ref.stop()
    return took / count


def idle_actor_memory(count: int) -> float:
    """Bytes of resident memory per actor that waits, its thread's used stack included."""
    refs = [_Counter.start()]
    refs[0].ask("total", timeout=60)
    gc.collect()
    before = rss()
    for _ in range(count):
        refs.append(_Counter.start())
        refs[-1].ask("total", timeout=60)
    gc.collect()
    grown = (rss() - before) / count
    for ref in refs:
        ref.stop()
    return grown
