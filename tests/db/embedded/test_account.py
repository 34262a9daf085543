"""The account that PostgreSQL runs as: made once, whoever asks for it at the same time."""

from __future__ import annotations

import multiprocessing
import os
import pwd
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from db.embedded import cluster as account
from db.embedded.cluster import Account, ensure_account
from db.embedded.settings import ClusterError

USERADD = """#!/bin/sh
# Like the real one it adds the name whether or not it is there by now: it looked before this.
sleep 0.2
echo "$@" >>{file}
"""


def of_another_machine(directory: Path) -> None:
    """In this process, accounts are lines of a file that a `useradd` of our own writes."""
    file = directory / "accounts"

    def getpwnam(name: str) -> pwd.struct_passwd:
        lines = file.read_text().splitlines() if file.exists() else []
        if not lines:
            raise KeyError(name)
        return pwd.struct_passwd((name, "x", 1000 - len(lines), 1000 - len(lines), "", "/", "/bin/false"))

    # All that it uses of either module.
    vars(account)["pwd"] = SimpleNamespace(getpwnam=getpwnam)
    vars(account)["shutil"] = SimpleNamespace(which=lambda *_, **__: str(directory / "useradd"))


def ask(directory: Path) -> Account:
    of_another_machine(directory)
    return ensure_account("somebody")


def test_processes_that_ask_at_the_same_time_get_one_account(tmp_path: Path) -> None:
    useradd = tmp_path / "useradd"
    useradd.write_text(USERADD.format(file=tmp_path / "accounts"))
    useradd.chmod(0o755)
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("spawn")) as processes:
        found = list(processes.map(ask, [tmp_path] * 3))
    assert found == [Account(999, 999)] * 3
    assert len((tmp_path / "accounts").read_text().splitlines()) == 1


def test_what_useradd_says_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    useradd = tmp_path / "useradd"
    useradd.write_text("#!/bin/sh\necho no room for anybody >&2\nexit 1\n")
    useradd.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: str(useradd))
    with pytest.raises(ClusterError, match="no room for anybody") as refused:
        ensure_account("atlas-nobody-has-this-name")
    assert refused.value.exit_code == os.EX_NOUSER
