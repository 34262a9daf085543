"""The agent's own configuration: a TOML file, or flags for an embedded node."""

from __future__ import annotations

import ssl
import tomllib
from ipaddress import ip_network
from pathlib import Path
from typing import Final

import attrs
import cattrs
from attrs.validators import ge, gt

from runtime.http import ConnectionLimits, is_loopback
from vpn.errors import AgentMisconfigured
from vpn.link import REALITY_FINGERPRINTS, is_host
from vpn.protocol import FLOW_NONE, FLOW_VISION, InboundFacts
from vpn.xray.config import LOOPBACK

TAG: Final = "vless"


@attrs.frozen
class InboundSettings:
    """`[inbound]`: where customers connect.

    `port` 0 = choose one and keep it. `host` is the name or address in customers' links (default: `listen`). `security`
    "none" is for loopback only; "reality" needs `target`, an HTTPS server (host:port) that strangers are shown, and
    `server_names` it answers to (default: the target's host).
    """

    listen: str = "127.0.0.1"
    port: int = 0
    host: str = ""
    security: str = "none"
    target: str = ""
    server_names: tuple[str, ...] = ()
    fingerprint: str = "chrome"


@attrs.frozen
class TlsSettings:
    """`[tls]`: the agent's own certificate; with `client_ca`, only clients with a certificate of that authority."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


@attrs.frozen
class ExpirySettings:
    """`[expiry]`: `grace`, `silence` and `settle` in seconds (a day, 15 minutes, 5 minutes), as
    `vpn.agent.state.expiry.BackendContact` uses them.
    """

    grace: float = 86_400.0
    silence: float = 900.0
    settle: float = 300.0


@attrs.frozen
class HttpSettings(ConnectionLimits):
    """`[http]`: what strangers may cost the HTTP interface. Bodies of requests have their own limits (docs/reference/node.md).

    Its `head_seconds` is longer than the backend keeps idle connections, and `request_seconds` fits a whole synchronisation.
    """

    head_seconds: float = attrs.field(default=15.0, validator=gt(0))
    request_seconds: float = attrs.field(default=120.0, validator=gt(0))
    max_requests: int = attrs.field(default=128, validator=ge(1))


@attrs.frozen
class AgentSettings:
    """All of the agent's configuration. `listen` is HOST:PORT of its HTTP interface, port 0 = choose and keep.

    `token_file` holds the bearer token (at least 16 characters). `clock_offset` shifts the agent's clock by that many
    seconds and may be changed by the backend; None (the default) forbids it: for demonstrations and tests only.
    `reaches` lists private networks (like "10.8.0.0/16") that customers may reach through this node; none by default.
    Every `verify_every` seconds Xray's users are compared with the wanted keys, and put right.
    """

    data_dir: Path
    token_file: Path
    listen: str = "127.0.0.1:0"
    inbound: InboundSettings = attrs.field(factory=InboundSettings)
    tls: TlsSettings | None = None
    http: HttpSettings = attrs.field(factory=HttpSettings)
    expiry: ExpirySettings = attrs.field(factory=ExpirySettings)
    clock_offset: float | None = None
    reaches: tuple[str, ...] = ()
    verify_every: float = 60.0

    @property
    def listen_host(self) -> str:
        """The host part of `listen`, without brackets."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def listen_port(self) -> int:
        """The port part of `listen`."""
        return int(self.listen.rpartition(":")[2])

    @property
    def address(self) -> str:
        """Where others reach the HTTP interface: by the host of customers' links, if it listens on all addresses."""
        host = self.listen_host
        if host in ("0.0.0.0", "::"):  # noqa: S104  # compared, not bound
            host = self.inbound.host or "127.0.0.1"
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self.tls else 'http'}://{shown}:{self.listen_port}"

    @property
    def private_networks(self) -> tuple[str, ...]:
        """Private networks that customers may reach: those of `reaches`, and this machine itself for a loopback node."""
        return (*self.reaches, *LOOPBACK) if self.inbound.security == "none" else self.reaches

    @property
    def flow(self) -> str:
        """The flow that new keys should use here: Vision behind REALITY, else none."""
        return FLOW_VISION if self.inbound.security == "reality" else FLOW_NONE

    def facts(self, port: int, public_key: str, short_id: str) -> InboundFacts:
        """What a customer's link to this node says. `port` is where customers connect; `public_key` and `short_id` are
        the node's REALITY identity, left out without REALITY.
        """
        reality = self.inbound.security == "reality"
        return InboundFacts(
            tag=TAG,
            host=self.inbound.host or self.inbound.listen,
            port=port,
            network="tcp",
            security=self.inbound.security,
            sni=self.server_names[0] if reality else "",
            public_key=public_key if reality else "",
            short_id=short_id if reality else "",
            fingerprint=self.inbound.fingerprint if reality else "",
            flow=self.flow,
        )

    @property
    def server_names(self) -> tuple[str, ...]:
        """The names that REALITY answers to: those configured, else the target's host."""
        return self.inbound.server_names or (self.inbound.target.rpartition(":")[0].strip("[]"),)


