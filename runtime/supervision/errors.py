"""What a supervisor raises, and what its administration refuses."""

from __future__ import annotations

import enum
from typing import ClassVar

from runtime.errors import AtlasError
from runtime.supervision.child_run import EndedInOrder


class RestartIntensityExceeded(EndedInOrder):
    """A child used up the restart intensity; the supervisor stopped all its children and ended."""

    exit_code: ClassVar[int] = 69

    def __init__(self, supervisor: str, child: str, attempts: int, period: float, last: str) -> None:
        self.supervisor = supervisor
        self.child = child
        super().__init__(
            f"supervisor {supervisor} gave up: {child} made restart attempt {attempts} within {period:g} s; its last "
            f"end: {last}. Remove the cause of that end; to allow more attempts raise intensity or lengthen the "
            f'backoff, to keep the siblings alive set give_up = "park" for {child}'
        )


class RepairIntensityExceeded(EndedInOrder):
    """A child stood still again after too many repairs; the supervisor stopped all its children and ended."""

    exit_code: ClassVar[int] = 69

    def __init__(self, supervisor: str, child: str, repairs: int, period: float, last: str) -> None:
        self.supervisor = supervisor
        self.child = child
        super().__init__(
            f"supervisor {supervisor} gave up: {child} had to be repaired {repairs} times within {period:g} s and restarting "
            f"it does not help; its last end: {last}. Remove what it waits for, or raise its own limit; to allow more "
            f'repairs raise [watchdog] repair_intensity, to keep the siblings alive set give_up = "park" for {child}'
        )


class ChildStartFailed(AtlasError):
    """A child's start failed without an error of its own, or on request of start_child or restart_child."""


class RefusalReason(enum.StrEnum):
    """Why an administrative call is refused; the first six are OTP's words."""

    RUNNING = "running"
    RESTARTING = "restarting"
    NOT_FOUND = "not_found"
    ALREADY_PRESENT = "already_present"
    ALREADY_STARTED = "already_started"
    SIMPLE_ONE_FOR_ONE = "simple_one_for_one"
    NOT_RUNNING = "not_running"
    """The child, or the supervisor itself, is down."""
    SHUTTING_DOWN = "shutting_down"
    """The supervisor stops; it starts nothing any more."""


class AdministrationError(AtlasError):
    """An administrative call that the supervisor refused; nothing was changed."""

    exit_code: ClassVar[int] = 64

    def __init__(self, answer: RefusalReason, supervisor: str, child: str, explanation: str) -> None:
        self.answer = answer
        self.supervisor = supervisor
        self.child = child
        super().__init__(f"{supervisor}: {answer.value}: {explanation}")


class SpecError(AtlasError):
    """Child specs that cannot work together."""

    exit_code: ClassVar[int] = 78
