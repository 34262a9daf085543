"""Hold the links of every Markdown file, and the paths of this repository that texts name, against the files that there are.

    python tools/check_links.py [--root DIR]

Prints `file:line: what is wrong` for each of these, and exits 1 if there is one:

* a relative link whose file, or whose `#anchor` in a Markdown file, does not exist (GitHub makes anchors of headings);
* a page below docs/ to which no other Markdown file links;
* a path such as `runtime/core/mailbox.py` or `docs/reference/pool.md` in a Markdown file, or a page below docs/ in any other
  text, that does not exist. Decision records may name files that are gone, and the tests of the tools files that never were.

Links to other hosts are not followed.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import unquote

_LINK: Final = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
_SCHEME: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:")
_FENCE: Final = re.compile(r"^ {0,3}(```+|~~~+)")
_CODE: Final = re.compile(r"(`+)(.+?)\1")
_HEADING: Final = re.compile(r"^ {0,3}#{1,6}\s+(.*?)\s*#*\s*$")
_ENDINGS: Final = r"(?:py|md|sql|toml|yaml|svg|txt|sh)"
_FOLDERS: Final = "runtime|actors|db|vpn|docs|tools|tests|simulators|demo|benchmarks|examples|requirements"
_PATH: Final = re.compile(rf"(?<![\w/.\-])(?:{_FOLDERS})/[\w./-]*\.{_ENDINGS}\b")
_PAGE: Final = re.compile(r"(?<![\w/.\-])docs/[\w./-]*\.md\b")
_TEXTS: Final = frozenset({".py", ".toml", ".yaml", ".yml", ".sh", ".sql", ".txt"})
DECISIONS: Final = "docs/adr/"
INVENTED: Final = "tests/tools/"
"""Tests of tools write trees of their own."""


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Line number and line, without fenced code."""
    fence = ""
    for number, line in enumerate(text.splitlines(), start=1):
        match = _FENCE.match(line)
        if fence:
            if match and match[1].startswith(fence):
                fence = ""
        elif match:
            fence = match[1]
        else:
            yield number, line


def anchors(text: str) -> set[str]:
    """What `#…` may name in a Markdown file; headings of the same text are numbered from the second on."""
    found: dict[str, int] = {}
    names: set[str] = set()
    for _, line in prose(text):
        if match := _HEADING.match(line):
            title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", match[1])
            slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
            count = found.get(slug, 0)
            found[slug] = count + 1
            names.add(f"{slug}-{count}" if count else slug)
    return names


def links(text: str) -> Iterator[tuple[int, str]]:
    """Line number and target of every link that is no other host's. A link stands on one line."""
    for number, line in prose(text):
        for match in _LINK.finditer(_CODE.sub("`code`", line)):
            if not _SCHEME.match(match[1]) and not match[1].startswith("//"):
                yield number, unquote(match[1])


def violations(root: Path, paths: list[str]) -> Iterator[str]:
    """One line for everything that is wrong. `paths` are all files of the repository, relative to `root`."""
    files = {path for path in paths if (root / path).is_file()}
    there = files | {str(parent) for path in files for parent in PurePosixPath(path).parents}
    pages = {path: (root / path).read_text(encoding="utf-8") for path in sorted(files) if path.endswith(".md")}
    linked: set[str] = set()
    for page, text in pages.items():
        for line, target in links(text):
            name, _, anchor = target.partition("#")
            file = _resolved(page, name)
            if file not in there:
                yield f"{page}:{line}: {target} leads to no file"
            elif anchor and file in pages and anchor not in anchors(pages[file]):
                yield f"{page}:{line}: {file} has no heading for #{anchor}"
            if file != page:
                linked.add(file)
    for page in pages:
        if page.startswith("docs/") and page not in linked:
            yield f"{page}:1: no other page links to this one"
    for path in sorted(files):
        if path.startswith((DECISIONS, INVENTED)):
            continue
        if path in pages:
            pattern, text = _PATH, pages[path]
        elif PurePosixPath(path).suffix in _TEXTS:
            pattern, text = _PAGE, (root / path).read_text(encoding="utf-8")
        else:
            continue
        for line, content in enumerate(text.splitlines(), start=1):
            for match in pattern.finditer(content):
                if match[0] not in there:
                    yield f"{path}:{line}: there is no {match[0]}"


def _resolved(page: str, name: str) -> str:
    """The path that a link on `page` means, relative to the root. Without a name it is the page itself."""
    if not name:
        return page
    parts: list[str] = []
    for part in (PurePosixPath(name[1:]) if name.startswith("/") else PurePosixPath(page).parent / name).parts:
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts) or "."


def tracked(root: Path) -> list[str]:
    """The files that are, or are about to be, in the repository."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    printed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    return sorted(set(printed.split("\0")) - {""})


def main() -> int:
    """Check the tree at --root (default: this repository)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(__file__).parent.parent)
    root: Path = parser.parse_args().root
    found = list(violations(root, tracked(root)))
    sys.stdout.writelines(f"{line}\n" for line in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
