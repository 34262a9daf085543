"""Text made safe to show: secrets masked, control characters escaped.

Redaction is the last step before text leaves the process, so that no caller can forget it. It does not permit logging a
secret: code that does so on purpose is still wrong. All repetitions are bounded: a hostile line cannot make them slow.
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


# A newline or an escape sequence in somebody's name must not forge a line or paint the terminal; nor may a mark that makes
# the terminal show the rest from right to left.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {
    ord("\n"): "\\n",
    ord("\t"): " ",
    ord("\r"): "\\r",
    **{code: f"\\u{code:04x}" for code in (0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))},
}
_WITHIN_LINES = {code: text for code, text in _CONTROLS.items() if code != ord("\n")}
_IN_JSON = {code: f"\\u{code:04x}" for code in _CONTROLS if code >= 127}
"""JSON itself escapes those below."""


def one_line(text: str) -> str:
    """`text` on one line, with nothing in it that a terminal would obey: control characters are shown as escapes."""
    # Translating costs more than all the rest of a log line, and hardly any line needs it.
    return text if text.isprintable() else text.translate(_CONTROLS)


def some_lines(text: str) -> str:
    """As `one_line`, but line breaks stay."""
    return text if text.isprintable() else text.translate(_WITHIN_LINES)


def in_json(text: str) -> str:
    """A JSON document, of which no terminal obeys a character: it means the same."""
    return text if text.isprintable() else text.translate(_IN_JSON)
