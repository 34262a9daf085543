"""Hold every promise of docs/reference/semantics.md against the tests.

    python tools/check_promises.py [--root DIR]

A promise is a line `- **S-305** One sentence.` A test cites it by its number: in its docstring, in the comment lines right above
it (above its decorators), or in a comment on the lines of its signature. Prints what is wrong, one a line, and exits 1: a number
given twice or out of order, a promise that no test cites, a cited number, or one mentioned below docs/, that is no promise.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs

DOCUMENTS = Path("docs")
DOCUMENT = DOCUMENTS / "reference" / "semantics.md"
TESTS = Path("tests")
PROMISE = re.compile(r"^- \*\*S-(\d+)\*\* \S")
NUMBER = re.compile(r"\bS-(\d+)\b")


@attrs.frozen
class Citation:
    """One test that cites one promise."""

    number: int
    path: Path
    """Relative to the root."""
    line: int
    test: str
    """As pytest names it in its file: `test_x`, or `TestX::test_x`."""

    @property
    def node(self) -> str:
        """What to give to pytest."""
        return f"{self.path.as_posix()}::{self.test}"


def promises(text: str) -> list[tuple[int, int]]:
    """(line, number) of every promise, in the order of the document."""
    found = ((line, PROMISE.match(content)) for line, content in enumerate(text.splitlines(), start=1))
    return [(line, int(match[1])) for line, match in found if match]


def citations(path: Path, source: str) -> Iterator[Citation]:
    """All citations in one test file. Raises SyntaxError."""
    lines = source.splitlines()
    for prefix, test in _tests(ast.parse(source)):
        first = min([test.lineno, *(decorator.lineno for decorator in test.decorator_list)])
        cited = ast.get_docstring(test) or ""
        above = first - 1
        while above and lines[above - 1].lstrip().startswith("#"):
            above -= 1
        for line in (*lines[above : first - 1], *lines[first - 1 : test.body[0].lineno - 1]):
            _, _, comment = line.partition("#")
            cited += f" {comment}"
        for number in dict.fromkeys(NUMBER.findall(cited)):
            yield Citation(int(number), path, test.lineno, prefix + test.name)


def _tests(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield "", node
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and inner.name.startswith("test_"):
                    yield f"{node.name}::", inner


def all_citations(root: Path) -> list[Citation]:
    """All citations of the tests below `root`."""
    found: list[Citation] = []
    for file in sorted((root / TESTS).rglob("test_*.py")):
        found += citations(file.relative_to(root), file.read_text(encoding="utf-8"))
    return found


def violations(root: Path) -> Iterator[str]:
    """One line for everything that is wrong."""
    text = (root / DOCUMENT).read_text(encoding="utf-8")
    found = promises(text)
    if not found:
        yield f"{DOCUMENT}: no promise in it: a promise is a line `- **S-1** One sentence.`"
    known: dict[int, int] = {}
    previous = 0
    for line, number in found:
        if number in known:
            yield f"{DOCUMENT}:{line}: S-{number} is taken already, in line {known[number]}"
        elif number <= previous:
            yield f"{DOCUMENT}:{line}: S-{number} comes after S-{previous}: numbers ascend"
        known.setdefault(number, line)
        previous = max(previous, number)
    for file in sorted((root / DOCUMENTS).rglob("*.md")):
        for line, content in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            for mentioned in NUMBER.findall(content):
                if int(mentioned) not in known:
                    yield f"{file.relative_to(root)}:{line}: S-{mentioned} is mentioned, but there is no such promise"
    cited = all_citations(root)
    for citation in cited:
        if citation.number not in known:
            yield f"{citation.path}:{citation.line}: {citation.test} cites S-{citation.number}, which is no promise"
    numbers = {citation.number for citation in cited}
    for number, line in known.items():
        if number not in numbers:
            yield f"{DOCUMENT}:{line}: S-{number} is cited by no test"


def main() -> int:
    """Check the tree at --root (default: this repository)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(__file__).parent.parent)
    found = list(violations(parser.parse_args().root))
    sys.stdout.writelines(f"{line}\n" for line in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
