"""The thread, the C timer and the exits, each in a real process with its limits shortened."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runtime.core.beats import Beats
from runtime.watchdog.thread import WatchdogThread
from runtime.watchdog.verdict import StaleLimits

PREAMBLE = """
import re, sys, threading, time
import attrs, trio
from runtime.core import beats as slots
from runtime.log import logs
from runtime.core.actor import Actor, handler
from runtime.core.beats import Beats
from runtime.message import Message
from runtime.core.services import Services
from runtime.watchdog.systemd import Systemd
from runtime.testing.system import actor_system
from runtime.watchdog.verdict import StaleLimits
from runtime.watchdog.watchdog import Watchdog

LIMITS = StaleLimits(event_loop=0.6, worker=0.9, healthcheck=0.9, blocked=0.3, diagnostic_worker=1.2)

@attrs.frozen
class Block(Message):
    pass

@attrs.define(eq=False)
class Blocker(Actor):
    how: object

    @handler
    async def block(self, message: Block) -> None:
        self.how()

async def until_told_to_end():
    # Standard input is the test's way to say: you are alive, go.
    fd = sys.stdin.fileno()
    await trio.lowlevel.wait_readable(fd)

def watched(scenario, limits=LIMITS, gil_timer=None, **options):
    limits = attrs.evolve(limits, gil_timer=gil_timer)
    async def main():
        services = Services()
        dog = Watchdog(services.beats, limits, interval=0.1, events=services.events, **options)
        async with trio.open_nursery() as nursery:
            await nursery.start(dog.run)
            async with actor_system(services) as system:
                await scenario(system, services.beats)
            nursery.cancel_scope.cancel()
    trio.run(main)

def blocking(how, worker_due=0.1):
    async def scenario(system, beats):
        beats.probed()
        worker = beats.worker("activation")
        worker.idle_until(worker.due_in(worker_due))
        ref = await system.start(Blocker(how), name="pool.main")
        ref.tell(Block())
        await until_told_to_end()
    return scenario
"""


class Child:
    """A real process under a watchdog."""

    def __init__(self, code: str, directory: Path, **environment: str) -> None:
        self._err = directory / "stderr"
        script = directory / "scenario.py"
        script.write_text(PREAMBLE + textwrap.dedent(code))
        with self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, str(script)], stdin=subprocess.PIPE, stderr=err, env={**os.environ, **environment}
            )

    @property
    def told(self) -> str:
        return self._err.read_text()

    def wait(self) -> int:
        return self.process.wait(60)

    def until(self, needle: str) -> str:
        """Wait until the process has written `needle`; a file has no event, so look again and again."""
        deadline = time.monotonic() + 30
        while needle not in self.told:
            assert time.monotonic() < deadline, f"{needle!r} never came: {self.told}"
            assert self.process.poll() is None, f"it has left with {self.process.returncode}: {self.told}"
            time.sleep(0.01)  # rule-ok: a file has no event
        return self.told

    def end(self) -> int:
        """Prove that the loop turns: it must react."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.wait()


@contextmanager
def child(code: str, directory: Path, **environment: str) -> Iterator[Child]:
    running = Child(code, directory, **environment)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()
        if running.process.stdin is not None:
            running.process.stdin.close()


def test_the_timer_in_c_comes_after_every_stale_limit_unless_it_is_set() -> None:
    def delay(limits: StaleLimits) -> float:
        return WatchdogThread(Beats(), limits, interval=5.0, loop_thread=0).gil_timer

    assert delay(StaleLimits()) == 90.0 + 2 * 5.0 + 10.0
    assert delay(StaleLimits(gil_timer=200.0)) == 200.0


FREEZES = {
    "blocking-call": "lambda: time.sleep(3600)",
    "lock-taken-twice": "lambda: (lock := threading.Lock(), lock.acquire(), lock.acquire())",
    "busy-loop": "lambda: exec('while True: pass')",
}


# S-806
@pytest.mark.parametrize("how", FREEZES.values(), ids=FREEZES)
def test_all_three_beats_stale_leave_with_70_stack_actor_and_message(how: str, tmp_path: Path) -> None:
    with child(f"watched(blocking({how}))", tmp_path) as process:
        assert process.wait() == 70
        told = process.told
    assert "WARNING the event loop has not turned" in told, "reported before it was stale"
    assert "all three heartbeats are stale, leaving with status 70" in told
    assert re.search(r"handling: actor pool\.main, message Block, for \d\.\d s", told)
    assert "Blocker.block" in told
    assert "scenario.py:" in told
    assert "worker activation is overdue" not in told, "nobody on a frozen loop is blamed"
    assert "activation is overdue" in told


def test_a_block_in_an_actors_task_names_that_actor(tmp_path: Path) -> None:
    code = """
    @attrs.define(eq=False)
    class Tasker(Actor):
        @handler
        async def block(self, message: Block) -> None:
            self.context.start_task(self.work)

        async def work(self):
            await trio.sleep(0.05)
            time.sleep(3600)

    async def scenario(system, beats):
        (await system.start(Tasker(), name="reconcile")).tell(Block())
        await trio.sleep_forever()

    watched(scenario)
    """
    with child(code, tmp_path) as process:
        assert process.wait() == 70
        assert "handling: actor reconcile, no message in hand" in process.told
        assert "trio task: reconcile/work" in process.told


# S-809
def test_code_that_holds_the_interpreter_lock_is_ended_by_the_timer_with_status_1(tmp_path: Path) -> None:
    code = """
    watched(blocking(lambda: re.match(r"(a+)+$", "a" * 64 + "b")), gil_timer=1.5)
    """
    with child(code, tmp_path) as process:
        assert process.wait() == 1
        told = process.told
    assert "Timeout (0:00:01.500000)!" in told
    assert "scenario.py" in told, "the stack of the loop's thread"
    assert "leaving with status 70" not in told


# S-807
def test_a_stale_loop_beside_a_fresh_worker_is_reported_and_stays_alive(tmp_path: Path) -> None:
    code = "watched(blocking(lambda: time.sleep(2.5), worker_due=600))"
    with child(code, tmp_path) as process:
        told = process.until("the event loop turns again after")
        assert told.count("CRITICAL the event loop has not turned") == 1, "once per episode"
        assert told.count("WARNING the event loop has not turned") == 1
        assert "pool.main, message Block" in told
        assert process.end() == 0


def test_a_stale_worker_or_health_check_is_repaired_and_the_process_lives(tmp_path: Path) -> None:
    code = """
    logs.start()

    async def scenario(system, beats):
        repaired = trio.Event()
        beats.probed()
        worker = beats.worker("activation")
        worker.idle_until(worker.due_in(0.1))
        with trio.fail_after(20):
            while len(SEEN) < 2:
                await trio.sleep(0.01)
        await until_told_to_end()

    SEEN = []
    watched(scenario, repair=SEEN.append)
    print(sorted(action.kind.value for action in SEEN))
    """
    with child(code, tmp_path) as process:
        process.until("worker activation is overdue")
        told = process.until("healthcheck healthcheck is silent")
        assert told.count("activation is overdue") == 1
        assert process.end() == 0
        assert "leaving with status" not in process.told


def test_a_starved_pool_makes_a_diagnostic_even_while_the_loop_stands(tmp_path: Path) -> None:
    code = """
    async def scenario(system, beats):
        beats.probed()
        beats.pool_wait_spike("pool.main")
        beats.worker("activation").begin(0.1)
        time.sleep(3600)

    limits = attrs.evolve(LIMITS, healthcheck=2.5)
    watched(scenario, limits, diagnostic=lambda: ["activation holds lease 7 for 118 s"])
    """
    with child(code, tmp_path) as process:
        assert process.wait() == 70
        told = process.told
    assert told.count("CRITICAL workers starve") == 1
    assert told.index("CRITICAL workers starve") < told.index("leaving with status 70")
    assert "activation holds lease 7 for 118 s" in told
    assert re.search(r"last pool wait spike: \d\.\d s ago", told)


# S-810
def test_a_process_that_was_stopped_is_forgiven_one_round(tmp_path: Path) -> None:
    code = """
    async def scenario(system, beats):
        worker = beats.worker("activation")
        async def beat():
            while True:
                beats.probed()
                worker.idle_until(worker.due_in(0.1))
                await trio.sleep(0.05)
        print("serving", file=sys.stderr, flush=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(beat)
            await until_told_to_end()
            nursery.cancel_scope.cancel()

    watched(scenario, gil_timer=60)
    """
    with child(code, tmp_path) as process:
        process.until("serving")
        process.process.send_signal(signal.SIGSTOP)
        os.waitpid(process.process.pid, os.WUNTRACED)
        time.sleep(2.5)  # rule-ok: the pause itself is what is tested
        process.process.send_signal(signal.SIGCONT)
        process.until("all beats count from now on")
        assert "leaving with status" not in process.told
        assert process.end() == 0


