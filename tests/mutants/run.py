"""Put small wrongs into the modules of money, one at a time, and look whether a test turns red.

    make proofs                                        (with the promises: a kept sample, each with the test that found it)
    make proofs-money [MONEY="db.billing.refunds …"]   (all, or those of some modules, with all tests that reach them)

Everything is imported and PostgreSQL is started once; each mutant is a fork, in which the functions of the module are given
the code of the mutated source. Which tests reach which function is looked up first. A mutant that no test finds fails the run,
unless `equivalent.txt` says in a line why nothing can find it. `sample.txt` names mutants with the test that found each;
`--keep N` chooses every Nth of those that were found anew.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import signal
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
from _pytest.runner import runtestprotocol

from tests.mutants.mutate import Mutant, mutants, source_of

ROOT: Final = Path(__file__).resolve().parents[2]
SAMPLE: Final = Path(__file__).with_name("sample.txt")
EQUIVALENT: Final = Path(__file__).with_name("equivalent.txt")
MODULES: Final = (
    "db.access.intervals",
    "db.access.entitlements",
    "db.billing.ledger",
    "db.billing.pricing",
    "db.billing.referrals",
    "db.billing.refunds",
    "db.billing.chargebacks",
    "db.billing.compensation",
    "db.billing.balance_purchases",
    "db.billing.adjustments",
    "db.billing.withdrawals",
)
TESTS: Final = (
    "tests/db/billing",
    "tests/db/access",
    "tests/db/opening",
    "tests/db/schema/test_moving_over.py::test_money_that_was_rewarded_when_it_came_in_is_not_rewarded_again",
    "tests/db/schema/test_moving_over.py::test_a_rewarded_topup_goes_back_with_its_reward_and_new_money_counts_anew",
    "tests/db/auditor/test_known_cases.py::test_what_views_did_not_see_is_named[a lowered floor]",
    "tests/db/model",
)
LATE: Final = ("tests/db/auditor", "tests/db/model")
"""Tests that reach nearly everything and take seconds: after all others."""
LONGEST: Final = 600
"""Seconds for the tests of one mutant; one that does not end by then is found, and told as such."""
UNENDED: Final = "it did not end"
FOUND, SURVIVED = 0, 1


@attrs.define
class Reach:
    """What one test reaches, and how long it takes."""

    test: str
    seconds: float
    functions: set[str]


def read_list(file: Path) -> dict[str, str]:
    """Mutants by name, each with what stands behind it: a test, or a reason."""
    lines = (
        [line for line in file.read_text().splitlines() if line and not line.startswith("#")] if file.exists() else []
    )
    return dict(line.rsplit(" | ", 1) for line in lines)


@attrs.define(eq=False)
class Run:
    """A plugin of pytest that forks instead of running the tests."""

    modules: Sequence[str]
    sample: Mapping[str, str] | None
    at_once: int
    reach: Path | None = None
    """Where to keep which test reaches which function, for the next time."""
    wanted: Sequence[str] = ()
    """Parts of the names of those that are tried; none: all."""
    found: dict[str, str] = attrs.field(factory=dict)
    survived: list[str] = attrs.field(factory=list)
    stale: list[str] = attrs.field(factory=list)
    _running: dict[int, tuple[str, int]] = attrs.field(factory=dict)

    def pytest_configure(self) -> None:
        """A failing example is enough: it is neither shrunk nor kept."""
        import hypothesis  # not before pytest is ready to rewrite what it asserts

        profile = hypothesis.settings(phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate], database=None)
        hypothesis.settings.register_profile("mutants", profile)
        hypothesis.settings.load_profile("mutants")

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Instead of running the tests once."""
        from tests.postgres_cluster import _shared

        cluster = _shared.take()  # for all that are forked
        try:
            cluster.broken_invariants(
                cluster.template()
            )  # a fork that looked up the views would keep others from copying it
            items = {item.nodeid: item for item in session.items}
            if self.sample is None:
                self._try_all(items)
            else:
                self._try_sample(items, self.sample)
            while self._running:
                self._wait()
        finally:
            _shared.give_back()
        return True

    def _try_sample(self, items: Mapping[str, pytest.Item], sample: Mapping[str, str]) -> None:
        there = {mutant.name: mutant for module in MODULES for mutant in self._mutants(module)}
        for name, test in sample.items():
            if name not in there or test not in items:
                self.stale.append(name if name not in there else f"{name} (no {test})")
            else:
                self._try(there[name], [items[test]])

    def _try_all(self, items: Mapping[str, pytest.Item]) -> None:
        reached = self._reached(items)
        for module in self.modules:
            for mutant in self._mutants(module):
                if self.wanted and not any(part in mutant.name for part in self.wanted):
                    continue
                file = str(source_of(module, ROOT))
                tests = [each for each in reached if f"{file}:{mutant.function}" in each.functions]
                if mutant.function == "-":
                    tests = [each for each in reached if any(name.startswith(f"{file}:") for name in each.functions)]
                tests.sort(key=lambda each: (each.test.startswith(LATE), each.seconds))
                self._try(mutant, [items[each.test] for each in tests])

    def _mutants(self, module: str) -> Iterator[Mutant]:
        file = source_of(module, ROOT)
        importlib.import_module(module)
        yield from mutants(module, ast.parse(file.read_text(), str(file)))

    # ---- forks

    def _try(self, mutant: Mutant, tests: Sequence[pytest.Item]) -> None:
        while len(self._running) >= self.at_once:
            self._wait()
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            self._in_a_fork(lambda: _prove(mutant, tests, writer))
        os.close(writer)
        self._running[pid] = (mutant.name, reader)

    def _wait(self) -> None:
        pid, status = os.waitpid(-1, 0)
        name, reader = self._running.pop(pid)
        with os.fdopen(reader) as told:
            by = told.read()
        if os.waitstatus_to_exitcode(status) == SURVIVED:
            self.survived.append(name)
            sys.stdout.write(f"SURVIVED {name}\n")
        else:
            self.found[name] = by or UNENDED
            sys.stdout.write(f"found    {name} | {self.found[name]}\n")
        sys.stdout.flush()

    @staticmethod
    def _in_a_fork(work: Callable[[], int]) -> None:
        code = 70
        try:
            silence = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(silence, stream)
            code = work()
        finally:
            os._exit(code)

    def _reached(self, items: Mapping[str, pytest.Item]) -> list[Reach]:
        """Run all tests once without any wrong, in a fork for each processor, and note which functions each reaches."""
        if self.reach is not None and self.reach.exists():
            told = [json.loads(line) for line in self.reach.read_text().splitlines()]
            return [
                Reach(each["test"], each["seconds"], set(each["functions"])) for each in told if each["test"] in items
            ]
        with tempfile.TemporaryDirectory(prefix="atlas-mutants-") as place:
            pids = []
            for part in range(self.at_once):
                pid = os.fork()
                if pid == 0:
                    chosen = list(items.values())[part :: self.at_once]
                    self._in_a_fork(lambda chosen=chosen, part=part: _watch(chosen, Path(place) / str(part)))  # type: ignore[misc]
                pids.append(pid)
            for pid in pids:
                if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
                    raise SystemExit("the tests could not be run without any wrong")
            told = [json.loads(line) for file in Path(place).iterdir() for line in file.read_text().splitlines()]
        failing = [f"{each['test']}\n{each['failed']}" for each in told if each["failed"]]
        if failing:
            raise SystemExit("these tests fail without any wrong:\n" + "\n".join(failing))
        if self.reach is not None:
            self.reach.write_text("".join(json.dumps(each) + "\n" for each in told))
        return [Reach(each["test"], each["seconds"], set(each["functions"])) for each in told]


