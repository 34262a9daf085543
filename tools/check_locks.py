"""Refuse blocking locks in code that runs on the event loop.

    python tools/check_locks.py [FILE_OR_DIRECTORY …]      (default: everything here that runs a loop)

Two rules. (1) No `await`, `yield`, `async for` or `async with` inside `with <threading lock>`: a task that waits there keeps
the lock while the other tasks of the loop run into it. No exceptions. (2) No blocking lock or queue at all (`threading.Lock`,
`RLock`, `Condition`, `Semaphore`, `Event`, `Barrier`, `queue.Queue` and their kin, `multiprocessing` ones included), neither
made nor acquired: a lock taken twice on the loop's thread stops it for good. A line that must (code of another thread)
says why: `# lock-ok: reason`.

Exits 1 with `file:line: what` for each violation, else 0.
"""

from __future__ import annotations

import ast
import re
import sys
import tokenize
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path

DEFAULT = ("runtime", "actors", "db", "vpn", "simulators", "demo", "examples", "benchmarks")
BLOCKING = {
    "threading": {"Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier"},
    "queue": {"Queue", "LifoQueue", "PriorityQueue", "SimpleQueue"},
    "multiprocessing": {
        "Lock",
        "RLock",
        "Condition",
        "Semaphore",
        "BoundedSemaphore",
        "Event",
        "Barrier",
        "Queue",
        "JoinableQueue",
        "SimpleQueue",
    },
    "_thread": {"allocate_lock", "LockType"},
}
LOCK_NAME = re.compile(r"(?:^|_)(?:r?lock|mutex|semaphore|condition)\Z", re.IGNORECASE)
ALLOWED = re.compile(r"#\s*lock-ok:(?P<reason>.*)")

Violation = tuple[int, str]


