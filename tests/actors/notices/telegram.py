"""A server that speaks the part of the Telegram Bot API that notices use, over real sockets.

After https://core.telegram.org/bots/api: "Making requests" (address, JSON body, `ok`, `result`, `error_code`, `description`),
"ResponseParameters" (`retry_after`, `migrate_to_chat_id`) and "sendMessage" (`chat_id`, 1 to 4096 characters of `text`).
The descriptions of refusals are Telegram's own. It shares no code with the client.
"""

from __future__ import annotations

import contextlib
import json
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import attrs
import h11
import trio

TOKEN = "123456789:AAExampleExampleExampleExampleExample"

BLOCKED = (403, "Forbidden: bot was blocked by the user")
DEACTIVATED = (403, "Forbidden: user is deactivated")
NO_CHAT = (400, "Bad Request: chat not found")
NEVER_MET = (403, "Forbidden: bot can't initiate conversation with a user")
TOO_LONG = (400, "Bad Request: message is too long")
BAD_MARKUP = (400, "Bad Request: can't parse entities: unsupported start tag")
BAD_GATEWAY = (502, "Bad Gateway")


@attrs.frozen
class Reply:
    """What a chat answers once, instead of taking the message."""

    status: int
    description: str = ""
    parameters: dict[str, int] = attrs.field(factory=dict)


@attrs.frozen
class Taken:
    """The message is taken and shown to the customer, and then nothing is answered: `cut` ends the connection, else it
    stays open in silence."""

    cut: bool


@attrs.frozen
class Delivered:
    """A message that the customer sees."""

    at: float
    chat: int
    text: str


def too_fast(seconds: int) -> Reply:
    """The refusal of a bot that is too fast."""
    return Reply(429, f"Too Many Requests: retry after {seconds}", {"retry_after": seconds})


@attrs.define(eq=False)
class Telegram:
    """The server, and what a test arranges and sees."""

    url: str = ""
    delivered: list[Delivered] = attrs.field(factory=list)
    requests: int = 0
    connections: int = 0
    """Connections that were ever made."""
    open: int = 0
    """Connections now."""
    token: str = TOKEN
    arranged: defaultdict[int, deque[Reply | Taken]] = attrs.field(factory=lambda: defaultdict(deque))
    """What the next requests for a chat meet, in order."""
    before: Callable[[int], Awaitable[None]] | None = None
    """Awaited with the chat after a message was taken and before it is answered."""
    _changed: trio.Event = attrs.field(factory=trio.Event)

    def arrange(self, chat: int, *replies: Reply | Taken | tuple[int, str]) -> None:
        """Let the next requests for this chat meet these."""
        self.arranged[chat] += [Reply(*reply) if isinstance(reply, tuple) else reply for reply in replies]

    def texts(self, chat: int) -> list[str]:
        """What this customer has read."""
        return [message.text for message in self.delivered if message.chat == chat]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds that changes with requests."""
        with trio.fail_after(15):
            while not condition():
                await self._changed.wait()

    async def until_delivered(self, count: int) -> None:
        """Wait until so many messages have been delivered in all."""
        await self.until(lambda: len(self.delivered) >= count)

    async def until_requests(self, count: int) -> None:
        """Wait until so many requests have come."""
        await self.until(lambda: self.requests >= count)

    def _note(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # ---- HTTP -----------------------------------------------------------------------------------------------------------

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection, kept alive as HTTP/1.1 has it."""
        connection = h11.Connection(h11.SERVER)
        self.connections += 1
        self.open += 1
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            while await self._exchange(connection, stream):
                connection.start_next_cycle()
        self.open -= 1
        self._note()

    async def _exchange(self, connection: h11.Connection, stream: trio.SocketStream) -> bool:
        request: h11.Request | None = None
        body = b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some(1 << 16))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return False
        assert request is not None
        reply = await self._answer(request, body)
        if reply is None:
            return False
        status, fields = reply
        content = json.dumps(fields).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(content)))]
        for part in (
            h11.Response(status_code=status, headers=headers),
            h11.Data(data=content),
            h11.EndOfMessage(),
        ):
            await stream.send_all(connection.send(part) or b"")
        return connection.our_state is h11.DONE

    async def _answer(self, request: h11.Request, body: bytes) -> tuple[int, dict[str, Any]] | None:
        self.requests += 1
        self._note()
        if request.target.decode() != f"/bot{self.token}/sendMessage":
            return _refusal(Reply(401, "Unauthorized"))
        fields = json.loads(body)
        chat, text = fields["chat_id"], fields["text"]
        if (
            request.method != b"POST"
            or not isinstance(chat, int)
            or not 1 <= len(text) <= 4096
            or "parse_mode" in fields
        ):
            return _refusal(Reply(400, "Bad Request: message text is empty"))
        arranged = self.arranged[chat].popleft() if self.arranged[chat] else None
        if isinstance(arranged, Reply):
            return _refusal(arranged)
        self.delivered.append(Delivered(trio.current_time(), chat, text))
        self._note()
        if self.before is not None:
            await self.before(chat)
        if isinstance(arranged, Taken):
            if not arranged.cut:
                await trio.sleep_forever()
            return None
        number = len(self.delivered)
        return 200, {
            "ok": True,
            "result": {"message_id": number, "date": 0, "chat": {"id": chat, "type": "private"}, "text": text},
        }


def _refusal(reply: Reply) -> tuple[int, dict[str, Any]]:
    fields: dict[str, Any] = {"ok": False, "error_code": reply.status, "description": reply.description}
    if reply.parameters:
        fields["parameters"] = reply.parameters
    return reply.status, fields


@contextlib.asynccontextmanager
async def telegram_server() -> AsyncIterator[Telegram]:
    """A server on loopback for as long as the block lasts."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    telegram = Telegram(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}")
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trio.serve_listeners, telegram.serve, listeners))
        yield telegram
        nursery.cancel_scope.cancel()
