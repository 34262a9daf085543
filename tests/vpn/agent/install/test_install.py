"""`atlas node install`: everything a host needs, written once, kept for ever, and an agent that still cuts under it."""

from __future__ import annotations

import os
import platform
import re
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner, Result

from runtime.child_process import PIPE, spawn
from tests.run_queue import at_most
from tests.vpn.agent.install.restricted import ANALYZE, HEADER
from tests.vpn.agents import arguments, key, read_line, running_agent
from tests.vpn.certificate import Authority
from tests.vpn.origin import Origin
from tests.vpn.streams import open_stream, read_until_cut
from vpn.agent.config.settings import load_settings
from vpn.agent.install import command as install_command
from vpn.agent.install.installation import CONFIG, DATA, TOKEN, UNIT, unreadable_for_others
from vpn.commands.node import node
from vpn.errors import AgentMisconfigured, InstallRefused
from vpn.xray.tunnel import open_tunnel

CUSTOMERS = ("--host", "vpn.example.org", "--target", "www.example.com:443")


def install(*arguments: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(node, ["install", *arguments], catch_exceptions=True)


def below(root: Path, path: Path) -> Path:
    """Where a file is under --root."""
    return root / path.relative_to("/")


def mode(path: Path) -> int:
    """Permissions."""
    return stat.S_IMODE(path.stat().st_mode)


def test_one_command_writes_configuration_token_data_directory_and_unit(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        done = install("--root", str(tmp_path), *CUSTOMERS)
    finally:
        os.umask(before)
    assert done.exit_code == 0, done.output
    assert (mode(below(tmp_path, TOKEN)), mode(below(tmp_path, DATA))) == (0o600, 0o700)
    assert mode(below(tmp_path, UNIT)) == mode(below(tmp_path, CONFIG)) == 0o644
    token = below(tmp_path, TOKEN).read_text().strip()
    assert len(token) >= 40
    for path in (CONFIG, UNIT):
        assert token not in below(tmp_path, path).read_text()
    assert token not in done.output
    assert "systemctl enable --now atlas-node" in done.output and "token_file" in done.output
    settings = load_settings(below(tmp_path, CONFIG))
    assert settings.data_dir == DATA and settings.inbound.security == "reality" and settings.inbound.port == 443
    assert str(settings.token_file) == "/run/credentials/atlas-node.service/token"


def test_repeating_it_changes_nothing_and_keeps_token_data_and_configuration(tmp_path: Path) -> None:
    install("--root", str(tmp_path), *CUSTOMERS)
    below(tmp_path, DATA).joinpath("identity.json").write_text("precious")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    again = install("--root", str(tmp_path), *CUSTOMERS)
    assert again.exit_code == 0
    assert "created" not in again.output and "replaced" not in again.output
    different = install("--root", str(tmp_path), *CUSTOMERS, "--port", "8443")
    assert "kept      /etc/atlas/node.toml  (it differs" in different.output
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    forced = install("--root", str(tmp_path), *CUSTOMERS, "--port", "8443", "--force")
    assert "replaced  /etc/atlas/node.toml" in forced.output
    assert load_settings(below(tmp_path, CONFIG)).inbound.port == 8443
    assert below(tmp_path, TOKEN).read_bytes() == before[below(tmp_path, TOKEN)]


def test_a_token_that_others_can_read_is_closed_to_them(tmp_path: Path) -> None:
    install("--root", str(tmp_path))
    below(tmp_path, TOKEN).chmod(0o644)
    install("--root", str(tmp_path))
    assert mode(below(tmp_path, TOKEN)) == 0o600


def test_a_dry_run_shows_everything_but_the_token_and_writes_nothing(tmp_path: Path) -> None:
    shown = install("--dry-run", "--root", str(tmp_path), *CUSTOMERS)
    assert shown.exit_code == 0
    assert "ExecStart=" in shown.output and 'target = "www.example.com:443"' in shown.output
    assert "mode 0600" in shown.output and "never shown" in shown.output
    assert list(tmp_path.iterdir()) == []


def test_whoever_is_not_root_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    refused = install()
    assert isinstance(refused.exception, InstallRefused) and refused.exception.exit_code == 77
    assert "sudo" in str(refused.exception) and "--dry-run" in str(refused.exception)


def test_a_program_the_service_cannot_read_is_refused_with_the_directory_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = tmp_path / "private"
    (private / "bin").mkdir(parents=True)
    program = private / "bin" / "atlas"
    program.write_text("")
    for directory in tmp_path.parents:
        if not directory.stat().st_mode & stat.S_IXOTH:
            private = directory  # pytest's own
    private.chmod(0o700)
    assert unreadable_for_others(program) == private
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(install_command, "program", lambda: [str(program)])
    refused = install("--no-start")
    assert isinstance(refused.exception, InstallRefused) and str(private) in str(refused.exception)
    assert "--user" in str(refused.exception)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--listen", "0.0.0.0:8700"), "tls"),
        (("--target", "www.example.com:443"), "inbound.host"),
        (("--listen", "nonsense"), "HOST:PORT"),
        (("--host", "not a host", "--target", "www.example.com:443"), "inbound.host"),
        (("--host", "vpn.example.org", "--target", "www.example.com"), "inbound.target"),
        ((*CUSTOMERS, "--server-name", "not a name"), "inbound.server_names"),
    ],
    ids=["open without encryption", "no host", "no address", "impossible host", "no port", "impossible name"],
)
def test_options_that_cannot_work_are_refused_before_anything_is_written(
    tmp_path: Path, options: tuple[str, ...], named: str
) -> None:
    refused = install("--root", str(tmp_path), *options)
    assert isinstance(refused.exception, AgentMisconfigured) and named in str(refused.exception)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("in the way")
    refused = install("--root", str(tmp_path))
    assert isinstance(refused.exception, InstallRefused) and f"{tmp_path}/etc" in str(refused.exception)


