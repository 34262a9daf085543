"""The node's clock: the backend's time carried on, whatever the host's own clock is set to."""

from __future__ import annotations

import os
from pathlib import Path

import attrs
import pytest

from vpn.agent.config.settings import ExpirySettings
from vpn.agent.state.clock import ClockFile, NodeClock, TimeSource
from vpn.agent.state.expiry import BackendContact
from vpn.agent.state.records import encode_line

DAY = 86_400.0
START = 1.8e9
EXPIRY = ExpirySettings(grace=1000.0, silence=100.0, settle=50.0)


@attrs.define
class Host:
    """A host's two clocks: `true` time passes for both, and the wall clock is `wrong` by some seconds."""

    true: float = START
    wrong: float = 0.0
    booted: float = START - 500.0

    def clock(self, offset: float | None = None) -> NodeClock:
        """The clock of an agent that starts here."""
        return NodeClock(offset, wall=lambda: self.true + self.wrong, elapsed=lambda: self.true - self.booted)

    def boot(self, down: float = 60.0) -> None:
        """The host is started again."""
        self.true += down
        self.booted = self.true - 10.0


@pytest.mark.parametrize("step", [3.0, -3.0, 2 * DAY, -5 * DAY])
def test_a_step_of_the_hosts_clock_is_noticed_and_moves_nothing(step: float) -> None:
    host = Host()
    clock = host.clock()
    clock.hear(host.true)
    host.true += 10
    assert clock.look() == 0 and clock.steps == 0
    host.wrong = step
    assert clock.look() == pytest.approx(step)
    assert clock.now() == pytest.approx(host.true)
    assert clock.skew == pytest.approx(step) and clock.steps == 1
    assert clock.look() == 0, "it was said once"


def test_a_clock_that_is_slewed_is_no_step() -> None:
    host = Host()
    clock = host.clock()
    for _ in range(100):
        host.true += 1
        host.wrong += 0.0005
        assert clock.look() == 0


def test_without_the_backend_the_hosts_clock_is_followed_and_ends_nothing_for_a_day() -> None:
    host = Host(wrong=-3600.0)
    clock = host.clock()
    assert clock.source is TimeSource.WALL
    host.wrong = 0.0  # a time server was reached after the start
    clock.look()
    assert clock.now() == pytest.approx(host.true)
    ends = []
    for passed in (0, DAY - 1, 2):
        host.true += passed
        ends.append(clock.may_end)
    assert ends == [False, False, True]
    assert host.clock(offset=0.0).may_end, "a clock that may be moved is the operator's own word"


def test_one_saying_of_the_backend_far_from_ours_moves_nothing_and_two_that_agree_do() -> None:
    host = Host()
    clock = host.clock()
    assert clock.hear(host.true)
    assert not clock.hear(host.true + 3600)
    assert clock.now() == pytest.approx(host.true) and clock.is_doubted
    host.true += 9
    assert not clock.hear(host.true + 3600), "nine seconds later it may be the same mistake"
    host.true += 2
    assert clock.hear(host.true + 3600)
    assert clock.now() == pytest.approx(host.true + 3600) and not clock.is_doubted


def test_two_backends_that_disagree_move_nothing() -> None:
    host = Host()
    clock = host.clock()
    clock.hear(host.true)
    for number in range(10):
        host.true += 11
        assert not clock.hear(host.true + (3600 if number % 2 else -3600))
    assert clock.now() == pytest.approx(host.true)
    host.true += 61
    assert not clock.is_doubted, "a single mistake does not keep ends from coming for ever"


def test_a_time_that_was_late_on_its_way_moves_it_little_and_a_later_one_is_taken() -> None:
    host = Host()
    clock = host.clock()
    clock.hear(host.true)
    clock.hear(host.true - 4)
    assert host.true - 0.51 < clock.now() < host.true
    clock.hear(host.true)
    assert clock.now() == pytest.approx(host.true)


def remembered(host: Host, directory: Path, boot_id: str = "one") -> tuple[NodeClock, BackendContact, ClockFile]:
    """An agent that starts on this directory."""
    clock, file = host.clock(), ClockFile(directory, boot_id)
    return clock, file.load(EXPIRY, clock), file


def spoken(host: Host, directory: Path) -> None:
    """An agent that the backend has just told the time."""
    clock, contact, file = remembered(host, directory)
    clock.hear(host.true)
    contact.note_contact(clock.elapsed())
    file.remember(contact, clock, at_once=True)


