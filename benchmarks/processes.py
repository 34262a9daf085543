"""Measurements in a process of their own: trio-asyncio patches asyncio wherever it is imported, and memory needs a fresh heap."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from types import TracebackType
from typing import TypeVar

R = TypeVar("R")


class OwnProcess:
    """A context manager around one fresh interpreter, in which functions of importable modules are called."""

    def __init__(self) -> None:
        self._executor = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))

    def __enter__(self) -> OwnProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown()

    def call(self, function: Callable[..., R], *args: object) -> R:
        """Call it there and wait for what it returns or raises."""
        return self._executor.submit(function, *args).result()