def load_settings(path: Path) -> AgentSettings:
    """Read a configuration file. Paths in it are relative to it. Raises AgentMisconfigured naming every wrong key."""
    try:
        data = tomllib.loads(path.read_text())
    except OSError as error:
        raise AgentMisconfigured(f"cannot read the configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AgentMisconfigured(f"{path}: {error}") from error
    converter = cattrs.Converter(forbid_extra_keys=True)
    converter.register_structure_hook(Path, lambda value, _: path.parent / str(value))
    for kind in (int, str, float):
        converter.register_structure_hook(kind, _strict)
    try:
        settings = converter.structure(data, AgentSettings)
    except (cattrs.BaseValidationError, ValueError) as error:
        problems = (
            cattrs.transform_error(error, path="") if isinstance(error, cattrs.BaseValidationError) else [str(error)]
        )
        raise AgentMisconfigured(
            f"{path}: " + "; ".join(problem.replace(" @ ", " at ") for problem in problems)
        ) from error
    check_settings(settings)
    return settings


def _strict(value: object, kind: type) -> object:
    fits = isinstance(value, int | float) if kind is float else isinstance(value, kind)
    if not fits or isinstance(value, bool):
        raise ValueError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value


def check_settings(settings: AgentSettings) -> None:
    """Raise AgentMisconfigured for settings that cannot work or would be unsafe."""
    host, colon, port = settings.listen.rpartition(":")
    _require(
        bool(colon and host) and port.isdecimal() and int(port) <= 65_535,
        f"listen: {settings.listen!r} is not HOST:PORT",
    )
    _require(
        is_loopback(settings.listen_host) or settings.tls is not None,
        f"listen: {settings.listen} is not loopback, and without [tls] the token would cross the network readable",
    )
    for network in settings.http.trusted_proxies:
        _require(_is_network(network), f"http.trusted_proxies: {network!r} is not a network like 10.8.0.0/16")
    for network in settings.reaches:
        _require(_is_network(network), f"reaches: {network!r} is not a network like 10.8.0.0/16")
    _require(settings.verify_every > 0, "verify_every: seconds, more than 0")
    inbound = settings.inbound
    _require(0 <= inbound.port <= 65_535, f"inbound.port: {inbound.port} is not between 0 and 65535")
    _require(
        inbound.security in ("none", "reality"),
        f'inbound.security: {inbound.security!r} is neither "none" nor "reality"',
    )
    if inbound.security == "none":
        _require(
            is_loopback(inbound.listen),
            f'inbound.listen: {inbound.listen} needs security = "reality"; unencrypted VLESS is for loopback only',
        )
    else:
        _require(
            bool(inbound.target), "inbound.target: REALITY needs an HTTPS server to show to strangers, as HOST:PORT"
        )
        host, colon, port = inbound.target.rpartition(":")
        _require(
            bool(colon) and is_host(host.strip("[]")) and port.isdecimal() and 1 <= int(port) <= 65_535,
            f"inbound.target: {inbound.target!r} is not HOST:PORT",
        )
        for name in settings.server_names:
            _require(is_host(name), f"inbound.server_names: {name!r} is no name that a server answers to")
        _require(
            inbound.fingerprint in REALITY_FINGERPRINTS,
            f"inbound.fingerprint: {inbound.fingerprint!r} is none of {', '.join(REALITY_FINGERPRINTS)}; behind REALITY no "
            "client that looks like another one would be served",
        )
    _require(
        (inbound.host or inbound.listen) not in ("0.0.0.0", "::"),  # noqa: S104  # compared, not bound
        "inbound.host: needed for links, because inbound.listen is no address that customers can use",
    )
    # one unusable link would be one too many: customers get those of all nodes together
    _require(
        is_host(inbound.host or inbound.listen),
        f"inbound.host: {inbound.host or inbound.listen!r} cannot stand in links; give a name (IDN as xn--…) or an address "
        "without brackets and port",
    )
    _require(
        min(settings.expiry.grace, settings.expiry.silence, settings.expiry.settle) >= 0,
        "expiry: seconds are not negative",
    )


def _is_network(text: str) -> bool:
    try:
        ip_network(text)
    except ValueError:
        return False
    return True


def tls_context(tls: TlsSettings) -> ssl.SSLContext:
    """What the HTTP interface is served with. Raises AgentMisconfigured if the certificate, its key or the authority cannot be
    used."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    for name, path in (("certificate", tls.certificate), ("key", tls.key), ("client_ca", tls.client_ca)):
        try:
            if path is not None:
                path.read_bytes()
        except OSError as error:
            raise AgentMisconfigured(f"tls.{name}: cannot read {path}: {error.strerror}") from error
    try:
        # never asks at a terminal for the password of an encrypted key
        context.load_cert_chain(tls.certificate, tls.key, password=lambda: "")
    except OSError as error:  # ssl.SSLError too
        raise AgentMisconfigured(f"tls.certificate, tls.key: they cannot be used together: {error}") from error
    try:
        if tls.client_ca is not None:
            context.load_verify_locations(tls.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:
        raise AgentMisconfigured(
            f"tls.client_ca: {tls.client_ca} holds no certificate that can be used: {error}"
        ) from error
    return context


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise AgentMisconfigured(what)
