"""The node's clock: the backend's time, carried on by a clock of the kernel that nothing sets.

The host's own (wall) clock decides nothing while the backend's time is known: an operator, a virtual machine that was resumed
or a wrong time server can set it to any value at any moment, and customers would lose access for it, or keep it.
"""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs

from runtime import get_logger
from vpn.agent.config.settings import ExpirySettings
from vpn.agent.state import files
from vpn.agent.state.expiry import BackendContact
from vpn.agent.state.records import Damaged, decode_line, encode_line
from vpn.errors import StoreUnreadable

log = get_logger(__name__)

DOUBT_SECONDS: Final = 30.0
"A backend's time that is further than this from ours is believed once it was said twice."
_AGAIN_SECONDS: Final = 10.0
"Seconds that lie between the two: two requests of one wrong moment are one saying."
_AGREE_SECONDS: Final = 5.0
_STEP_SECONDS: Final = 0.5
"A wall clock that moved this much against the kernel's other clock was set; time servers slew it more slowly."
_TRUSTED_AFTER: Final = 86_400.0
"Seconds after which a clock that no backend confirmed ends keys after all: removed customers must not stay for ever."
_SLOWLY: Final = 8
"An earlier time is taken by this part of the distance: most of it was the way here."
_DOUBT_LASTS: Final = 60.0
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def elapsed() -> float:
    """Seconds since the host was booted, suspension included. No setting of a clock moves it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_of_host() -> str:
    """What tells this boot of the host from every other; empty if the host does not say."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


class TimeSource(enum.Enum):
    """Where the node's time is from."""

    BACKEND = "backend"  # said by the backend in this boot of the host, and carried on
    GUESS = "guess"  # the wall clock, corrected by how wrong it was before the host was booted, never before the last known time
    WALL = "wall"  # the wall clock alone


@attrs.define(eq=False)
class NodeClock:
    """The node's time in Unix seconds.

    `offset` shifts it for demonstrations; None: it cannot be moved, the rule. `wall` and `elapsed` are the host's two clocks. As
    made it goes by the wall clock; `restore` and `hear` give it something better.
    """

    offset: float | None = None
    wall: Callable[[], float] = time.time
    elapsed: Callable[[], float] = elapsed
    source: TimeSource = attrs.field(init=False, default=TimeSource.WALL)
    steps: int = attrs.field(init=False, default=0)
    "How often the host's wall clock was set since the agent started."
    _base: float = attrs.field(init=False)
    "What the time was when `elapsed` was 0."
    _wall_base: float = attrs.field(init=False)
    _floor: float = attrs.field(init=False, default=float("-inf"))
    _known_skew: float = attrs.field(init=False, default=0.0)
    _began: float = attrs.field(init=False)
    _doubted: tuple[float, float] | None = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._began = self.elapsed()
        self._base = self._wall_base = self.wall() - self._began

    def now(self) -> float:
        """The node's time: what customers' ends are compared with."""
        return self.real_now() + (self.offset or 0.0)

    def real_now(self) -> float:
        """The same without the offset: for everything that is not about customers' time."""
        return self._base + self.elapsed()

    def move(self, offset: float) -> bool:
        """Set the distance to real time; False if that is not allowed."""
        if self.offset is None:
            return False
        self.offset = offset
        return True

    @property
    def skew(self) -> float:
        """How far the host's wall clock is ahead of the node's time, in seconds; 0 while the wall clock is all there is."""
        return self.wall() - self.real_now()

    @property
    def may_end(self) -> bool:
        """Whether this time may end keys by itself: the backend's may, a guess only after a day without any contact. A clock that
        may be moved is the operator's own word."""
        return (
            self.source is TimeSource.BACKEND
            or self.offset is not None
            or self.elapsed() - self._began >= _TRUSTED_AFTER
        )

    @property
    def is_doubted(self) -> bool:
        """Whether the backend has just said another time, once."""
        return self._doubted is not None and self.elapsed() - self._doubted[1] < _DOUBT_LASTS

    def restore(self, now: float, at: float, *, same_boot: bool, skew: float) -> None:
        """Go on from a time that was known before: `now` when `elapsed` was `at`, the wall clock being `skew` seconds ahead.

        In the same boot of the host that is exact. In another the wall clock is believed as far as it was right before, and never
        behind what was known.
        """
        if same_boot:
            self.source = TimeSource.BACKEND
            self._base = now - at
            return
        self.source = TimeSource.GUESS
        self._floor, self._known_skew = now, skew
        self._guess()

    def hear(self, said: float) -> bool:
        """The backend says that it is `said` now. True if that moved the node's time by more than a second, or confirmed it.

        What is on the way may be late, never early, so a later time is taken as it is and an earlier one slowly. A time further
        than 30 s from ours is taken when a second one, at least ten seconds after it, agrees: one wrong answer moves nothing.
        """
        at = self.elapsed()
        base = said - at
        moved = base - self._base
        if self.source is TimeSource.BACKEND and abs(moved) > DOUBT_SECONDS:
            if self._doubted is None or abs(self._doubted[0] - base) > _AGREE_SECONDS:
                self._doubted = (base, at)
                log.warning(
                    "the backend's time is not the node's; it is believed if it is said again",
                    seconds_ahead=round(moved, 1),
                )
                return False
            if at - self._doubted[1] < _AGAIN_SECONDS:
                return False
            log.warning("the node's time is corrected to the backend's", seconds=round(moved, 1))
        elif self.source is TimeSource.BACKEND and moved < 0:
            moved /= _SLOWLY
        confirmed = self.source is not TimeSource.BACKEND
        self.source = TimeSource.BACKEND
        self._doubted = None
        self._base += moved
        if confirmed:
            log.info("the node's time is the backend's", wall_clock_ahead_seconds=round(self.skew, 1))
        return confirmed or abs(moved) > 1

    def look(self) -> float:
        """By how many seconds the host's wall clock was set since the last look, 0 if it was not. Without the backend's time the
        node's follows it."""
        base = self.wall() - self.elapsed()
        step = base - self._wall_base
        self._wall_base = base
        if abs(step) < _STEP_SECONDS:
            return 0.0
        self.steps += 1
        if self.source is not TimeSource.BACKEND:
            self._guess()
        log.warning(
            "the host's clock was set"
            + ("; the node keeps the backend's time" if self.source is TimeSource.BACKEND else ""),
            by_seconds=round(step, 1),
            ahead_of_the_node_seconds=round(self.skew, 1),
        )
        return step

    def _guess(self) -> None:
        at = self.elapsed()
        self._base = max(self._floor + at - self._began, self.wall() - self._known_skew) - at


