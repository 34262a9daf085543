from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import actors.pool
import db
import runtime
from runtime.public_names import public_names

OWN = ("db", "actors.pool")
PACKAGES = [
    "runtime",
    *OWN,
    *(f"runtime.{name}" for name in ("cli", "config", "control", "log", "operators", "testing")),
]

NAMES = """
Activity Actor ActorCrashed ActorDead ActorRestarting ActorTask Address AddressState AdministrationError AskError
AskTimeout AsyncioThread AtlasError AutoShutdown Back Backoff Budget Child ChildCounts ChildInfo ChildSpec
ChildStartFailed ChildStarted ChildState ChildrenUnstopped ConfigError Context Control DEFAULT_CAPACITY DeadLetter
DeadLetters Deferred Delivery Down DynamicSupervisor Event EventBus EventRecord Exit ExitReason Failpoints Fatal
GiveUp Gone Ignore Inspect Iteration Keyed Killed LeaseHeldAcrossCall LeaseMarker MailboxFull MailboxStatistics
Message Monitor NO_BACKOFF NameTaken Overflow POSTPONE PeriodicWorker Portal PortalClosed Postponed Ref RefusalReason
Registry RepairIntensityExceeded Request Restart RestartIntensityExceeded Resume Services SpawnOptions SpawnRefused
SpecError StartRefused Stop StopCause StopReason Strategy Supervisor Suspend System Systemd Timer TooManyChildren
TooManyPostponed Unhandled UnknownActor WakeUp WorkerBeat WouldDeadlock clock_reader correlated current_lease
get_logger handler in_words judge_readiness open_tree_nursery redact refuse_if_leased run_system running_system
unwrap_group watch_mailbox
"""


def test_the_public_names_change_only_on_purpose() -> None:
    assert sorted(runtime.__all__) == sorted(NAMES.split())


NAMES_OF_THE_DATABASE = """
AmbiguousCommit BusinessError ConnectionLost DatabaseBusy DatabaseSettings ForeignAwait Lane LeaseError LeaseExpired
LeaseTimeout Money OpenLease PoolDown Row TransactionLost Tx
"""
NAMES_OF_THE_POOL = "ClaimingWorker DatabaseWorker Pool PoolActor PoolSettings pool_of"


def test_the_public_names_of_db_and_the_pool_change_only_on_purpose() -> None:
    assert sorted(db.__all__) == sorted(NAMES_OF_THE_DATABASE.split())
    assert sorted(actors.pool.__all__) == sorted(NAMES_OF_THE_POOL.split())


def test_nothing_is_public_by_accident() -> None:
    assert dir(runtime) == sorted(runtime.__all__)
    offered: dict[str, object] = {}
    exec("from runtime import *", offered)  # noqa: S102 - there is no other way to ask what a star gives
    assert offered.keys() - {"__builtins__"} == set(runtime.__all__)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Acter'"):
        runtime.Acter  # type: ignore[attr-defined]  # noqa: B018


def test_every_public_class_and_function_says_what_it_promises() -> None:
    silent = [name for name in runtime.__all__ if callable(each := getattr(runtime, name)) and not each.__doc__]
    assert silent == []


@pytest.mark.parametrize("package", PACKAGES)
def test_a_name_stands_once_and_is_what_the_stub_says(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__file__ is not None
    lines = Path(module.__file__).with_suffix(".pyi").read_text().splitlines()
    assert len([line for line in lines if line.startswith("from ")]) == len(module.__all__) == len(set(module.__all__))
    assert [name for name in module.__all__ if getattr(module, name, None) is None] == []


def test_importing_the_packages_loads_no_actors() -> None:
    program = f"import {', '.join(PACKAGES)}, sys; print(sorted({{'trio', 'attrs', 'click'}} & sys.modules.keys()))"
    told = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert told.stdout == "[]\n"


def test_a_name_that_will_go_warns_with_what_replaces_it(tmp_path: Path) -> None:
    (tmp_path / "__init__.pyi").write_text("from .message import WakeUp as Bell  # deprecated: use WakeUp\n")
    get, _, names = public_names("runtime", str(tmp_path / "__init__.py"))
    with pytest.warns(DeprecationWarning, match="runtime.Bell is deprecated: use WakeUp"):
        assert get("Bell") is runtime.WakeUp
    assert names == ["Bell"]
