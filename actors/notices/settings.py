"""The table `[telegram]` of the configuration file: the bot that notices are sent by."""

from __future__ import annotations

from typing import Literal

import attrs
from attrs.validators import ge, gt, matches_re

from runtime.config import Secret, settings


@settings("telegram")
@attrs.frozen
class TelegramNoticeSettings:
    """Which bot sends notices, and how fast. Times in seconds. Payments by Telegram have settings of their own."""

    token: Secret = attrs.field(factory=Secret)
    """The bot's token, as BotFather gives it (`token_file = "…"`). Without one, notices wait in the outbox."""

    url: str = attrs.field(default="https://api.telegram.org", validator=matches_re(r"https?://[^\s?#]+"))
    """The Bot API, or a Bot API server of your own."""

    operator_chat_id: int = 0
    """The chat that the operator's notices go to: a person's id, or a group's (negative). 0: they wait in the outbox."""

    operator_language: Literal["ru", "en"] = "ru"
    """The language of the operator's notices."""

    rate: float = attrs.field(default=30.0, validator=gt(0))
    """Messages a second to all chats together. Telegram's limit is about 30."""

    chat_rate: float = attrs.field(default=1.0, validator=gt(0))
    """Messages a second to one chat. Telegram's limit is about 1."""

    group_rate: float = attrs.field(default=1 / 3, validator=gt(0))
    """Messages a second to one group, if it is less than `chat_rate`. Telegram's limit is 20 a minute."""

    within: float = attrs.field(default=10.0, validator=gt(0))
    """How long Telegram may take to answer. Later than that, it is unknown whether the message was delivered."""

    longest_wait: float = attrs.field(default=900.0, validator=ge(1))
    """The longest pause between two attempts of one message, when Telegram fails or does not answer."""
