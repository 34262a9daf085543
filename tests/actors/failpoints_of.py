"""The failpoints of every worker that the shipped tree declares, read from the code."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from actors.health.healthcheck import Healthcheck
from actors.leadership.instance import Instance
from actors.nodes.node import NodeActor
from runtime import PeriodicWorker
from runtime.config import load

REPOSITORY = Path(__file__).parents[2]
Failpoint = tuple[str, str]
"""The worker's name in supervisor.toml, and the point's."""


def failpoints() -> list[Failpoint]:
    """Every point that a worker can pass by: in its own class, in those it inherits from, and in what these import."""
    config = load(REPOSITORY / "supervisor.toml", {})
    found: set[Failpoint] = set()
    for plan in config.children:
        if issubclass(plan.actor, PeriodicWorker | Instance | Healthcheck | NodeActor):
            own = {sys.modules[base.__module__] for base in plan.actor.__mro__ if base.__module__.startswith("actors.")}
            modules = own | {helper for module in own for helper in _helpers(module)}
            found |= {(plan.name, point) for module in modules for point in _points(module)}
    return sorted(found)


def _helpers(module: ModuleType) -> Iterator[ModuleType]:
    """Modules of the room from which this one takes classes that are no actors: they pass points on its behalf."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("actors."):
            helper = sys.modules[str(node.module)]
            if not _declares_an_actor(helper):
                yield helper


def _declares_an_actor(module: ModuleType) -> bool:
    return any(
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and _is_handler(node) for node in _nodes(module)
    ) or (module.__name__.startswith("actors.pool"))


def _is_handler(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(isinstance(mark, ast.Name) and mark.id == "handler" for mark in function.decorator_list)


def _points(module: ModuleType) -> Iterator[str]:
    for node in _nodes(module):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "failpoint":
            [point] = node.args
            assert isinstance(point, ast.Constant), f"{module.__name__}: a failpoint's name is written out"
            yield str(point.value)


def _nodes(module: ModuleType) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(inspect.getsource(module)))
