"""What happened to this process's right to work on its database."""

from __future__ import annotations

import logging
from typing import ClassVar

import attrs

from runtime.events import Event
from runtime.metrics import gauge
from runtime.wording import duration

HELD = gauge("atlas_instance_held", "1 while this process may work on its database, else 0.")


@attrs.frozen
class InstanceHeld(Event):
    """This process works on its database from now on, or again."""

    level: ClassVar[int] = logging.INFO
    epoch: int
    waited: float
    "Seconds since it asked first, or since it was last sure."

    def line(self) -> str:
        return f"this process works on its database, epoch {self.epoch}, after {duration(self.waited)}"


@attrs.frozen
class InstanceWaits(Event):
    """Another process works on the database, and this one waits for it to end."""

    level: ClassVar[int] = logging.WARNING
    holder: str

    def line(self) -> str:
        return f"this process waits: {self.holder}"


@attrs.frozen
class InstanceDoubted(Event):
    """The database did not confirm in time that this process may work: its workers are suspended."""

    level: ClassVar[int] = logging.ERROR
    why: str

    def line(self) -> str:
        return f"the workers are suspended until the database confirms that this process may work: {self.why}"


@attrs.frozen
class InstanceLost(Event):
    """Another process took over while this one was not heard of."""

    level: ClassVar[int] = logging.CRITICAL
    holder: str

    def line(self) -> str:
        return f"this process has lost its database to another one and stops: {self.holder}"
