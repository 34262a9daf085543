"""A control socket belongs to one installation: no command reaches the system of another one by accident."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runtime.cli.main import run_command_line
from runtime.control.socket import LONGEST
from tests.runtime.atlas_process import ACTORS, AtlasProcess

ONE = f'[actor.echo]\nactor = "{ACTORS}:Echo"\n'


# S-1011 S-1012
def test_a_command_reaches_its_own_installation_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, other = tmp_path / ("deep" * 30), tmp_path / "other"
    for place in (ours, other):
        place.mkdir()
        (place / "supervisor.toml").write_text(ONE)
    monkeypatch.delenv("ATLAS_CONFIG", raising=False)
    monkeypatch.delenv("ATLAS__CONTROL__SOCKET", raising=False)
    socket = ours / ".atlas" / "control" / "atlas.sock"
    assert len(str(socket)) > LONGEST
    process = AtlasProcess(ours)
    try:
        process.until("next:")
        monkeypatch.chdir(other)
        assert run_command_line(["stop"]) == 69
        assert str(other / ".atlas" / "control" / "atlas.sock") in capsys.readouterr().err
        for command in (["stop"], ["kill", "echo"], ["events"]):
            assert run_command_line([*command, "--socket", str(socket), "--config", "supervisor.toml"]) == 64
            refused = capsys.readouterr().err
            assert f"this command's configuration is {other}/supervisor.toml" in refused
            assert f"runs {ours}/supervisor.toml (pid {process.process.pid})" in refused
        assert run_command_line(["status", "--socket", str(socket)]) == 0, "a socket that was named is what was meant"
        assert f"configuration {ours}/supervisor.toml, control socket {socket}" in capsys.readouterr().out
        monkeypatch.chdir(ours)
        assert run_command_line(["status", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["config"], found["socket"]) == (str(ours / "supervisor.toml"), str(socket))
        assert [child["incarnation"] for child in found["children"]] == [1]
        assert run_command_line(["stop"]) == 0
        assert process.wait() == 0
        assert not socket.exists()
    finally:
        process.close()