def test_certificates_reach_the_service_though_only_root_may_read_them(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority.example")
    certificate, private = authority.issue("node.example")
    tls = ("--certificate", str(certificate), "--key", str(private), "--client-ca", str(authority.file))
    done = install("--root", str(tmp_path / "root"), *CUSTOMERS, "--listen", "0.0.0.0:8700", *tls)
    assert done.exit_code == 0, done.output
    unit = below(tmp_path / "root", UNIT).read_text()
    assert f"LoadCredential=tls.key:{private}" in unit and f"LoadCredential=clients.crt:{authority.file}" in unit
    settings = load_settings(below(tmp_path / "root", CONFIG))
    assert settings.tls is not None and str(settings.tls.key) == "/run/credentials/atlas-node.service/tls.key"
    assert "https://" in done.output


def credentials_of(unit: Path) -> dict[str, str]:
    """The files that systemd shows the service, by name."""
    return dict(re.findall(r"^LoadCredential=([^:]+):(.+)$", unit.read_text(), re.MULTILINE))


def test_repeating_it_without_options_leaves_a_node_that_starts(tmp_path: Path) -> None:
    """As after an upgrade: the configuration stays, so the unit has to go on giving it what it reads."""
    root = tmp_path / "root"
    authority = Authority(tmp_path, "authority.example")
    certificate, private = authority.issue("node.example")
    tls = ("--certificate", str(certificate), "--key", str(private), "--client-ca", str(authority.file))
    first = install("--root", str(root), *CUSTOMERS, "--listen", "0.0.0.0:8700", "--user", "vpn", *tls)
    unit, config = below(root, UNIT), below(root, CONFIG)
    before = unit.read_text(), config.read_text()
    again = install("--root", str(root))
    assert again.exit_code == 0, again.output
    assert (unit.read_text(), config.read_text()) == before
    look = "atlas node state --url https://vpn.example.org:8700 --token-file /etc/atlas/node.token --ca-file"
    assert look in first.output and look in again.output

    renewed = tmp_path / "renewed.crt"
    renewed.write_bytes(certificate.read_bytes())
    install("--root", str(root), "--listen", "0.0.0.0:8700", "--certificate", str(renewed), "--key", str(private))
    assert credentials_of(unit) == {
        "token": str(TOKEN),
        "tls.crt": str(renewed),
        "tls.key": str(private),
        "clients.crt": str(authority.file),
    }
    assert "\nUser=vpn\n" in unit.read_text()

    install("--root", str(root), *CUSTOMERS, "--force")
    assert credentials_of(unit) == {"token": str(TOKEN)} and "\nDynamicUser=yes\n" in unit.read_text()
    assert load_settings(config).tls is None


def test_a_configuration_without_known_certificates_is_refused_with_the_options(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority.example")
    certificate, private = authority.issue("node.example")
    tls = ("--certificate", str(certificate), "--key", str(private))
    install("--root", str(tmp_path / "root"), *CUSTOMERS, "--listen", "0.0.0.0:8700", *tls)
    below(tmp_path / "root", UNIT).unlink()
    refused = install("--root", str(tmp_path / "root"), *CUSTOMERS)
    assert isinstance(refused.exception, InstallRefused) and "--certificate --key" in str(refused.exception)
    assert not below(tmp_path / "root", UNIT).exists()


def test_certificates_that_a_configuration_does_not_use_are_not_needed(
    tmp_path: Path,
) -> None:
    """systemd does not start a service whose credential files are gone."""
    authority = Authority(tmp_path, "authority.example")
    certificate, private = authority.issue("node.example")
    root = tmp_path / "root"
    install("--root", str(root), *CUSTOMERS)
    later = install("--root", str(root), *CUSTOMERS, "--certificate", str(certificate), "--key", str(private))
    assert "--force replaces it" in later.output
    assert credentials_of(below(root, UNIT)) == {"token": str(TOKEN)}
    assert "http://127.0.0.1:8700" in later.output


def test_a_configuration_that_cannot_work_is_named_before_anything_is_written(tmp_path: Path) -> None:
    install("--root", str(tmp_path), *CUSTOMERS)
    below(tmp_path, CONFIG).write_text("bogus = 1\n")
    below(tmp_path, UNIT).unlink()
    refused = install("--root", str(tmp_path), *CUSTOMERS)
    assert isinstance(refused.exception, AgentMisconfigured)
    assert "bogus" in str(refused.exception) and "--force" in str(refused.exception)
    assert not below(tmp_path, UNIT).exists()
    assert install("--root", str(tmp_path), *CUSTOMERS, "--force").exit_code == 0


def unit_in(root: Path, *options: str) -> Path:
    """The unit that the command writes."""
    assert install("--root", str(root), *options).exit_code == 0
    return below(root, UNIT)


def test_the_unit_leaves_open_what_cutting_needs(tmp_path: Path) -> None:
    unit = unit_in(tmp_path).read_text()
    for line in (
        "SystemCallFilter=@system-service pidfd_getfd",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK",
        "KillMode=mixed",
        "DynamicUser=yes",
        "NoNewPrivileges=yes",
        "StateDirectory=atlas-node",
        "LoadCredential=token:/etc/atlas/node.token",
    ):
        assert f"\n{line}\n" in unit
    assert not re.search(r"^(PrivateUsers|ProcSubset|PrivateNetwork)=", unit, re.MULTILINE)
    assert "\nUser=vpn\n" in unit_in(tmp_path / "other", "--user", "vpn").read_text()


@pytest.mark.system
@pytest.mark.skipif(not ANALYZE, reason="needs systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    checked = subprocess.run([ANALYZE, "verify", str(unit_in(tmp_path))], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.system
@pytest.mark.root  # anybody else cannot give up capabilities
@pytest.mark.skipif(
    not ANALYZE or not HEADER.exists() or platform.machine() != "x86_64",
    reason="needs systemd-analyze, the kernel's headers and x86-64",
)
async def test_under_the_units_restrictions_a_removed_customer_is_cut_exactly(tmp_path: Path, origin: Origin) -> None:
    unit = unit_in(tmp_path / "root")
    restricted = [sys.executable, "-m", "tests.vpn.agent.install.restricted", str(unit)]
    argv = [*restricted, *arguments(tmp_path / "node", "--parent-stdin")]
    spec = key("customer")
    async with running_agent(tmp_path / "node", argv=argv) as agent, agent.client() as client:
        status = Path(f"/proc/{agent.child.pid}/status").read_text()
        assert re.search(r"^Seccomp:\t2$", status, re.MULTILINE) and "CapBnd:\t0000000000000400" in status
        assert "cut-duplicate" in (await client.state()).capabilities
        await client.put(spec)
        async with open_tunnel(agent.link(spec)) as tunnel, open_stream(tunnel, origin) as stream:
            assert (await client.remove("customer", 1)).cut == 1
            with at_most(2):
                await read_until_cut(stream)


async def test_systemd_hears_that_it_is_ready_that_it_lives_and_that_it_stops(tmp_path: Path) -> None:
    listener = trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    await listener.bind(str(tmp_path / "notify"))
    env = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000"}
    child = spawn(arguments(tmp_path / "node", "--parent-stdin"), name="agent", keep_stdin=True, stdout=PIPE, env=env)
    heard: list[str] = []

    async def until(word: str) -> None:
        while word not in heard:
            heard.append((await listener.recv(4096)).decode())

    try:
        with trio.fail_after(20):
            await until("READY=1")
            assert await read_line(child)
            for _ in range(3):
                heard.clear()
                await until("WATCHDOG=1")
            assert child.stdin is not None
            await child.stdin.aclose()
            await until("STOPPING=1")
            assert await child.wait() == 0
    finally:
        await child.close()
        listener.close()
