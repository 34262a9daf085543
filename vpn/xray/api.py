"""Xray's run-time interface as calls with answers: users, block rules, counters.

Its messages are protocol buffers, written by hand: the few that are used here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final
from uuid import UUID

import attrs

from vpn.errors import XrayCallFailed
from vpn.xray.grpc import GrpcChannel

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Malformed(ValueError):
    """Bytes that are not a protocol buffer of the expected shape."""


def _varint(value: int) -> bytes:
    if not 0 <= value < 1 << 64:
        raise ValueError(f"{value} is negative or has more than 64 bits")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, value: int | str | bytes) -> bytes:
    """One field. Zero, false and empty values are left out, as proto3 does."""
    if isinstance(value, int):
        return _varint(number << 3 | _VARINT) + _varint(value) if value else b""
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | _BYTES) + _varint(len(data)) + data if data else b""


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise Malformed("a number runs over the end of the message")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 64:
                raise Malformed("a number has more than 64 bits")
            return value, at
        shift += 7


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message in order. Raises Malformed."""
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _read_varint(data, at)
            yield number, value
            continue
        if kind == _BYTES:
            size, at = _read_varint(data, at)
        elif kind == _FIXED64:
            size = 8
        elif kind == _FIXED32:
            size = 4
        else:
            raise Malformed(f"unknown wire type {kind}")
        if at + size > len(data):
            raise Malformed("a field runs over the end of the message")
        yield number, data[at : at + size]
        at += size


def _text(value: int | bytes) -> str:
    if isinstance(value, int):
        raise Malformed("a number where a text belongs")
    return value.decode()


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise Malformed("a number where a message belongs")
    return value


