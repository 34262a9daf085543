"""`atlas refund --at-provider`: one command, one refund, whatever the provider answers; bad input moves no money."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from runtime.cli import run_command_line
from tests.actors.payments.payment_fixtures import STRIPE_KEY, STRIPE_SECRET, Harness, harness
from tests.actors.payments.test_payment_watcher import look
from tests.actors.payments.test_refunds_at_providers import charged, made

Refund = Callable[..., Awaitable[Any]]


@pytest.fixture
def refund(
    database_dsn: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[Harness], Refund]:
    """`await refund(here)("--charge", "pi_1", fails=65)` runs the command beside a system whose Stripe is on."""

    def at(here: Harness) -> Refund:
        for name, value in {
            "DATABASE__DSN": database_dsn,
            "PAYMENTS__STRIPE__SECRET_KEY": STRIPE_KEY,
            "PAYMENTS__STRIPE__WEBHOOK_SECRET": STRIPE_SECRET,
            "PAYMENTS__STRIPE__SUCCESS_URL": "https://shop.example/thanks",
            "PAYMENTS__STRIPE__URL": here.outside.settings.stripe.url,
            "PAYMENTS__CRYPTOBOT__TOKEN": "12345:simulated",
        }.items():
            monkeypatch.setenv(f"ATLAS__{name}", value)

        async def call(*words: str, provider: str = "stripe", fails: int = 0) -> Any:
            line = ["refund", "--provider", provider, "--at-provider", *words, *([] if fails else ["--json"])]
            code = await trio.to_thread.run_sync(run_command_line, line)
            printed = capsys.readouterr()
            assert code == fails, printed.err + printed.out
            return printed.err if fails else json.loads(printed.out)

        return call

    return at


async def test_the_command_gives_back_once_and_says_the_same_again(
    database_dsn: str, refund: Callable[[Harness], Refund]
) -> None:
    async with harness(database_dsn) as here:
        charge, command = await charged(here, "stripe"), refund(here)
        for _ in range(2):
            done = await command("--charge", charge)
            assert (done["state"], done["amount"], done["sent_back"], done["asset"]) == ("done", 14900, 161, "USD")
        assert made(here, "stripe") == 1
        assert await here.value("SELECT count(*) FROM refunds") == 1


async def test_an_unknown_outcome_is_75_and_is_known_later(
    database_dsn: str, refund: Callable[[Harness], Refund]
) -> None:
    async with harness(database_dsn) as here:
        charge, command = await charged(here, "stripe"), refund(here)
        here.outside.stripe.troubles.after.extend([500] * 3)
        assert "whether the money went back is not known" in await command("--charge", charge, fails=75)
        assert await here.value("SELECT count(*) FROM refunds") == 0
        await here.move_clock(seconds=31)
        await look(here, await here.watcher())
        assert (await command("--charge", charge))["state"] == "done"
        assert made(here, "stripe") == 1


async def test_bad_input_moves_no_money_and_leaves_no_row(
    database_dsn: str, refund: Callable[[Harness], Refund]
) -> None:
    async with harness(database_dsn) as here:
        charge, command = await charged(here, "stripe"), refund(here)
        assert "there is no stripe charge" in await command("--charge", "pi_nobody", fails=65)
        assert "nothing was asked" in await command("--charge", charge, "--amount", "14901", fails=65)
        assert "on are cryptobot, stripe" in await command("--charge", charge, provider="nobody", fails=65)
        assert "no way to give money back" in await command("--charge", charge, provider="cryptobot", fails=65)
        here.outside.stripe.refund_status = "failed"
        assert "does not give 1.61 USD" in await command("--charge", charge, fails=65)
        assert await here.value("SELECT count(*) FROM provider_refunds WHERE state <> 'refused'") == 0
        assert await here.value("SELECT count(*) FROM refunds") == 0