class Checker(ast.NodeVisitor):
    """Finds the violations of one module."""

    def __init__(self, tree: ast.Module, allowed: dict[int, str]) -> None:
        self.violations: list[Violation] = []
        self._allowed = allowed
        self._modules: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._locks: set[str] = set()
        # Named like a lock, but made here by something else: a lock of the loop's own, a lock file.
        self._others: set[str] = set()
        self._held: list[str] = []
        self._learn(tree)
        self.visit(tree)

    def _learn(self, tree: ast.Module) -> None:
        """What is imported under which name, and what is assigned a lock."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name in BLOCKING:
                        self._modules[alias.asname or alias.name] = alias.name
            elif isinstance(node, ast.ImportFrom) and node.module in BLOCKING and not node.level:
                for alias in node.names:
                    if alias.name == "*":
                        self._names |= {name: f"{node.module}.{name}" for name in BLOCKING[node.module]}
                    elif alias.name in BLOCKING[node.module]:
                        self._names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign):
                targets = node.targets
            elif isinstance(node, ast.AnnAssign | ast.NamedExpr):
                targets = [node.target]
            else:
                continue
            names = {name for target in targets if (name := _last_name(target)) is not None}
            if node.value is not None and any(self._blocking(part) for part in ast.walk(node.value)):
                self._locks |= names
            elif isinstance(node.value, ast.Call):
                self._others |= names
        self._others -= self._locks

    def _blocking(self, node: ast.AST) -> str | None:
        """`threading.Lock` and the like, under whatever name."""
        if isinstance(node, ast.Name):
            return self._names.get(node.id)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = self._modules.get(node.value.id)
            if module is not None and node.attr in BLOCKING[module]:
                return f"{module}.{node.attr}"
        return None

    def _lock(self, node: ast.expr) -> str | None:
        """The name of the lock that `with node:` takes, if it is one."""
        if isinstance(node, ast.Call):
            return self._blocking(node.func)
        name = _last_name(node)
        if name is None or name in self._others:
            return None
        return name if name in self._locks or LOCK_NAME.search(name) else None

    def _refuse(self, line: int, what: str) -> None:
        reason = self._allowed.get(line)
        if reason is None:
            self.violations.append((line, f"{what}; if another thread's code needs it, add `# lock-ok: reason`"))
        elif not reason.strip():
            self.violations.append((line, "`# lock-ok:` needs a reason"))

    def visit_Name(self, node: ast.Name) -> None:
        blocking = self._blocking(node)
        if blocking is not None:
            self._refuse(node.lineno, f"{blocking} blocks the event loop")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        blocking = self._blocking(node)
        if blocking is not None:
            self._refuse(node.lineno, f"{blocking} blocks the event loop")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        function = node.func
        if isinstance(function, ast.Attribute) and function.attr in ("acquire", "__enter__"):
            lock = self._lock(function.value)
            if lock is not None:
                self._refuse(node.lineno, f"{lock}.{function.attr}() blocks the event loop")
        if isinstance(function, ast.Attribute) and function.attr in ("enter_context", "push"):
            for argument in node.args:
                # One that is made on the spot is refused where it is made; what is awaited is the loop's own.
                lock = None if isinstance(argument, ast.Call) else self._lock(argument)
                if lock is not None:
                    self._refuse(node.lineno, f"{function.attr}({lock}) blocks the event loop")
        self.generic_visit(node)

    def visit_With(self, node: ast.With) -> None:
        locks = [lock for item in node.items if (lock := self._lock(item.context_expr)) is not None]
        for item in node.items:
            lock = self._lock(item.context_expr)
            # A lock that is made on the spot is refused where it is made.
            if lock is not None and not isinstance(item.context_expr, ast.Call):
                self._refuse(node.lineno, f"`with {lock}` blocks the event loop")
            self.visit(item)
        self._held += locks
        for statement in node.body:
            self.visit(statement)
        if locks:
            del self._held[-len(locks) :]

    def _waits(self, node: ast.AST, what: str) -> None:
        if self._held:
            line = getattr(node, "lineno", 0)
            self.violations.append(
                (line, f"{what} while {self._held[-1]} is held: others wait for it on the same loop")
            )
        self.generic_visit(node)

    def visit_Await(self, node: ast.Await) -> None:
        # What is awaited is a lock of the loop's own, whatever its name.
        if isinstance(node.value, ast.Call) and not self._held:
            for part in (*node.value.args, *node.value.keywords):
                self.visit(part)
            return
        self._waits(node, "await")

    def visit_Yield(self, node: ast.Yield) -> None:
        self._waits(node, "yield")

    def visit_YieldFrom(self, node: ast.YieldFrom) -> None:
        self._waits(node, "yield from")

    def visit_AsyncFor(self, node: ast.AsyncFor) -> None:
        self._waits(node, "async for")

    def visit_AsyncWith(self, node: ast.AsyncWith) -> None:
        self._waits(node, "async with")

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._defined(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._defined(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._defined(node)

    def _defined(self, node: ast.AST) -> None:
        """What is defined under a lock does not run under it."""
        held, self._held = self._held, []
        self.generic_visit(node)
        self._held = held


def _last_name(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else None


def _comments(source: str) -> dict[int, str]:
    """Line -> reason of its `# lock-ok:`."""
    found: dict[int, str] = {}
    for token in tokenize.generate_tokens(StringIO(source).readline):
        if token.type == tokenize.COMMENT and (match := ALLOWED.search(token.string)):
            found[token.start[0]] = match["reason"]
    return found


def check(source: str) -> list[Violation]:
    """The violations in one module's text, as (line, what), in order. Raises SyntaxError."""
    return sorted(Checker(ast.parse(source), _comments(source)).violations)


def files(paths: Sequence[Path]) -> Iterator[Path]:
    """All Python files at and below these paths."""
    for path in paths:
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def main(arguments: Sequence[str]) -> int:
    """The command line."""
    paths = [Path(argument) for argument in arguments or DEFAULT]
    missing = [path for path in paths if not path.exists()]
    for path in missing:
        sys.stderr.write(f"{path}: no such file or directory\n")
    if missing:
        return 2
    violations = 0
    for path in files(paths):
        try:
            found = check(path.read_text(encoding="utf-8"))
        except SyntaxError as error:
            found = [(error.lineno or 0, f"cannot be parsed: {error.msg}")]
        for line, what in found:
            sys.stdout.write(f"{path}:{line}: {what}\n")
        violations += len(found)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
