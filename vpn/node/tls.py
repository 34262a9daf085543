"""Which mistake of certificates or addresses keeps backend and agent from speaking TLS, and which setting mends it."""

from __future__ import annotations

import ssl
from typing import Final

import httpx

_NAME: Final = frozenset({62, 64})  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
_AUTHORITY: Final = frozenset({2, 18, 19, 20, 21})  # no issuer that is known, in all the ways that OpenSSL tells apart
_NOT_YET: Final = 9
_EXPIRED: Final = 10

_NO_TLS: Final = (
    "it speaks plain HTTP, and its url says https: give it a [tls] table on the node's host, or write http:// in `url` "
    "(on loopback alone)"
)
_ONLY_TLS: Final = "it speaks TLS, and its url says http: write https:// in `url`"
_OURS: Final = "our client certificate (`certificate_file`, `key_file`)"
# What the node says of our certificate. OpenSSL's versions write what stands before "ALERT" in their own ways.
_ALERTS: Final = (
    (
        ("ALERT_CERTIFICATE_REQUIRED",),
        "it asks for a client certificate, and we have none: set `certificate_file` and `key_file` to one of the authority that "
        "`tls.client_ca` names there",
    ),
    (
        ("ALERT_UNKNOWN_CA",),
        f"it does not know the authority of {_OURS}: use one of the authority that `tls.client_ca` names there, or name its "
        "authority there",
    ),
    (("ALERT_CERTIFICATE_EXPIRED",), f"{_OURS} has expired, or is not valid yet: renew it, and look at the clocks"),
    (("ALERT_CERTIFICATE_REVOKED",), f"{_OURS} is revoked: use another one"),
    (("ALERT_BAD_CERTIFICATE", "ALERT_UNSUPPORTED_CERTIFICATE", "ALERT_CERTIFICATE_UNKNOWN"), f"it refuses {_OURS}"),
    (
        ("ALERT_HANDSHAKE_FAILURE",),
        "it broke the handshake off: if it asks for a client certificate, look at `certificate_file` and `key_file`; else bring "
        "both to TLS 1.3",
    ),
    (("ALERT_PROTOCOL_VERSION",), "it speaks no version of TLS that we do: bring both to TLS 1.2 or newer"),
)
_ONLY_TLS_CODE: Final = "tls_needed"


def tls_mistake(error: BaseException, url: str) -> str:
    """Why `error`, which a call to the agent at `url` raised, is a mistake of TLS, and which setting of the node's
    `[nodes.NAME]`, or of the agent, mends it. Empty if it is none."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, BaseExceptionGroup):
            seen = seen.exceptions[0]
        if isinstance(seen, ssl.SSLCertVerificationError):
            return _of_its_certificate(seen, url)
        if isinstance(seen, ssl.SSLError):
            return _of_the_handshake(seen.reason or "")
        seen = seen.__cause__ or seen.__context__
    return ""


def tls_needed(status: int, code: str) -> str:
    """The same for an answer: an agent behind TLS answers plain HTTP that it does not speak it."""
    return _ONLY_TLS if status == 400 and code == _ONLY_TLS_CODE else ""


def perhaps_tls(error: BaseException, url: str) -> str:
    """A hint for a connection that was closed without a word, as agents before this version do to whom they do not let in;
    empty for other failures."""
    if not isinstance(error, httpx.RemoteProtocolError | httpx.ReadError):
        return ""
    if url.startswith("http:"):
        return "; if it speaks TLS, write https:// in `url`"
    return "; if it asks for a client certificate, look at `certificate_file` and `key_file`"


def _of_its_certificate(error: ssl.SSLCertVerificationError, url: str) -> str:
    said = error.verify_message.rstrip(".")
    if error.verify_code in _NAME:
        host = httpx.URL(url).host
        return (
            f"its certificate is not made for {host}: use a name that it is made for in `url`, or have `tls.certificate` there "
            "made anew with this one"
        )
    if error.verify_code in _AUTHORITY:
        return (
            f"the authority of its certificate is not known here ({said}): set `ca_file` to the authority that made "
            "`tls.certificate` there"
        )
    if error.verify_code == _EXPIRED:
        return "its certificate has expired: renew `tls.certificate` there and restart the agent"
    if error.verify_code == _NOT_YET:
        return "its certificate is not valid yet: look at the clocks of both hosts, and at `tls.certificate` there"
    return f"its certificate was not accepted ({said}): correct `tls.certificate` there, or `ca_file` here"


def _of_the_handshake(reason: str) -> str:
    if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"):
        return _NO_TLS
    for ends, text in _ALERTS:
        if reason.endswith(ends):
            return text
    return f"the TLS handshake failed: {reason.replace('_', ' ').lower()}" if "ALERT" in reason else ""