def _watch(items: Sequence[pytest.Item], told: Path) -> int:
    files = {str(source_of(module, ROOT)) for module in MODULES}
    reached: set[str] = set()

    def notice(frame: types.FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename in files:
            name = frame.f_code.co_qualname.replace(".<locals>", "")
            reached.add(f"{frame.f_code.co_filename}:{name}")

    with told.open("w") as lines:
        for item, following in zip(items, [*items[1:], None], strict=True):
            reached.clear()
            begun = time.monotonic()
            sys.setprofile(notice)
            failed = _failure(item, following)
            sys.setprofile(None)
            seconds = time.monotonic() - begun
            lines.write(
                json.dumps({"test": item.nodeid, "failed": failed, "seconds": seconds, "functions": sorted(reached)})
                + "\n"
            )
    return 0


def _prove(mutant: Mutant, tests: Sequence[pytest.Item], told: int) -> int:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(LONGEST)
    put_in(mutant)
    for item, following in zip(tests, [*tests[1:], None], strict=False):
        if _failure(item, following):
            os.write(told, item.nodeid.encode())
            return FOUND
    return SURVIVED


def _failure(item: pytest.Item, following: pytest.Item | None) -> str:
    """Run one test; what it failed of, empty if it passed."""
    reports = runtestprotocol(item, log=False, nextitem=following)
    return "".join(report.longreprtext for report in reports if report.failed)


def put_in(mutant: Mutant) -> None:
    """Give the functions of the imported module the code of the mutated source, and its constants their values everywhere."""
    module = sys.modules[mutant.module]
    assert module.__file__ is not None
    mutant.do()
    names: dict[str, Any] = {"__name__": mutant.module, "__file__": module.__file__}
    exec(compile(ast.fix_missing_locations(mutant.tree), module.__file__, "exec"), names)  # noqa: S102  # our own source
    for name, value in names.items():
        before = getattr(module, name, None)
        if isinstance(value, types.FunctionType) and value.__module__ == mutant.module:
            _give(before, value)
        elif isinstance(value, type) and value.__module__ == mutant.module:
            for member, own in vars(value).items():
                _give(vars(before).get(member), own)
        elif not name.startswith("__") and not callable(value) and value != before:
            for each in list(sys.modules.values()):
                if vars(each).get(name) is before:
                    setattr(each, name, value)


def _give(before: Any, after: Any) -> None:
    before, after = (getattr(each, "fget", None) or getattr(each, "__func__", each) for each in (before, after))
    if isinstance(before, types.FunctionType) and isinstance(after, types.FunctionType):
        before.__code__ = after.__code__
        before.__defaults__, before.__kwdefaults__ = after.__defaults__, after.__kwdefaults__


def main(arguments: Sequence[str]) -> int:
    """Try the sample, or all mutants of the named modules; returns 1 if one survived that no line explains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--at-once", type=int, default=os.cpu_count() or 1, metavar="N", help="mutants at the same time"
    )
    parser.add_argument("--sample", action="store_true", help="only the kept ones")
    parser.add_argument(
        "--list", type=Path, metavar="FILE", help="only those of this file, each with the test that it names"
    )
    parser.add_argument(
        "--keep", type=int, metavar="N", help="write every Nth of those that were found into the sample"
    )
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="only those whose name contains it")
    parser.add_argument("--tests", action="append", default=[], metavar="PATH", help="only these tests")
    parser.add_argument(
        "--reach", type=Path, metavar="FILE", help="keep there which test reaches what; or read it again"
    )
    parser.add_argument("modules", nargs="*", default=[], metavar="db.billing.refunds")
    wanted = parser.parse_args(arguments)
    if unknown := set(wanted.modules) - set(MODULES):
        sys.stderr.write(f"no module of money: {', '.join(sorted(unknown))}\n")
        return 2
    listed = SAMPLE if wanted.sample else wanted.list
    sample = read_list(listed) if listed is not None else None
    run = Run(wanted.modules or MODULES, sample, wanted.at_once, wanted.reach, wanted.only)
    files = (
        sorted({test.partition("::")[0] for test in sample.values()})
        if sample is not None
        else list(wanted.tests or TESTS)
    )
    os.environ.setdefault("ATLAS_MODEL_SEQUENCES", "40")
    status = pytest.main(["-q", "-s", "-p", "no:cacheprovider", "-p", "no:xdist", "--no-header", *files], plugins=[run])
    explained = read_list(EQUIVALENT)
    unexplained = [name for name in run.survived if name not in explained]
    for name in run.stale:
        sys.stdout.write(f"not there any more: {name}: run `make proofs-money`, with --keep\n")
    for name in unexplained:
        sys.stdout.write(f"no test finds: {name}\n")
    sys.stdout.write(
        f"{len(run.found)} found, {len(run.survived) - len(unexplained)} equivalent, {len(unexplained)} survived\n"
    )
    if wanted.keep and sample is None:
        names = sorted(run.found)[:: wanted.keep]
        SAMPLE.write_text("".join(f"{name} | {run.found[name]}\n" for name in names if run.found[name] != UNENDED))
    return 1 if unexplained or run.stale or status not in (0, 5) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
