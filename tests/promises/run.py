"""Break promises on purpose, each in a copy of the source, and look whether the test that cites it turns red.

    make proofs                                             (all of them, on all cores)
    python -m tests.promises.run [--at-once N] [S-305 …]

`patches/S-NN.patch`, or `S-NN-what.patch` where several break one promise, begins with the header
`Turns red: tests/…::test_name`; the rest is a unified diff with little context, as `git diff -U2` prints it. The cited tests must
pass in an unpatched copy; in a patched one the test must *fail*: a patch that does not apply, a test that is not there, and one
that cannot even be imported or does not end, are not the proof and are reported as such.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import attrs

ROOT = Path(__file__).resolve().parents[2]
PATCHES = Path(__file__).resolve().parent / "patches"
COPIED = (
    "runtime",
    "tests/__init__.py",
    "tests/conftest.py",
    "tests/fork_server.py",
    "tests/run_queue.py",
    "tests/runtime",
    "pyproject.toml",
)
"""What the cited tests need; all of them are tests of the runtime."""
HEADER = "Turns red: "
PATIENCE = 240.0
"""Seconds for one run of pytest: longer than any test waits for what a broken promise keeps from coming. Most take one or two."""
PASSED, FAILED = 0, 1


class NoProof(Exception):
    """The patch proves nothing; the text says why."""


@attrs.frozen
class Patch:
    """One kept change."""

    promise: str
    name: str
    """The promise, and what of it is broken."""
    file: Path
    test: str
    """As pytest names it."""

    @classmethod
    def read(cls, file: Path) -> Patch:
        """Raises NoProof when the header is missing."""
        first = file.read_text().partition("\n")[0]
        if not first.startswith(HEADER):
            raise NoProof(f"{file.name}: its first line must be `{HEADER}tests/…::test_name`")
        return cls("-".join(file.stem.split("-")[:2]), file.stem, file, first.removeprefix(HEADER).strip())


def patches() -> list[Patch]:
    """All of them, in the order of their numbers."""
    files = sorted(PATCHES.glob("S-*.patch"), key=lambda file: (int(file.stem.split("-")[1]), file.stem))
    return [Patch.read(file) for file in files]


def passing(chosen: Sequence[Patch]) -> set[str]:
    """Those of the tests that the patches name which pass in a copy that nothing was done to."""
    tests = sorted({patch.test for patch in chosen})
    with _copy() as copy:
        done = _pytest(copy, tests)
        if done.returncode == PASSED:
            return set(tests)
        # One that is not there, or cannot be imported, keeps pytest from running any.
        return {test for test in tests if _pytest(copy, [test]).returncode == PASSED}


def prove(patch: Patch, unpatched: Container[str]) -> None:
    """Raises NoProof unless the test is among those that pass `unpatched`, and fails with the patch."""
    if patch.test not in unpatched:
        raise NoProof(f"{patch.promise}: {patch.test} does not pass unpatched, so {patch.file.name} proves nothing")
    with _copy() as copy:
        _apply(patch, copy)
        done = _pytest(copy, [patch.test])
    said = done.stdout + done.stderr
    if done.returncode == FAILED and f"FAILED {patch.test}" in done.stdout:
        return
    if done.returncode == PASSED:
        raise NoProof(f"{patch.promise}: {patch.test} passes although {patch.file.name} breaks the promise")
    raise NoProof(f"{patch.promise}: {patch.test} was not run to its end under {patch.file.name}:\n{said}")


@contextmanager
def _copy() -> Iterator[Path]:
    """A copy of the source as it lies here, committed or not."""
    with tempfile.TemporaryDirectory(prefix="atlas-promise-") as place:
        copy = Path(place) / "source"
        for name in COPIED:
            target = copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, target)
            else:
                shutil.copy2(ROOT / name, target)
        yield copy


def applies(patch: Patch) -> str:
    """Why the patch does not apply to the source as it lies here; empty if it does."""
    return _git_apply(patch, ROOT, "--check")


def _apply(patch: Patch, copy: Path) -> None:
    if wrong := _git_apply(patch, copy):
        raise NoProof(wrong)


def _git_apply(patch: Patch, source: Path, *options: str) -> str:
    # The source may lie inside somebody's repository; git would then look for the files there.
    env = os.environ | {"GIT_CEILING_DIRECTORIES": str(source.parent)}
    command = ["git", "apply", "--unidiff-zero", *options, str(patch.file)]
    done = subprocess.run(command, cwd=source, env=env, capture_output=True, text=True, check=False)
    if not done.returncode:
        return ""
    return (
        f"{patch.file.name} does not apply any more: make the change that breaks {patch.promise} in the present code "
        f"and keep its `git diff -U2`\n{done.stderr}"
    )


def _pytest(copy: Path, tests: Sequence[str]) -> subprocess.CompletedProcess[str]:
    # Of the plugins that are installed only this one is needed here: to load all of them takes longer than the test.
    plugins = ["-p", "pytest_trio.plugin", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", "-rf", "--tb=short", *plugins, *tests]
    env = os.environ | {"PYTHONPATH": str(copy), "COLUMNS": "1000", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    env.pop("PYTEST_ADDOPTS", None)
    try:
        return subprocess.run(command, cwd=copy, env=env, capture_output=True, text=True, check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired as expired:
        return subprocess.CompletedProcess(command, -1, str(expired.stdout), f"not ended after {PATIENCE:g} s")


def main(arguments: Sequence[str]) -> int:
    """Prove all patches, or those named; prints a line for each and a count, and returns 1 if one proves nothing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1, metavar="N", help="proofs at the same time")
    parser.add_argument("promises", nargs="*", metavar="S-305", help="a promise, or the name of one patch")
    wanted = parser.parse_args(arguments)
    found = patches()
    unknown = set(wanted.promises) - {patch.promise for patch in found} - {patch.name for patch in found}
    if unknown:
        sys.stderr.write(f"no patch for {', '.join(sorted(unknown))}\n")
        return 2
    chosen = [patch for patch in found if not wanted.promises or {patch.promise, patch.name} & set(wanted.promises)]
    unpatched = passing(chosen)
    bad = 0
    with ThreadPoolExecutor(wanted.at_once) as pool:
        for patch, proof in [(patch, pool.submit(prove, patch, unpatched)) for patch in chosen]:
            wrong = proof.exception()
            bad += wrong is not None
            sys.stdout.write(f"{wrong or f'{patch.name}: {patch.test} turns red'}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(chosen) - bad} passed, {bad} failed\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
