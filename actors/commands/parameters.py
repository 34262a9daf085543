"""What operators may say about customers and money. The limits are those of the tables, so that no statement fails on them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from db.billing.payment_facts import PROVIDER as PROVIDER_NAME
from db.settings import LimitSettings
from db.work.limits import Allowance
from runtime.cli import Text, Word, acting_operator, load_config

F = TypeVar("F", bound=Callable[..., Any])

_BIGINT = 2**63 - 1
_ROUBLES = re.compile(r"-?[0-9]{1,12}\.[0-9]{2}")
_WHOLE = re.compile(r"-?[0-9]{1,20}")
_LARGEST = 100_000_000_00
"""Kopecks. More than any single payment here; a slip of the finger is not credited."""


class Amount(click.IntRange):
    """An amount in roubles: whole kopecks, or roubles with a point and two digits, such as 149.00. Given on in kopecks."""

    name = "amount"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        if _ROUBLES.fullmatch(text):
            text = text.replace(".", "")
        elif not _WHOLE.fullmatch(text):
            self.fail(
                f"{text[:40]!r} is no amount: whole kopecks, such as 14900, or roubles, such as 149.00", param, ctx
            )
        return super().convert(int(text), param, ctx)


TELEGRAM_ID = click.IntRange(1, _BIGINT)
NUMBER = click.IntRange(1, _BIGINT)
"""The number of a row: of an order, a case, a withdrawal."""
PAGE_START = click.IntRange(0, _BIGINT)
PAGE_SIZE = click.IntRange(1, 10_000)
KOPECKS = Amount(1, _LARGEST)
SIGNED_KOPECKS = Amount(-_LARGEST, _LARGEST)
DAYS = click.IntRange(1, 3650)
USES = click.IntRange(1, 2**31 - 1)
PERCENT = click.IntRange(0, 100)
PROVIDER = Word(PROVIDER_NAME, "a provider's name: small letters, digits and _, such as manual, at most 32")
LANGUAGE = Word(re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8}){0,4}"), "a language, such as ru, en or pt-BR")
NAME = Text()
"""A name or id that was not made here: a tariff, a charge, a promo code, an idempotency key, a destination."""
REASON = Text(1000)


def beyond_option(command: F) -> F:
    """`--beyond-limits`: do it although a limit of the customer is reached; passed as `beyond`."""
    text = "Do it although the customer has reached the limit of [limits]; the audit trail keeps that."
    return click.option("--beyond-limits", "beyond", is_flag=True, help=text)(command)


def allowance(ctx: click.Context, beyond: bool) -> Allowance:  # the flag as it was given
    """The limits that this command is held to, or that its operator exceeds."""
    return Allowance(load_config(ctx).section(LimitSettings), acting_operator(ctx).actor, may_exceed=beyond)


def shown(path: Path) -> str:
    """A path as it can be printed, whatever bytes its name has."""
    return os.fsencode(path).decode(errors="replace")
