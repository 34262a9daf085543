"""`[storefront]`: the shop inside Telegram. Its bot is that of `[payments.telegram]`; without its token there is none."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import attrs
from attrs.validators import ge, gt, le, matches_re, max_len

from runtime.config import settings

_ADDRESS = r"(https?://[!-~]+)?"


@settings("storefront")
@attrs.frozen
class StorefrontSettings:
    """What the bot sells and to whom. Times in seconds."""

    enabled: bool = True
    """Whether the bot answers customers. Off, for a front end of one's own, its updates are only read for payments."""
    sales: bool = True
    """Whether anything is sold. Off, customers keep what they have, and are told."""
    trial: bool = True
    """Whether the trial is offered."""
    invite_only: bool = False
    """Whether a person becomes a customer only by the invitation link of one."""
    rules_url: str = attrs.field(default="", validator=matches_re(_ADDRESS))
    """The rules that customers accept before anything else. Empty: none."""
    rules_version: str = attrs.field(default="1", validator=[matches_re(r"[!-~]+"), max_len(40)])
    """Change it when the rules change: customers are asked again."""
    support_url: str = attrs.field(default="", validator=matches_re(_ADDRESS))
    """Where customers get help, such as https://t.me/your_support. Default: `shop.support_url`."""
    texts: Path | None = None
    """A folder with `ru.toml`, `en.toml`, …, whose texts take the place of ours; a further language is one more file."""
    answer_within: float = attrs.field(default=0.7, validator=[gt(0), le(5)])
    """A press is answered after so long at the latest, though its screen is still being made."""
    within: float = attrs.field(default=8.0, validator=[gt(0), le(60)])
    """How long Telegram may take for one call."""
    topups: tuple[int, ...] = (250, 750, 999)
    """The sums in whole roubles that are offered for topping up the balance."""
    concurrency: int = attrs.field(default=16, validator=[ge(1), le(200)])
    """Customers who are served at the same moment; the others' presses are answered and wait."""

    def check_configuration(self) -> Iterable[str]:
        """Refuse sums that nobody can pay."""
        wrong = [amount for amount in self.topups if not 100 <= amount <= 100_000]
        if wrong:
            yield f"storefront.topups has {wrong[0]}: a top-up is from 100 to 100000 roubles"
