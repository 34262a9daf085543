"""This project's rules that no linter knows. Prints `file:line: what and why` for each breach and exits 1 if there is one.

    python tools/check_rules.py [--root DIR]

They are the patterns in RULES, and: no Python file over 500 lines, no folder of the rooms or the tests with more than 25 Python
files, no test's name over 80 characters, a docstring in every package of the rooms, and no test that sleeps. A line that has to
break a rule says so at its end, with the reason: `# rule-ok: why`.
"""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

LONGEST_FILE = 500
MOST_FILES = 25
LONGEST_TEST_NAME = 80
_SLEEPS = frozenset({"trio.sleep", "time.sleep", "asyncio.sleep", "anyio.sleep"})


_HTTP = r"((Async)?Client|get|post|put|patch|delete|head|options|request|stream)"


class Rule:
    """A pattern that must not occur in some files, and why."""

    def __init__(self, pattern: str, why: str, *, files: str, allowed: tuple[str, ...] = ()) -> None:
        self.pattern = re.compile(pattern)
        self.why = why
        self.files = re.compile(files)
        self.allowed = allowed

    def applies_to(self, path: str) -> bool:
        """Whether the rule reads this file; paths are relative to the root, with forward slashes."""
        return bool(self.files.search(path)) and path not in self.allowed


ROOMS = r"^(runtime|actors|db|vpn)/.*\.py$"
TEXT = r"\.(py|md|toml|sql|yml|yaml|cfg|lock|txt|sh)$|(^|/)(Makefile|run)$"
PACKAGE = re.compile(r"^(runtime|actors|db|vpn)/(.*/)?__init__\.py$")
COUNTED = re.compile(r"^(runtime|actors|db|vpn|tests)/.*\.py$")
THIS = "tools/check_rules.py"
TEST = "tests/tools/test_check_rules.py"
RULES = (
    Rule(
        rf"httpx\.{_HTTP}\(|from httpx import .*\b{_HTTP}\b",
        "a bare HTTP client escapes the lease guard; build it with runtime.http.new_client",
        files=ROOMS,
        allowed=("runtime/http/client.py",),
    ),
    Rule(
        r"pg_(try_)?advisory_lock(_shared)?\(",
        "a session-level lock survives its lease; use pg_advisory_xact_lock",
        files=r"^(actors|db)/.*\.(py|sql)$",
        allowed=("db/schema/migrate.py",),
    ),
    Rule(
        r"asyncpg\.(create_pool|Pool)\b",
        "asyncpg.Pool leaks a holder on every cancel through trio-asyncio; use the pool actor",
        files=ROOMS,
    ),
    Rule(
        r"(^|[\s\"'`(=])/(work|home|root|Users)/[A-Za-z]",
        "a path of somebody's machine",
        files=TEXT,
        allowed=(THIS, TEST),
    ),
    Rule(
        r"https?://[^\s/]*(pypi|pythonhosted|npmjs|debian)\.",
        "the host of a package registry",
        files=TEXT,
        allowed=(THIS, TEST),
    ),
    Rule(r"--index-url|--find-links|--trusted-host", "the address of a package registry", files=r"\.lock$"),
    Rule(
        r"\b(TO" r"DO|FIX" r"ME|X" r"XX)\b",
        "unfinished work: finish it, or open an issue",
        files=r"\.(py|sql|toml)$",
    ),
)
# A planted violation or an unavoidable one says so on its own line, with the reason.
EXCUSE = "rule-ok:"


_CLOCKS = frozenset({"autojump_clock", "mock_clock"})


def sleeping_tests(source: str) -> Iterator[int]:
    """Lines at which a test itself sleeps on the real clock, or anything in its file looks again and again for what it needs.

    In a function that has a virtual clock a sleep moves the clock and waits for nothing. What a test starts (an actor that
    sleeps too long, a child process) may sleep: that is what is tested.
    """
    yield from _sleeps(ast.parse(source))


def _sleeps(node: ast.AST) -> Iterator[int]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            if _is_virtual(child):
                continue
            loops = [loop for loop in ast.walk(child) if isinstance(loop, ast.While)]
            calls = [call for part in loops for call in _own_calls(part)]
            if child.name.startswith("test_"):
                calls += _own_calls(child)
            yield from sorted({call.lineno for call in calls if ast.unparse(call.func) in _SLEEPS})
        elif isinstance(child, ast.ClassDef):
            yield from _sleeps(child)


def _is_virtual(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    arguments = (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
    if _CLOCKS & {argument.arg for argument in arguments}:
        return True
    return any(ast.unparse(call.func).rpartition(".")[2] in ("MockClock", "run_virtual") for call in _calls(function))


def long_test_names(source: str) -> Iterator[tuple[int, int]]:
    """Line and length of every test's name that is longer than LONGEST_TEST_NAME: more does not fit into a report's line."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not node.name.startswith("test_"):
            continue
        if len(node.name) > LONGEST_TEST_NAME:
            yield node.lineno, len(node.name)


def full_folders(paths: list[str]) -> Iterator[tuple[str, int]]:
    """The folders of the rooms and the tests that directly hold more than MOST_FILES Python files, and how many they hold."""
    counts = Counter(str(PurePosixPath(path).parent) for path in paths if COUNTED.search(path))
    return ((folder, count) for folder, count in sorted(counts.items()) if count > MOST_FILES)


def _calls(node: ast.AST) -> Iterator[ast.Call]:
    return (call for call in ast.walk(node) if isinstance(call, ast.Call))


def _own_calls(node: ast.AST) -> Iterator[ast.Call]:
    """The calls in a function's own body, not in the functions and classes that it defines."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            continue
        if isinstance(child, ast.Call):
            yield child
        yield from _own_calls(child)


def breaches(root: Path, paths: list[str]) -> Iterator[str]:
    """One line for each breach in the files named, paths relative to `root`. Files that are no text are passed over."""
    for folder, count in full_folders(paths):
        yield f"{folder}:{count}: more than {MOST_FILES} Python files: group what belongs together in packages"
    for path in paths:
        try:
            lines = (root / path).read_text().splitlines()
        except (UnicodeDecodeError, FileNotFoundError):
            continue
        if path.endswith(".py") and len(lines) > LONGEST_FILE:
            yield f"{path}:{len(lines)}: longer than {LONGEST_FILE} lines: it holds more than one concept"
        if path.startswith("tests/") and path.endswith(".py"):
            source = "\n".join(lines)
            for number in sleeping_tests(source):
                if EXCUSE in lines[number - 1]:
                    continue
                yield f"{path}:{number}: a test awaits the event that it needs; it never sleeps"
            for number, length in long_test_names(source):
                yield f"{path}:{number}: a test's name of {length} characters; at most {LONGEST_TEST_NAME}"
        if PACKAGE.search(path) and not (ast.get_docstring(ast.parse("\n".join(lines))) or "").strip():
            yield f"{path}:1: a package without a docstring: say what it promises, its entry points, and who may import it"
        rules = [rule for rule in RULES if rule.applies_to(path)]
        for number, line in enumerate(lines, start=1):
            if EXCUSE in line:
                continue
            for rule in rules:
                if rule.pattern.search(line):
                    yield f"{path}:{number}: {rule.why}"


def tracked(root: Path) -> list[str]:
    """The files that are, or are about to be, in the repository."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    printed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    return sorted(set(printed.splitlines()))


def main() -> int:
    """Check the tree at --root (default: this repository)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(__file__).parent.parent)
    root: Path = parser.parse_args().root
    found = list(breaches(root, tracked(root)))
    sys.stdout.writelines(f"{line}\n" for line in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
