"""What must never be read in a log: keys, links, passwords, tokens.

Redaction is the last step before text leaves the process, so that no caller can forget it. It is a belt, not a licence:
code that logs a secret on purpose is still wrong. All repetitions are bounded: a hostile line cannot make them slow.
"""

from __future__ import annotations

import re

MASK = "***"

_UUID = re.compile(
    # Whatever stands around it: an escape like \x1b before it ends in what could be one of its digits.
    r"([0-9a-fA-F]{8})(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
    # The same without dashes, told from other hexadecimal digests by its version and variant.
    r"|(?<![0-9a-fA-F])([0-9a-fA-F]{8})[0-9a-fA-F]{4}[1-8][0-9a-fA-F]{3}[89abAB][0-9a-fA-F]{15}(?![0-9a-fA-F])"
)
# No word boundary before these: an escape like \x1b[31m ends in a letter. (wss:// is no link of ours.)
_LINK = re.compile(r"(vless|vmess|trojan|(?<!w)ss|hysteria2|tuic)://[^\s\"'<>\\]+", re.IGNORECASE)
_PASSWORD_IN_URL = re.compile(r"\b([a-z][a-z0-9+.-]{0,20}://[^\s/:@\"']{0,200}):[^\s\"']{1,500}@", re.IGNORECASE)
_BEARER = re.compile(r"(bearer)(?:\s|%20)\s{0,8}[A-Za-z0-9._~+/=-]{4,}", re.IGNORECASE)
_BASIC = re.compile(r"(authorization[\"']?\s{0,8}[:=]\s{0,8}[\"']?basic)\s{1,8}[A-Za-z0-9+/=]+", re.IGNORECASE)
_BOT_TOKEN = re.compile(r"(?<!\d)(\d{6,12}):[A-Za-z0-9_-]{30,}")
_SENSITIVE = r"(?:password|passwd|passphrase|secret|token|api[_-]?key|private[_-]?key|authorization|credential)s?"
_PAIR = re.compile(
    rf"(?P<name>{_SENSITIVE})(?P<equals>[\"']?\s{{0,8}}[=:]\s{{0,8}})"
    r"(?P<value>\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|[^\s,;&\"'}\])]+)",
    re.IGNORECASE,
)
_NAME = re.compile(_SENSITIVE + r"\Z", re.IGNORECASE)
_HINTS = ("pass", "secret", "token", "key", "authorization", "credential", "bearer")
_HARMLESS = frozenset({"bearer", "basic", "none", "null", "true", "false", MASK})


def redact(text: str) -> str:
    """`text` with what is secret taken out.

    UUIDs keep their first 8 characters; `vless://` links and their kin keep their scheme; passwords in URLs and in
    `password=…` pairs, bearer and bot tokens become `***`. Redacting twice changes nothing.
    """
    # Most lines hold none of it: a cheap look for a few characters spares the patterns.
    if "://" in text:
        text = _LINK.sub(rf"\1://{MASK}", text)
        text = _PASSWORD_IN_URL.sub(rf"\1:{MASK}@", text)
    if len(text) >= 32:
        text = _UUID.sub(_uuid, text)
        text = _BOT_TOKEN.sub(rf"\1:{MASK}", text)
    lowered = text.lower()
    if any(hint in lowered for hint in _HINTS):
        text = _BEARER.sub(rf"\1 {MASK}", text)
        text = _BASIC.sub(rf"\1 {MASK}", text)
        text = _PAIR.sub(_pair, text)
    return text


def redact_value(name: str, value: str) -> str:
    """The value of a field called `name`: masked whole if the name says secret, else redacted as text."""
    if _NAME.search(name) and not _harmless(name, value):
        return MASK
    return redact(value)


def _uuid(match: re.Match[str]) -> str:
    return f"{match[1] or match[2]}…"


def _pair(match: re.Match[str]) -> str:
    value = match["value"]
    quote = value[0] if value[0] in "\"'" else ""
    if _harmless(match["name"], value.strip("\"'")):
        return match[0]
    return f"{match['name']}{match['equals']}{quote}{MASK}{quote}"


def _harmless(name: str, value: str) -> bool:
    # Fencing tokens are small integers, and an operator needs them.
    return value.lower() in _HARMLESS or (value.isdecimal() and len(value) < 20 and "token" in name.lower())
