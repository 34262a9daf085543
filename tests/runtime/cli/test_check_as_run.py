"""What `atlas run` refuses before it connects anywhere, `atlas check` refuses as well, in the same words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from runtime.cli.main import run_command_line

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = (ROOT / "supervisor.toml").read_text()


def worker(name: str, arguments: str) -> str:
    return f'[actor.here]\nactor = "{name}"\nargs = {{ interval = 60, {arguments} }}\n'


ADMIN = '[actor.admin]\nactor = "actors.desk.admin:Admin"\n'
GATEWAY = '[actor.gateway]\nactor = "actors.gateway.gateway:Gateway"\n'
NOTICES = '[actor.notices]\nactor = "actors.notices.notifications:Notifications"\n'

BAD: dict[str, tuple[str, Mapping[str, str], str]] = {
    "a claim shorter than its iteration": (
        worker("actors.keys.activation:Activation", "budget = 60"),
        {},
        "actor.here: budget = 60 must be less than claim_seconds = 30",
    ),
    "the same by its old name, in the whole system": (
        SHIPPED,
        {"MAX_ITERATION_SECONDS": "600"},
        "actor.auto_renewal: budget = 600 must be less than claim_seconds = 60",
    ),
    "a message cut off by a stop": (
        f"{NOTICES}shutdown = 5\nargs = {{ interval = 30, budget = 30 }}\n[telegram]\nwithin = 5\n",
        {},
        "actor.notices: telegram.within = 5 must be less than the actor's shutdown = 5",
    ),
    "a provider by half": (
        GATEWAY,
        {"ATLAS__PAYMENTS__STRIPE__SECRET_KEY": "k"},
        "payments: payments.stripe has credentials, but payments.stripe.webhook_secret_file is not usable",
    ),
    "a source of rates that is off": (
        f'{GATEWAY}[payments.rates]\nsource = "cryptobot"\n',
        {},
        'payments: payments.rates.source = "cryptobot" is off',
    ),
    "metrics open to all": (
        f'{ADMIN}[admin]\nhost = "0.0.0.0"\n',
        {},
        "admin: admin.host = '0.0.0.0' can be reached from other machines",
    ),
    "a proxy that is no network": (
        f'{ADMIN}[admin]\ntrusted_proxies = ["nowhere"]\n',
        {},
        "admin: trusted_proxies: 'nowhere' does not appear to be",
    ),
    "a front end's key given twice": (
        GATEWAY,
        {"ATLAS__SHOP__KEYS": f"one {'x' * 32}\none {'y' * 32}"},
        "shop: shop.keys: line 2: one is there twice",
    ),
    "an import that exits as if all were well": (
        '[actor.here]\nactor = "leaves:Actor"\n',
        {},
        "actor.here.actor: importing leaves failed: SystemExit: 0 (",
    ),
    "an actor that refuses its own arguments": (
        '[actor.here]\nactor = "picky:Picky"\nargs = { low = 3, high = 2 }\n[picky]\n',
        {},
        "actor.here: high = 2 must be more than low = 3",
    ),
    "settings that contradict each other": (
        '[actor.here]\nactor = "picky:Picky"\n[picky]\nport = 1\nurl = "http://x:2"\n',
        {},
        "picky: url and port name different ports",
    ),
    "a check that fails": (
        '[actor.here]\nactor = "picky:Picky"\nargs = { low = 13 }\n[picky]\n',
        {},
        "actor.here: it cannot be checked: ZeroDivisionError",
    ),
    "a socket below a file": (
        '[control]\nsocket = "supervisor.toml/a.sock"\n',
        {},
        "supervisor.toml is no directory; set [control] socket to another place",
    ),
    "a socket with too long a name": (
        f'[control]\nsocket = "{"x" * 100}"\n',
        {},
        "is 100 bytes long and may have",
    ),
}

PICKY = """
import attrs
from runtime import Actor
from runtime.config import settings

@settings("picky")
@attrs.frozen
class PickySettings:
    port: int = 1
    url: str = ""
    def check_configuration(self):
        if self.url and not self.url.endswith(f":{self.port}"):
            yield "url and port name different ports"

@attrs.define(eq=False)
class Picky(Actor):
    picky: PickySettings
    low: int = 1
    high: int = 20
    def check_configuration(self, name, shutdown):
        1 / (13 - self.low)
        if self.high <= self.low:
            yield f"high = {self.high} must be more than low = {self.low}"
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "leaves.py").write_text("raise SystemExit(0)\n")
    (tmp_path / "picky.py").write_text(PICKY)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ATLAS_CONFIG", raising=False)
    return tmp_path


# S-1113
@pytest.mark.parametrize("case", BAD)
def test_check_and_run_refuse_the_same_in_the_same_words(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    text, environment, expected = BAD[case]
    (directory / "supervisor.toml").write_text(text)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert run_command_line(["run"]) == 78
    run = capsys.readouterr()
    assert run_command_line(["check"]) == 78
    check = capsys.readouterr()
    assert expected in run.err
    assert (run.out, run.err) == (check.out, check.err)
    assert not (directory / ".atlas").exists()


# S-1113
def test_as_json_each_error_has_its_file_line_and_key(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "supervisor.toml").write_text(f'{ADMIN}[admin]\nhost = "0.0.0.0"\nprot = 1\n')
    assert run_command_line(["check", "--json"]) == 78
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    (error,) = found["errors"]
    assert (error["file"], error["line"], error["key"]) == (str(directory / "supervisor.toml"), 5, "admin.prot")
    assert error["message"] == 'unknown key; did you mean "port"?'
    assert run_command_line(["check", "--json", "--config", "none.toml"]) == 78
    assert "cannot be read" in json.loads(capsys.readouterr().out)["errors"][0]["message"]
    (directory / "supervisor.toml").write_text(ADMIN)
    assert run_command_line(["check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True
