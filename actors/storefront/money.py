"""The balance: topping it up, and what friends bring."""

from __future__ import annotations

import attrs

from actors.storefront.screen import Button, Screen
from actors.storefront.screens import Visit, screen, show
from actors.storefront.shop import pay_page, provider_name, why_not
from actors.telegram.html import Html, code, joined
from db.billing.ledger import purses
from db.billing.orders import LARGEST_TOPUP, SMALLEST_TOPUP, Order, find_order_by_key, open_topup
from db.billing.referrals import ReferralStanding, Withdrawable, referral_standing, withdrawable
from db.errors import BusinessError, LeaseError
from db.money import Money, NotMoney
from db.tx import Tx
from db.work.front_ends import Prompt, set_prompt
from db.work.limits import LimitReached

_KOPECKS = 100
_LONGEST_SUM = 12


@screen("tu")
async def topup(visit: Visit) -> Screen:
    """The sums that are offered, and one of the customer's own."""
    if not visit.around.providers or not visit.around.settings.sales:
        return Screen(visit.say("no_ways"), ((visit.button("menu", "mn"),),))
    held = await visit.run("balance", purses, visit.customer.id)
    sums = [
        visit.button("sum", "ta", amount, sum=visit.texts.money(Money(amount * _KOPECKS)))
        for amount in visit.around.settings.topups
    ]
    return Screen(
        visit.say("topup", balance=visit.texts.money(held.balance)),
        (tuple(sums), (visit.button("sum_other", "tc"),), (visit.button("menu", "mn"),)),
    )


@screen("tc")
async def ask_sum(visit: Visit) -> Screen:
    """Ask for a sum."""
    await visit.run("prompt", set_prompt, visit.customer.id, Prompt("ti"))
    return Screen(
        visit.say("topup_ask", least=visit.texts.money(SMALLEST_TOPUP), most=visit.texts.money(LARGEST_TOPUP)),
        ((visit.button("back", "tu"),),),
    )


@screen("ti")
async def take_sum(visit: Visit) -> Screen:
    """Take the sum that was written."""
    if visit.input is None:
        return await show(visit.to("tc", notice="write_text"))
    amount = read_sum(visit.input)
    if amount is None:
        return await show(visit.to("tc", notice="no_sum"))
    return await show(visit.to("ta", amount.amount // _KOPECKS))


def read_sum(text: str) -> Money | None:
    """A sum in whole roubles as people write it, `1 000` and `250 ₽` too; None for what is no sum that can be paid in."""
    written = "".join(text.split()).removesuffix("₽").removesuffix("руб.").removesuffix("руб").replace(",", ".")
    if not 0 < len(written) <= _LONGEST_SUM or not written.replace(".", "").isdecimal() or not written.isascii():
        return None
    try:
        amount = Money.parse(written)
    except NotMoney:
        return None
    if amount.amount % _KOPECKS or not SMALLEST_TOPUP <= amount <= LARGEST_TOPUP:
        return None
    return amount


@screen("ta")
async def choose_provider(visit: Visit) -> Screen:
    """How to pay the sum in."""
    roubles = visit.press.number(0)
    if roubles is None or not SMALLEST_TOPUP.amount <= roubles * _KOPECKS <= LARGEST_TOPUP.amount:
        return await show(visit.to("tu"))
    rows: list[tuple[Button, ...]] = [
        (visit.button("pay_with", "to", name, roubles, acts=True, provider=provider_name(visit, provider)),)
        for name, provider in visit.around.providers.items()
    ]
    text = visit.say("topup_how", price=visit.texts.money(Money(roubles * _KOPECKS)))
    return Screen(text, (*rows, (visit.button("back", "tu"),)))


@screen("to")
async def order_topup(visit: Visit) -> Screen:
    """Open an order that fills the balance, and a pay page for it."""
    provider, roubles = visit.around.providers.get(visit.press.text(0)), visit.press.number(1)
    if provider is None or roubles is None or not visit.key or not visit.around.settings.sales:
        return await show(visit.to("tu"))
    amount = Money(min(roubles, 10**9) * _KOPECKS)

    async def place(tx: Tx) -> Order:
        first = await find_order_by_key(tx, visit.customer.id, visit.key)
        if first is not None:
            return first
        return await open_topup(
            tx,
            visit.telegram_id,
            amount,
            idempotency_key=visit.key,
            quote=await provider.quote_now(tx, amount),
            allowance=visit.allowance,
        )

    try:
        order = await visit.act("topup", place)
    except (LimitReached, LeaseError):
        raise
    except BusinessError as error:
        return await show(visit.to("tu", notice=why_not(error)))
    return await pay_page(visit, provider, order)


# -- friends ----------------------------------------------------------------------------------------------------------


@attrs.frozen
class Friends:
    """What a customer's invitations have brought."""

    standing: ReferralStanding
    withdrawable: Withdrawable


@screen("rf")
async def referral(visit: Visit) -> Screen:
    """The invitation link, the friends who pay, what they brought and when it can be taken out."""

    async def look(tx: Tx) -> Friends:
        return Friends(await referral_standing(tx, visit.customer.id), await withdrawable(tx, visit.customer.id))

    found = await visit.run("referral", look)
    texts = visit.texts
    lines: list[Html | str] = [
        visit.say("referral", percent=texts.language.percent(found.standing.percent)),
        texts.say(
            "referral_earned",
            friends=texts.language.count("friends", found.standing.friends),
            earned=texts.money(found.standing.earned),
            free=texts.money(found.withdrawable.amount),
        ),
    ]
    if found.withdrawable.unmatured and found.withdrawable.next_at is not None:
        lines.append(
            texts.say(
                "referral_held",
                held=texts.money(found.withdrawable.unmatured),
                at=texts.language.moment(found.withdrawable.next_at),
            )
        )
    name, rows = visit.around.bot_name(), []
    if name:
        link = f"https://t.me/{name}?start=ref{visit.telegram_id}"
        lines += ["", texts.say("referral_link", link=code(link))]
        rows.append((Button(texts.button("copy_link"), copy=link),))
    return Screen(joined(lines), (*rows, (visit.button("menu", "mn"),)))
