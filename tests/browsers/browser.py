"""A real Chromium and a real `atlas run`, for the tests of the desk."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any, Final
from unittest import mock

import attrs
import axe_playwright_python
import pytest
from playwright.async_api import async_playwright
from playwright.async_api import expect as playwright_expect

from runtime.cli import run_command_line
from tests.browsers.off_loop import OffLoop, Remote

REPOSITORY: Final = Path(__file__).parents[2]
AXE: Final = Path(axe_playwright_python.__file__).parent / "axe.min.js"
CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser")
TOKENS: Final = {role: f"the-token-of-{role}-in-these-tests" for role in ("viewer", "support", "money", "owner")}
PATIENCE: Final = 20.0
NAMES: Final = {"viewer": "vera", "support": "sue", "money": "mona", "owner": "anna"}
OPERATORS: Final = "\n".join(
    f'[operators.{NAMES[role]}]\nrole = "{role}"\ntoken_sha256 = "{hashlib.sha256(token.encode()).hexdigest()}"\n'
    for role, token in TOKENS.items()
)

needs_chromium = [
    pytest.mark.system,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium"),
]


@attrs.define(eq=False)
class Running:
    """One `atlas run` with a desk."""

    home: Path
    url: str
    process: subprocess.Popen[bytes]
    env: dict[str, str]
    cookies: dict[str, Any] = attrs.field(factory=dict)
    """Of those who have signed in, by role: as often as the tests look at pages, no one may sign in."""

    def atlas(self, *words: str) -> str:
        """Run a command against it; it must succeed. `status` may say that something needs a human (1)."""
        out, err = io.StringIO(), io.StringIO()
        with mock.patch.dict(os.environ, self.env, clear=True), redirect_stdout(out), redirect_stderr(err):
            code = run_command_line(list(words))
        assert code in ((0, 1) if words[0] == "status" else (0,)), err.getvalue()
        return out.getvalue()


@contextmanager
def running(config: str, extra: Mapping[str, str] | None = None) -> Iterator[Running]:
    """`atlas run` on this configuration, to which the operators of these tests are added."""
    home = Path(tempfile.mkdtemp(prefix="atlas-desk-"))
    home.chmod(0o755)
    (home / "supervisor.toml").write_text(f"{config}\n{OPERATORS}")
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ATLAS_")},
        "PYTHONPATH": str(REPOSITORY),
        "ATLAS_CONFIG": str(home / "supervisor.toml"),
        "ATLAS__CONTROL__SOCKET": str(home / "control.sock"),
        "ATLAS__ADMIN__PORT": "0",
        "ATLAS_OPERATOR_TOKEN": TOKENS["owner"],
        **(extra or {}),
    }
    log = home / "log"
    with log.open("wb") as out:
        argv = [sys.executable, "-m", "runtime.cli.main", "run"]
        process = subprocess.Popen(argv, env=env, cwd=home, stdout=out, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 4 * PATIENCE
        while True:
            said = log.read_text(errors="replace")
            found = re.search(r"^  admin .* desk (http://\S+)", said, re.MULTILINE)
            if found:
                break
            assert process.poll() is None and time.monotonic() < deadline, said
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        yield Running(home, found[1], process, env)
        said = log.read_text(errors="replace")
        assert "cannot be shown" not in said and "connection failed" not in said, said
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(home, ignore_errors=True)


@attrs.frozen
class Chromium:
    """One headless browser, for tests that await nothing."""

    browser: Any
    off: OffLoop

    def expect(self, locator: Any) -> Any:
        """Playwright's `expect`: an assertion that waits until it holds."""
        return self.off.wrapped(playwright_expect(locator._target if isinstance(locator, Remote) else locator))


@contextmanager
def chromium() -> Iterator[Chromium]:
    """One headless browser."""
    off = OffLoop()
    try:
        playwright = off.wrapped(async_playwright()).start()
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield Chromium(browser, off)
        finally:
            browser.close()
            playwright.stop()
    finally:
        off.close()


@attrs.define(eq=False)
class Viewer:
    """A page of somebody who is signed in; what its console says is kept."""

    page: Any
    url: str
    complaints: list[str] = attrs.field(factory=list)

    def go(self, path: str) -> None:
        """Open a page of the desk."""
        self.page.goto(self.url + path, wait_until="domcontentloaded")

    def take_picture(self, name: str) -> None:
        """Take the picture that the documentation shows: into the directory that ATLAS_DESK_PICTURES names, else of the test."""
        taken: bytes = self.page.screenshot(full_page=True)
        assert taken.startswith(b"\x89PNG")
        if directory := os.environ.get("ATLAS_DESK_PICTURES"):
            (Path(directory) / f"{name}.png").write_bytes(taken)

    def axe(self) -> list[object]:
        """What axe-core finds wrong with the page."""
        self.page.evaluate(AXE.read_text())
        found: list[object] = self.page.evaluate(
            "() => axe.run().then((r) => r.violations.map((v) => [v.id, v.nodes[0].html]))"
        )
        return found


@contextmanager
def viewer(
    browser: Chromium,
    system: Running,
    role: str = "owner",
    *,
    language: str = "en",
    dark: bool = False,
    phone: bool = False,
) -> Iterator[Viewer]:
    """Somebody with this role, who signed in by the form when first needed."""
    url = system.url
    context = browser.browser.new_context(
        locale=language,
        color_scheme="dark" if dark else "light",
        viewport={"width": 390, "height": 800} if phone else {"width": 1280, "height": 800},
        has_touch=phone,
        is_mobile=phone,
        storage_state=system.cookies.get(role),
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE * 1000)
    made = Viewer(page, url)
    page.on("pageerror", lambda error: made.complaints.append(str(error)))
    page.on("console", lambda said: made.complaints.append(said.text) if said.type in ("error", "warning") else None)
    try:
        if role not in system.cookies:
            made.go("/sign-in")
            page.fill("#token", TOKENS[role])
            page.click("main button")
            page.wait_for_selector("nav")
            system.cookies[role] = context.storage_state()
        yield made
    finally:
        context.close()