# S-810
def test_a_machine_that_slept_is_forgiven(tmp_path: Path) -> None:
    """S-810: its monotonic clock stood still, so only the clock that counts the sleep can tell."""
    code = """
    asleep, dogs = [0.0], []

    def how():
        time.sleep(0.8)
        asleep[0] += 4000.0
        while dogs[0].thread.ages_count_from == float("-inf"):
            time.sleep(0.01)
        time.sleep(1.4)  # longer than the shortest limit, counted from the block's begin; not from the forgiving

    async def scenario(system, beats):
        beats.probed()
        worker = beats.worker("activation")
        worker.idle_until(worker.due_in(0.1))
        ref = await system.start(Blocker(how), name="pool.main")
        ref.tell(Block())
        await until_told_to_end()

    class Dog(Watchdog):
        def __init__(self, *args, **options):
            super().__init__(*args, boot_clock=lambda: time.clock_gettime(time.CLOCK_BOOTTIME) + asleep[0], **options)
            dogs.append(self)

    Watchdog = Dog
    watched(scenario, StaleLimits(event_loop=2.0, worker=2.0, healthcheck=2.0, blocked=0.3))
    """
    with child(code, tmp_path) as process:
        told = process.until("the event loop turns again")
        assert "the machine slept for 4000.0 s; all beats count from now on" in told
        assert "the process paused" not in told
        assert "stale, leaving" not in told
        assert process.end() == 0


def test_pauses_without_a_turn_of_the_loop_are_not_forgiven_for_ever(tmp_path: Path) -> None:
    """The first pause is forgiven; the loop stands, so the next ones are not."""
    with child("watched(blocking(lambda: time.sleep(3600)), gil_timer=60)", tmp_path) as process:
        process.until("WARNING the event loop has not turned")
        for _ in range(3):
            process.process.send_signal(signal.SIGSTOP)
            os.waitpid(process.process.pid, os.WUNTRACED)
            time.sleep(1.6)  # rule-ok: the pause is what is tested, longer than every limit
            process.process.send_signal(signal.SIGCONT)
            if process.process.poll() is not None:
                break
        assert process.wait() == 70


# S-813
def test_a_stderr_that_nobody_reads_does_not_keep_a_wedged_process_alive(tmp_path: Path) -> None:
    script = tmp_path / "scenario.py"
    fill = (
        "import os; os.set_blocking(2, False)\ntry:\n    while True: os.write(2, b'x' * 4096)\nexcept OSError: pass\n"
    )
    fill += "os.set_blocking(2, True)\n"
    for code, status in (
        ("watched(blocking(lambda: time.sleep(3600)))", 70),
        ("watched(blocking(lambda: re.match(r'(a+)+$', 'a' * 64 + 'b')), gil_timer=1.0)", 1),
    ):
        script.write_text(PREAMBLE + fill + code)
        process = subprocess.Popen([sys.executable, str(script)], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            assert process.wait(60) == status
        finally:
            process.kill()
            assert process.stdin is not None
            assert process.stderr is not None
            process.stdin.close()
            process.stderr.close()


# S-812
def test_systemd_hears_of_us_until_all_three_beats_are_stale(tmp_path: Path) -> None:
    code = """
    async def scenario(system, beats):
        beats.probed()
        await until_told_to_end()
        beats.healthcheck -= 100
        beats.worker("activation").idle_until(time.monotonic() - 100)
        await trio.sleep(2)
        time.sleep(60)

    watched(scenario, systemd=Systemd.from_environment())
    """
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(30)
        environment = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "600000"}
        with child(code, tmp_path, **environment) as process:
            assert manager.recv(100) == b"WATCHDOG=1"
            assert process.process.stdin is not None
            process.process.stdin.close()
            for _ in range(4):  # health check and workers are stale from the first of these looks on
                assert manager.recv(100) == b"WATCHDOG=1"
            assert process.wait() == 70
            manager.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    assert manager.recv(100) == b"WATCHDOG=1"
            assert "all three heartbeats are stale" in process.told


def test_a_normal_end_leaves_no_thread_and_no_timer(tmp_path: Path) -> None:
    code = """
    async def scenario(system, beats):
        pass

    watched(scenario, gil_timer=0.5)
    names = [thread.name for thread in threading.enumerate()]
    assert names == ["MainThread"], names
    time.sleep(1.2)
    """
    with child(code, tmp_path) as process:
        assert process.wait() == 0
        assert process.told == ""