@attrs.frozen
class KnownTime:
    """What the file `clock` holds: the node's real time `now` when `elapsed` and `boot_id` were so, how far the wall clock was
    ahead, when the backend made contact last and, after a silence, until when the grace lasts (0: no silence has ended).
    """

    now: float
    elapsed: float
    boot_id: str
    skew: float
    heard: float
    settled: float


_KEEP_SECONDS: Final = 60.0


@attrs.define(eq=False)
class ClockFile:
    """The file `clock` in the data directory: the time and the backend's last contact, across restarts.

    Everything is content: the kernel dates files by the wall clock. Agents of earlier versions left a file `heard`, whose time
    of change is the last contact; it is read if there is no other. Without either the backend counts as having just been there.
    """

    directory: Path
    boot_id: str = attrs.field(factory=boot_of_host)
    _written_at: float = attrs.field(init=False, default=float("-inf"))
    _tried: float = attrs.field(init=False, default=float("-inf"))

    @property
    def path(self) -> Path:
        """The file."""
        return self.directory / "clock"

    def load(self, expiry: ExpirySettings, clock: NodeClock) -> BackendContact:
        """Set the clock by what is remembered, and return the last contact, in seconds of `clock.elapsed`. A file that cannot be
        read is logged and counts as missing."""
        at = clock.elapsed()
        contact = BackendContact(at, expiry.grace, expiry.silence, expiry.settle)
        known = self._read()
        if known is not None:
            same_boot = bool(self.boot_id) and known.boot_id == self.boot_id and known.elapsed <= at
            clock.restore(known.now, known.elapsed, same_boot=same_boot, skew=known.skew)
            self._note(contact, at, clock.real_now(), known.heard, known.settled)
            return contact
        heard = self.directory / "heard"
        try:
            self._note(contact, at, clock.real_now(), heard.stat().st_mtime, 0.0)
            self._note(contact, at, clock.real_now(), heard.stat().st_mtime, _number(heard.read_text() or "0"))
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            log.warning("cannot tell for certain when the backend made contact last", file="heard", reason=str(error))
        return contact

    def _note(self, contact: BackendContact, at: float, now: float, heard: float, settled: float) -> None:
        """What cannot be makes no grace longer, and no contact lies in the future."""
        contact.last_contact = at - max(0.0, now - heard)
        if settled:
            contact.settled_at = self._tried = at + min(settled - now, contact.settle)

    def _read(self) -> KnownTime | None:
        try:
            content = files.read(self.path)
            if content is None:
                return None
            return _known_time(content)
        except (Damaged, StoreUnreadable) as error:
            log.warning("cannot tell for certain what time it was", file=self.path.name, reason=str(error))
            return None

    def remember(self, contact: BackendContact, clock: NodeClock, *, at_once: bool = False) -> None:
        """Write it down: at once if a silence has just ended or `at_once`, otherwise at most once a minute. A full disk is
        logged, not raised: it must not keep the backend from asking.
        """
        at = clock.elapsed()
        if not at_once and contact.settled_at == self._tried and at - self._written_at <= _KEEP_SECONDS:
            return
        self._written_at, self._tried = at, contact.settled_at
        now = clock.real_now()
        settled = now + contact.settled_at - at if math.isfinite(contact.settled_at) else 0.0
        known = KnownTime(now, at, self.boot_id, clock.skew, now + contact.last_contact - at, settled)
        try:
            files.replace(self.path, encode_line(attrs.asdict(known)))
        except OSError as error:
            log.warning("cannot remember what time it is", file=self.path.name, reason=error.strerror)


def _known_time(content: bytes) -> KnownTime:
    data = decode_line(content.removesuffix(b"\n"))
    for field in attrs.fields(KnownTime):
        if not isinstance(data.get(field.name), str if field.name == "boot_id" else int | float):
            raise Damaged(f"{field.name} is missing")
    return KnownTime(**data)  # type: ignore[arg-type]  # checked field by field above


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("it holds no number")
    return number
