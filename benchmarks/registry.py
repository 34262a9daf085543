"""The groups: every module directly in this package that has `measure(quick: bool) -> list[Result]`, by its name.

Packages below hold parts of groups. A benchmark without `measure` is left to be run alone (`python -m
benchmarks.<name>`) and only mentioned.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path

import attrs

import benchmarks
from benchmarks.result import Result

Measure = Callable[[bool], list[Result]]


@attrs.frozen
class Groups:
    """Names, in alphabetical order; the modules are not imported yet."""

    measured: tuple[str, ...]
    alone: tuple[str, ...]
    """Those with a main part of their own and no `measure`."""


def find() -> Groups:
    """Look through the package without importing anything, so that one broken benchmark cannot hide the others."""
    measured, alone = [], []
    for package in benchmarks.__path__:
        for module in pkgutil.iter_modules([package]):
            if module.ispkg or module.name == "__main__":
                continue
            tree = ast.parse((Path(package) / f"{module.name}.py").read_text(encoding="utf-8"))
            if any(isinstance(node, ast.FunctionDef) and node.name == "measure" for node in tree.body):
                measured.append(module.name)
            elif any(isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in tree.body):
                alone.append(module.name)
    return Groups(tuple(sorted(measured)), tuple(sorted(alone)))


def load(group: str) -> Measure:
    """The `measure` of a group. Raises what importing it raises."""
    measure: Measure = importlib.import_module(f"benchmarks.{group}").measure
    return measure
