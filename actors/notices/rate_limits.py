"""How fast messages may leave: token buckets for the bot and for each chat, and nothing while Telegram says to wait."""

from __future__ import annotations

import attrs

_PRUNE_ABOVE = 10_000


@attrs.define
class TokenBucket:
    """A token bucket: at most `burst` at once and `rate` a second in the long run. Reservations are kept in order."""

    rate: float
    burst: int = 1
    _next: float = attrs.field(init=False, default=float("-inf"))

    def reserve(self, now: float) -> float:
        """Take a token and return the moment, now or later, from which it may be used."""
        room = (self.burst - 1) / self.rate
        at = max(now, self._next - room)
        self._next = max(self._next, at) + 1 / self.rate
        return at

    def peek(self, now: float) -> float:
        """The moment that `reserve` would return."""
        return max(now, self._next - (self.burst - 1) / self.rate)


@attrs.define
class RateLimits:
    """The buckets of the bot and of its chats, and what Telegram has closed. Times are the loop's, in seconds.

    Telegram does not say whether a 429 is meant for the chat or for the bot. So it closes its chat for as long as it says;
    when a second chat is refused while the first is still closed, it is the bot that is too fast, and everything is closed
    for as long.
    """

    rate: float
    chat_rate: float
    group_rate: float = float("inf")
    """For groups, whose ids are negative, if it is less than `chat_rate`."""
    _all: TokenBucket = attrs.field(init=False)
    _chats: dict[int, TokenBucket] = attrs.field(init=False, factory=dict)
    _closed_chats: dict[int, float] = attrs.field(init=False, factory=dict)
    _closed: float = attrs.field(init=False, default=float("-inf"))

    def __attrs_post_init__(self) -> None:
        self._all = TokenBucket(self.rate)

    def rate_of(self, chat: int) -> float:
        """Messages a second that this chat may have in the long run."""
        return min(self.chat_rate, self.group_rate) if chat < 0 else self.chat_rate

    def next_allowed_at(self, chat: int, now: float) -> float:
        """When this chat may have its next message, whatever the others do: now or later."""
        bucket = self._chats.get(chat)
        own = now if bucket is None else bucket.peek(now)
        return max(own, self.closed_until(chat, now))

    def closed_until(self, chat: int, now: float) -> float:
        """Until when Telegram has closed this chat or everything; now if it has not."""
        return max(now, self._closed, self._closed_chats.get(chat, now))

    def reserve(self, chat: int, now: float) -> float:
        """Take a token for a chat that is open and return the moment at which it may be used: now or later."""
        if len(self._chats) > _PRUNE_ABOVE:
            self._prune(now)
        at = self._all.reserve(now)
        self._chats.setdefault(chat, TokenBucket(self.rate_of(chat))).reserve(at)
        return at

    def on_too_many_requests(self, chat: int, now: float, seconds: float) -> bool:
        """Close a chat for `seconds`, because Telegram answered 429. Returns whether everything is closed now."""
        others = any(until > now for known, until in self._closed_chats.items() if known != chat)
        self._closed_chats[chat] = max(now + seconds, self._closed_chats.get(chat, now))
        if others:
            self._closed = max(now + seconds, self._closed)
        return self._closed > now

    def closed_for(self, now: float) -> float:
        """Seconds until anything may leave; 0 if something may."""
        return max(0.0, self._closed - now)

    def _prune(self, now: float) -> None:
        self._chats = {chat: bucket for chat, bucket in self._chats.items() if bucket.peek(now) > now}
        self._closed_chats = {chat: until for chat, until in self._closed_chats.items() if until > now}
