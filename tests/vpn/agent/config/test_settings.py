"""The agent's configuration file: every mistake is named, and nothing unsafe is taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vpn.agents import key
from vpn.agent.config.settings import load_settings
from vpn.errors import AgentMisconfigured
from vpn.link import link_for, parse_link
from vpn.xray import x25519

GOOD = 'data_dir = "data"\ntoken_file = "token"\n'
REALITY = '[inbound]\nsecurity = "reality"\ntarget = "www.example.com:443"\n'


def load(tmp_path: Path, text: str) -> object:
    """Load a file with this text."""
    (tmp_path / "agent.toml").write_text(text)
    return load_settings(tmp_path / "agent.toml")


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text(GOOD)
    settings = load_settings(tmp_path / "agent.toml")
    assert (settings.data_dir, settings.token_file) == (tmp_path / "data", tmp_path / "token")
    assert settings.listen == "127.0.0.1:0" and settings.clock_offset is None


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ("listen = 8700", "listen"),
        ('listen = "8700"', "HOST:PORT"),
        ('listen = "127.0.0.1:99999"', "HOST:PORT"),
        ('listen = "0.0.0.0:8700"', "tls"),
        ('listen = "127.example.com:8700"', "tls"),
        ('listen = "node.example.com:8700"', "tls"),
        ("bogus = 1", "bogus"),
        ("clock_offset = true", "clock_offset"),
        ("[inbound]\nport = 65536", "inbound.port"),
        ("[inbound]\nport = true", "inbound.port"),
        ('[inbound]\nport = "443"', "inbound.port"),
        ('[inbound]\nsecurity = "tls"', "inbound.security"),
        ('[inbound]\nlisten = "0.0.0.0"', "loopback only"),
        ('[inbound]\nlisten = "127.example.com"', "loopback only"),
        ('[inbound]\nsecurity = "reality"', "inbound.target"),
        ('[inbound]\nsecurity = "reality"\ntarget = "a.example:443"\nlisten = "0.0.0.0"', "inbound.host"),
        ('[inbound]\nhost = "not a host"', "inbound.host"),
        ('[inbound]\nhost = "[2001:db8::1]"', "inbound.host"),
        ('[inbound]\nhost = "vpn.example.org:443"', "inbound.host"),
        ('[inbound]\nhost = "münchen.example"', "inbound.host"),
        ('[inbound]\nhost = "0.0.0.0"', "inbound.host"),
        (f'{REALITY}host = "a b"', "inbound.host"),
        (f'{REALITY}server_names = ["www.example.com", "not a name"]', "inbound.server_names"),
        (f'{REALITY}server_names = [""]', "inbound.server_names"),
        (f'{REALITY}fingerprint = ""', "inbound.fingerprint"),
        (f'{REALITY}fingerprint = "ios"', "none of chrome, firefox, safari"),
        ('[inbound]\nsecurity = "reality"\ntarget = "www.example.com"', "HOST:PORT"),
        ('[inbound]\nsecurity = "reality"\ntarget = "www.example.com:https"', "HOST:PORT"),
        ('[inbound]\nsecurity = "reality"\ntarget = "www.example.com:0"', "HOST:PORT"),
        ('[inbound]\nsecurity = "reality"\ntarget = "https://www.example.com:443"', "HOST:PORT"),
        ("[expiry]\ngrace = -1", "expiry"),
        ("[tls]\ncertificate = 'c'", "key"),
        ("this is not toml", "agent.toml"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(tmp_path: Path, more: str, named: str) -> None:
    with pytest.raises(AgentMisconfigured, match=named):
        load(tmp_path, GOOD + more)


@pytest.mark.parametrize("host", ["vpn.example.org", "xn--mnchen-3ya.example", "192.0.2.1", "2001:db8::1"])
@pytest.mark.parametrize("target", ["www.example.com:443", "[2001:db8::2]:443"])
def test_whatever_host_is_taken_makes_a_link(tmp_path: Path, host: str, target: str) -> None:
    (tmp_path / "agent.toml").write_text(
        f'{GOOD}[inbound]\nsecurity = "reality"\nlisten = "0.0.0.0"\nhost = "{host}"\ntarget = "{target}"\n'
    )
    facts = load_settings(tmp_path / "agent.toml").facts(443, x25519.generate().public, "abcd")
    assert parse_link(link_for(key("customer", flow=facts.flow), facts).render()).host == host


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(AgentMisconfigured) as caught:
        load(tmp_path, GOOD + 'listen = 1\nbogus = 2\n[inbound]\nport = "a"\n')
    assert all(named in str(caught.value) for named in ("listen", "bogus", "port"))