def _number(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise Malformed("bytes where a number belongs")
    return value - (1 << 64) if value >> 63 else value


def typed(name: str, message: bytes) -> bytes:
    """A message with its type's name, as Xray nests them."""
    return field(1, name) + field(2, message)


@attrs.frozen
class XrayUser:
    """A user in Xray; `uuid` is None in the blank user with which it answers for a name it does not know, and in one with
    another account than VLESS's."""

    email: str
    uuid: UUID | None
    flow: str = ""


_VLESS_ACCOUNT: Final = "xray.proxy.vless.Account"


def _vless_account(user: XrayUser) -> bytes:
    return typed(_VLESS_ACCOUNT, field(1, str(user.uuid)) + field(2, user.flow))


ACCOUNTS: Final[Mapping[str, Callable[[XrayUser], bytes]]] = {"vless": _vless_account}
"""How a user's account is written, by the protocol of the inbound and by nothing else: one of another type ends Xray."""


def add_user(tag: str, user: XrayUser, protocol: str = "vless") -> bytes:
    """AlterInboundRequest with an AddUserOperation, its account being of the inbound's protocol. Raises ValueError for a
    protocol that has none here, and for a user without name or UUID: Xray would take it, and then neither list nor remove it."""
    if not user.email or user.uuid is None:
        raise ValueError("a user needs a name and a UUID")
    if protocol not in ACCOUNTS:
        raise ValueError(f"there are no accounts for inbound {tag}, whose protocol is {protocol}")
    account = ACCOUNTS[protocol](user)
    operation = field(1, field(2, user.email) + field(3, account))
    return field(1, tag) + field(2, typed("xray.app.proxyman.command.AddUserOperation", operation))


def remove_user(tag: str, email: str) -> bytes:
    """AlterInboundRequest with a RemoveUserOperation. Raises ValueError for an empty name."""
    if not email:
        raise ValueError("a user needs a name")
    return field(1, tag) + field(2, typed("xray.app.proxyman.command.RemoveUserOperation", field(1, email)))


def get_users(tag: str, email: str = "") -> bytes:
    """GetInboundUserRequest; without a name, for all of them."""
    return field(1, tag) + field(2, email)


def users_of(data: bytes) -> list[XrayUser]:
    """The users in an answer to `get_users`. Raises Malformed or ValueError."""
    return [_user(_bytes(value)) for number, value in fields(data) if number == 1]


def _user(data: bytes) -> XrayUser:
    email, uuid, flow = "", None, ""
    for number, value in fields(data):
        if number == 2:
            email = _text(value)
        elif number == 3:
            account = dict(fields(_bytes(value)))
            if _text(account.get(1, b"")) != _VLESS_ACCOUNT:
                continue  # its fields mean something else
            for item, content in fields(_bytes(account.get(2, b""))):
                if item == 1:
                    uuid = UUID(_text(content))
                elif item == 2:
                    flow = _text(content)
    return XrayUser(email, uuid, flow)


def query_stats(pattern: str) -> bytes:
    """QueryStatsRequest, never resetting: a reset loses traffic when the reader dies before writing it down."""
    return field(1, pattern)


def stats_of(data: bytes) -> dict[str, int]:
    """The counters in an answer to `query_stats`, by name."""
    found: dict[str, int] = {}
    for number, value in fields(data):
        if number == 1:
            name, count = "", 0
            for inner, part in fields(_bytes(value)):
                if inner == 1:
                    name = _text(part)
                elif inner == 2:
                    count = _number(part)
            found[name] = count
    return found


def add_block_rule(rule: str, email: str, outbound: str) -> bytes:
    """AddRuleRequest: everything of this user goes to `outbound`. Appended, so that rules already there stay."""
    if not email:
        raise ValueError("a rule without a name would match everybody")
    routing_rule = field(1, outbound) + field(7, email) + field(19, rule)
    return field(1, typed("xray.app.router.Config", field(2, routing_rule))) + field(2, 1)


def remove_rule(rule: str) -> bytes:
    """RemoveRuleRequest for the rule of this name."""
    return field(1, rule)


_HANDLER: Final = "/xray.app.proxyman.command.HandlerService/"
_STATS: Final = "/xray.app.stats.command.StatsService/"
_ROUTING: Final = "/xray.app.router.command.RoutingService/"

BLOCKED: Final = "blocked"
"Tag of the outbound that swallows everything; every configuration built here has it."


@attrs.frozen
class Traffic:
    """Bytes of one user since Xray started."""

    uplink: int = 0
    downlink: int = 0


@attrs.frozen
class XrayApi:
    """Calls to one Xray process. `email` is a user's name there: the key id.

    All methods raise XrayCallFailed. Xray gives reasons by text only (code 2), so the text decides.
    """

    channel: GrpcChannel
    protocol: str = "vless"
    """The protocol of the inbounds whose users are added: it alone decides what an account looks like."""

    async def add_user(self, tag: str, user: XrayUser) -> bool:
        """Add a user. False if one of that name is there already, with this UUID or another: read it back."""
        try:
            await self.channel.call(_HANDLER + "AlterInbound", add_user(tag, user, self.protocol))
        except XrayCallFailed as error:
            if "already exists" in str(error):
                return False
            raise
        return True

    async def add_users(self, tag: str, users: Sequence[XrayUser]) -> list[bool]:
        """Add many users at once, at most a few hundred. Which of them were added: the others are there already, or Xray
        refused them."""
        changes = [add_user(tag, user, self.protocol) for user in users]
        answers = await self.channel.call_many(_HANDLER + "AlterInbound", changes)
        return [not isinstance(answer, XrayCallFailed) for answer in answers]

    async def remove_user(self, tag: str, email: str) -> bool:
        """Remove a user. False if there was none of that name."""
        try:
            await self.channel.call(_HANDLER + "AlterInbound", remove_user(tag, email))
        except XrayCallFailed as error:
            if "not found" in str(error) and "handler not found" not in str(error):
                return False
            raise
        return True

    async def get_user(self, tag: str, email: str) -> XrayUser | None:
        """One user as Xray has it, or None. Raises ValueError for an empty name, which would list all of them."""
        if not email:
            raise ValueError("a user needs a name")
        found = self._users(await self.channel.call(_HANDLER + "GetInboundUsers", get_users(tag, email)))
        return next((user for user in found if user.email.lower() == email.lower() and user.uuid is not None), None)

    async def list_users(self, tag: str) -> list[XrayUser]:
        """All users of an inbound that can be listed, in no order. A user without a name never appears."""
        return self._users(await self.channel.call(_HANDLER + "GetInboundUsers", get_users(tag)))

    async def block(self, email: str) -> None:
        """Send everything of this user to nowhere, inside connections already open too. Repeating it is harmless."""
        try:
            await self.channel.call(_ROUTING + "AddRule", add_block_rule(_rule(email), email, BLOCKED))
        except XrayCallFailed as error:
            if "duplicate ruleTag" not in str(error):
                raise

    async def unblock(self, email: str) -> None:
        """Undo `block`. Harmless if there was no rule."""
        await self.channel.call(_ROUTING + "RemoveRule", remove_rule(_rule(email)))

    async def traffic(self, email: str = "") -> dict[str, Traffic]:
        """Counters by user name; without a name, of all users that had traffic since this Xray started."""
        answer = await self.channel.call(
            _STATS + "QueryStats", query_stats(f"user>>>{email}>>>" if email else "user>>>")
        )
        try:
            counters = stats_of(answer)
        except ValueError as error:
            raise XrayCallFailed(f"QueryStats: {error}") from error
        found: dict[str, Traffic] = {}
        for name, value in counters.items():
            parts = name.split(">>>")
            if len(parts) == 4 and parts[0] == "user" and parts[2] == "traffic" and parts[3] in ("uplink", "downlink"):
                found[parts[1]] = attrs.evolve(found.get(parts[1], Traffic()), **{parts[3]: value})
        return found

    def _users(self, answer: bytes) -> list[XrayUser]:
        try:
            return users_of(answer)
        except ValueError as error:
            raise XrayCallFailed(f"GetInboundUsers: {error}") from error


def _rule(email: str) -> str:
    return f"removed:{email}"