@pytest.mark.parametrize("wrong", [2 * DAY, -5 * DAY])
def test_after_a_restart_of_the_agent_its_time_is_exact_whatever_the_host_says(tmp_path: Path, wrong: float) -> None:
    host = Host()
    spoken(host, tmp_path)
    host.true += 30
    host.wrong = wrong
    clock, contact, _ = remembered(host, tmp_path)
    assert clock.source is TimeSource.BACKEND and clock.now() == pytest.approx(host.true)
    assert clock.elapsed() - contact.last_contact == pytest.approx(30)


def test_after_a_restart_of_the_host_the_time_is_never_behind_what_was_known(tmp_path: Path) -> None:
    host = Host()
    spoken(host, tmp_path)
    known = host.true
    host.boot()
    host.wrong = -5 * DAY
    clock, contact, _ = remembered(host, tmp_path, "two")
    assert clock.source is TimeSource.GUESS and clock.now() == pytest.approx(known) and not clock.may_end
    host.true += 7
    clock.look()
    assert clock.now() == pytest.approx(known + 7), "it goes on"
    assert contact.last_contact <= clock.elapsed()
    assert clock.hear(host.true) and clock.may_end


def test_a_host_whose_clock_was_always_wrong_by_as_much_is_right_after_its_restart(tmp_path: Path) -> None:
    host = Host(wrong=3600.0)
    spoken(host, tmp_path)
    host.boot()
    clock, contact, _ = remembered(host, tmp_path, "two")
    assert clock.now() == pytest.approx(host.true)
    assert clock.elapsed() - contact.last_contact == pytest.approx(60)


def test_the_last_contact_never_lies_in_the_future(tmp_path: Path) -> None:
    host = Host()
    spoken(host, tmp_path)
    host.boot()
    host.wrong = -5 * DAY
    for boot_id in ("two", "three"):
        clock, contact, file = remembered(host, tmp_path, boot_id)
        assert contact.last_contact <= clock.elapsed()
        file.remember(contact, clock, at_once=True)


def test_the_time_to_catch_up_survives_restarts(tmp_path: Path) -> None:
    host = Host()
    spoken(host, tmp_path)
    host.true += EXPIRY.silence
    clock, contact, file = remembered(host, tmp_path)
    assert contact.note_contact(clock.elapsed())
    file.remember(contact, clock)
    host.true += 20
    clock, contact, _ = remembered(host, tmp_path)
    assert contact.settled_at - clock.elapsed() == pytest.approx(30)


def test_it_is_written_at_most_once_a_minute(tmp_path: Path) -> None:
    host = Host()
    spoken(host, tmp_path)
    clock, contact, file = remembered(host, tmp_path)
    file.remember(contact, clock)
    before = file.path.read_bytes()
    host.true += 59
    file.remember(contact, clock)
    assert file.path.read_bytes() == before
    host.true += 2
    file.remember(contact, clock)
    assert file.path.read_bytes() != before


@pytest.mark.parametrize(
    "content",
    [b"", b"rubbish\n", encode_line({"now": 1.0}), b"0" * 500],
    ids=["empty", "no line", "fields are missing", "zeros"],
)
def test_a_damaged_file_costs_the_time_and_not_the_start(tmp_path: Path, content: bytes) -> None:
    host = Host()
    (tmp_path / "clock").write_bytes(content)
    clock, contact, _ = remembered(host, tmp_path)
    assert clock.source is TimeSource.WALL and contact.last_contact == clock.elapsed()


@pytest.mark.parametrize(
    ("content", "settles_in"),
    [("", float("-inf")), ("1800000040.000", 40.0), ("1900000000.000", 50.0), ("nan", float("-inf"))],
    ids=["never", "soon", "later than can be", "damaged"],
)
def test_what_an_agent_of_the_version_before_remembered_is_read(
    tmp_path: Path, content: str, settles_in: float
) -> None:
    (tmp_path / "heard").write_text(content)
    os.utime(tmp_path / "heard", (START - 70, START - 70))
    clock, contact, _ = remembered(Host(), tmp_path)
    assert clock.source is TimeSource.WALL
    assert clock.elapsed() - contact.last_contact == pytest.approx(70)
    assert contact.settled_at - clock.elapsed() == pytest.approx(settles_in)


def test_a_disk_that_takes_nothing_fails_nobody(tmp_path: Path) -> None:
    host = Host()
    clock, contact, file = remembered(host, tmp_path)
    (tmp_path / "clock.new").mkdir()  # in the way
    file.remember(contact, clock, at_once=True)
    assert not file.path.exists()
