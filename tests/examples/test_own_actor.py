"""docs/tutorial/your-own-actor.md, walked as a newcomer would: in an empty folder, with the public names alone."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from actors.commands.new import FILES
from runtime.cli.main import run_command_line
from tests.postgres_cluster import cluster as cluster
from tests.postgres_cluster import empty_database_dsn as empty_database_dsn
from tests.runtime.atlas_process import PATIENCE, ROOT, AtlasProcess, atlas, environment, short_directory

DOCUMENT = (ROOT / "docs" / "tutorial" / "your-own-actor.md").read_text()
COMMANDS = re.findall(r"^(atlas .*)$", "".join(re.findall(r"```console\n(.*?)```", DOCUMENT, re.DOTALL)), re.MULTILINE)


def filled(text: str) -> str:
    return text.replace("NAME", "my_watch").replace("CLASS", "MyWatch")


@pytest.mark.parametrize("path", ["NAME/actor.py", "NAME/migrations/0001_begin.sql"])
def test_the_tutorial_shows_what_the_command_makes(path: str) -> None:
    [shown] = re.findall(rf"^```\w+ {re.escape(filled(path))}\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)
    assert shown == filled(FILES[path])


@pytest.mark.parametrize("name", ["Bad-Name", "select 1", "db", "json", "class", "public"])
def test_a_name_that_cannot_be_one_makes_nothing(name: str, tmp_path: Path) -> None:
    refused = atlas(tmp_path, "new", "actor", name)
    assert (refused.returncode, list(tmp_path.iterdir())) == (64, [])


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def page() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


# S-1215
def test_the_tutorial_holds_from_the_empty_folder_to_the_crash(
    page: str, empty_database_dsn: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with short_directory() as empty:
        assert atlas(empty, "new", "actor", "my_watch").returncode == 0
        assert atlas(empty, "new", "actor", "my_watch").returncode == 64, "nothing is written over"
        folder = empty / "my_watch"
        env = {
            "PYTHONPATH": f"{folder}:{ROOT}",
            "ATLAS__DATABASE__DSN": empty_database_dsn,
            "ATLAS__DATABASE__PURPOSE": "test",
        }
        walked: list[str] = []

        monkeypatch.chdir(folder)
        for name, value in env.items():
            monkeypatch.setenv(name, value)

        def says(*words: str, code: int = 0) -> str:
            """What a command prints. Run in this process: to start one for each would take most of the test's time."""
            walked.append(" ".join(["atlas", *(f"'{word}'" if " " in word else word for word in words)]))
            capsys.readouterr()
            left = run_command_line(list(words))
            out, err = capsys.readouterr()
            assert left == code, out + err
            return out + err

        walked.append("atlas check")
        assert atlas(folder, "check", **env).stdout.rstrip().endswith("ok")
        process = AtlasProcess(folder, env=env)
        try:
            process.until("next:")
            assert says("ask", "my_watch", "Watch", json.dumps({"page": "home", "url": page})) == '"my_watch.home"\n'
            while says("ask", "my_watch", "CountLooks") == "0\n":
                pass  # the page is looked at beside
            assert "  my_watch.home" in says("status")
            assert "last: 204" in says("inspect", "my_watch.home")
            says("kill", "my_watch.home")
            process.until("my_watch.home started (incarnation 2")
            says("pause", "my_watch.home")
            while "paused" not in says("status"):
                pass  # it finishes its look
            says("resume", "my_watch.home")
            says("kill", "my_watch")
            process.until("my_watch started (incarnation 2")
            assert "my_watch.home" not in says("status")
            says("ask", "my_watch", "Watch", '{"page": "bad", "url": "http://127.0.0.1:port/"}')
            process.until("my_watch.bad is parked")
            assert "parked" in says("status", code=1), "it needs a human"
            crash = says("crashes", "my_watch.bad")
            assert "InvalidURL" in crash
            assert re.search(r"my_watch/actor\.py.*\n?.*look", crash)
            assert "crashed" in says("restart", "my_watch.bad", code=70)
            says("stop")
            assert process.wait() == 0
        finally:
            process.close()
        told = [command.replace("http://127.0.0.1:8080/", page) for command in COMMANDS]
        missing = [command for command in told if command not in walked]
        assert missing == ["atlas new actor my_watch", "atlas run"], "every other command was tried as it stands there"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
            cwd=folder,
            env=environment(empty, **env),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout
