"""Plans, prices, promo codes, and paying: from the balance or by a provider's pay page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import attrs

from actors.announcements import PurchaseFinal
from actors.payments.invoicing import open_invoice_for
from actors.payments.provider import Provider, ProviderRefused, ProviderUnavailable
from actors.storefront.access import access_rows, access_text, read_facts
from actors.storefront.screen import Button, Screen, Waits
from actors.storefront.screens import BOT, Visit, screen, show
from actors.telegram.html import Html, joined
from db.access.entitlements import preview_grant
from db.billing.balance_purchases import BalancePurchase, finalize_balance_purchase
from db.billing.ledger import purses
from db.billing.orders import Order, cancel_order, find_order, find_order_by_key, open_order
from db.billing.pricing import Plan, Priced, price_list, quote_plan
from db.billing.promos import usable_promo
from db.errors import (
    BusinessError,
    InsufficientFunds,
    LeaseError,
    PriceChanged,
    UnknownOrder,
    UnknownPeriod,
    UnknownTariff,
)
from db.money import Money
from db.tx import Tx
from db.work.front_ends import Prompt, drop_promo, keep_promo, set_prompt
from db.work.limits import LimitReached


@attrs.frozen
class Offer:
    """A plan as it is offered to a customer now."""

    priced: Priced
    balance: Money
    end: datetime | None
    new_end: datetime


async def best_price(tx: Tx, visit: Visit, tariff: str, days: int) -> Priced:
    """What a plan costs the customer, with the code that was entered if it can still be used."""
    code = visit.visitor.promo_code
    if code is not None:
        try:
            return await quote_plan(tx, visit.telegram_id, tariff, days, promo_code=code)
        except (UnknownTariff, UnknownPeriod):
            raise
        except BusinessError:
            await drop_promo(tx, visit.customer.id)
    return await quote_plan(tx, visit.telegram_id, tariff, days)


@screen("pl")
async def plans(visit: Visit) -> Screen:
    """All plans with their prices, the customer's best discount taken off."""
    if not visit.around.settings.sales:
        return Screen(visit.say("sales_closed"), ((visit.button("menu", "mn"),),))

    async def look(tx: Tx) -> Sequence[tuple[Plan, Priced]]:
        return [(plan, await best_price(tx, visit, plan.tariff, plan.days)) for plan in await price_list(tx)]

    rows: list[tuple[Button, ...]] = []
    best = 0
    for plan, priced in await visit.run("plans", look):
        tariff, days = visit.texts.tariff(plan.tariff), visit.texts.days(plan.days)
        price, goes_to = visit.texts.money(priced.price), ("cf", plan.tariff, plan.days)
        if priced.discount is None:
            rows.append((visit.button("plan", *goes_to, tariff=tariff, days=days, price=price),))
            continue
        best = max(best, priced.discount.percent)
        percent = str(priced.discount.percent)
        rows.append((visit.button("plan_cheaper", *goes_to, tariff=tariff, days=days, price=price, percent=percent),))
    text = visit.say("plans") if not best else visit.say("plans_cheaper", percent=str(best))
    rows += [(visit.button("promo", "pr"), visit.button("menu", "mn"))]
    return Screen(text, tuple(rows))


@screen("cf")
async def confirm(visit: Visit) -> Screen:
    """A plan with its price, what it does to the end of the access, and the ways to pay."""
    tariff, days = visit.press.text(0), visit.press.number(1)
    if days is None or not visit.around.settings.sales:
        return await show(visit.to("pl"))

    async def look(tx: Tx) -> Offer:
        priced = await best_price(tx, visit, tariff, days)
        held = await purses(tx, visit.customer.id)
        ends = await preview_grant(tx, visit.customer.id, tariff, timedelta(days=days))
        return Offer(priced, held.balance, *ends)

    try:
        offer = await visit.run("offer", look)
    except (UnknownTariff, UnknownPeriod):
        return await show(visit.to("pl", notice="not_sold"))
    return Screen(_offer_text(visit, offer), _ways_to_pay(visit, offer))


def _offer_text(visit: Visit, offer: Offer) -> Html:
    texts, priced = visit.texts, offer.priced
    lines: list[Html | str] = [
        visit.say("offer", tariff=texts.tariff(priced.tariff), days=texts.days(priced.days or 0)),
    ]
    if priced.discount is None:
        lines.append(texts.say("offer_price", price=texts.money(priced.price)))
    else:
        lines.append(
            texts.say(
                f"offer_{priced.discount.source}",
                price=texts.money(priced.price),
                before=texts.money(priced.list_price),
                percent=str(priced.discount.percent),
            )
        )
    if priced.unused_promo_id is not None:
        lines.append(texts.say("promo_not_better"))
    if offer.end is None:
        lines.append(texts.say("offer_end", end=texts.language.moment(offer.new_end)))
    else:
        lines.append(
            texts.say("offer_ends", end=texts.language.moment(offer.end), new_end=texts.language.moment(offer.new_end))
        )
    lines.append(texts.say("offer_balance", balance=texts.money(offer.balance)))
    return joined(lines)


def _ways_to_pay(visit: Visit, offer: Offer) -> tuple[tuple[Button, ...], ...]:
    priced = offer.priced
    plan = (priced.tariff or "", priced.days or 0, priced.price.amount)
    rows: list[tuple[Button, ...]] = []
    if offer.balance >= priced.price:
        rows.append((visit.button("pay_balance", "bp", *plan, acts=True),))
    rows += [
        (visit.button("pay_with", "po", name, *plan, acts=True, provider=provider_name(visit, provider)),)
        for name, provider in visit.around.providers.items()
    ]
    rows.append((visit.button("promo", "pr", *plan[:2]), visit.button("back", "pl")))
    return tuple(rows)


def provider_name(visit: Visit, provider: Provider) -> str:
    """What a provider is called among customers."""
    kind = "telegram_card" if provider.name == "telegram" and "XTR" not in provider.assets else provider.name
    return visit.texts.language.word(kind)


@screen("bp")
async def buy_from_balance(visit: Visit) -> Screen:
    """Buy a plan from the balance, once, at the price that the button said."""
    tariff, days, price = visit.press.text(0), visit.press.number(1), visit.press.number(2)
    if days is None or price is None or not visit.key or not visit.around.settings.sales:
        return await show(visit.to("cf", *visit.press.args[:2]))

    async def buy(tx: Tx) -> BalancePurchase | Order:
        first = await find_order_by_key(tx, visit.customer.id, f"balance:{visit.key}")
        if first is not None:
            return first
        bought = await finalize_balance_purchase(
            tx,
            visit.telegram_id,
            tariff,
            days,
            seen_price=Money(price),
            idempotency_key=visit.key,
            promo_code=visit.visitor.promo_code,
            actor=BOT.actor,
        )
        await drop_promo(tx, visit.customer.id)
        return bought

    try:
        bought = await visit.act("buy", buy)
    except (LimitReached, LeaseError):
        raise
    except BusinessError as error:
        return await show(visit.to("cf", tariff, days, notice=why_not(error)))
    if isinstance(bought, BalancePurchase):
        if not bought.replayed:
            visit.around.publish(PurchaseFinal("balance", "entitlement", None, bought.order_id))
        return await show(visit.to("or", bought.order_id))
    return await show(visit.to("or", bought.id))


def why_not(error: BusinessError) -> str:
    """The text that says why something was not sold: nothing was taken."""
    if isinstance(error, PriceChanged):
        return "price_changed"
    if isinstance(error, InsufficientFunds):
        return "lacks_funds"
    return "not_sold" if isinstance(error, UnknownTariff | UnknownPeriod) else "not_bought"


@screen("po")
async def order_plan(visit: Visit) -> Screen:
    """Open an order for a plan at the price that the button said, and a pay page for it."""
    provider = visit.around.providers.get(visit.press.text(0))
    tariff, days, price = visit.press.text(1), visit.press.number(2), visit.press.number(3)
    if provider is None or days is None or price is None or not visit.key or not visit.around.settings.sales:
        return await show(visit.to("cf", *visit.press.args[1:3]))

    async def place(tx: Tx) -> Order:
        first = await find_order_by_key(tx, visit.customer.id, visit.key)
        if first is not None:
            return first
        code = visit.visitor.promo_code
        priced = await quote_plan(tx, visit.telegram_id, tariff, days, promo_code=code)
        if priced.price != Money(price):
            raise PriceChanged(f"{tariff} for {days} d", Money(price), priced.price)
        quote = await provider.quote_now(tx, priced.price)
        order = await open_order(
            tx,
            visit.telegram_id,
            tariff,
            days,
            idempotency_key=visit.key,
            promo_code=code,
            quote=quote,
            allowance=visit.allowance,
        )
        await drop_promo(tx, visit.customer.id)
        return order

    try:
        order = await visit.act("order", place)
    except (LimitReached, LeaseError):
        raise
    except BusinessError as error:
        return await show(visit.to("cf", tariff, days, notice=why_not(error)))
    return await pay_page(visit, provider, order)


async def pay_page(visit: Visit, provider: Provider, order: Order) -> Screen:
    """The provider's page for an order, or the order as it stands if it cannot be paid any more."""
    if order.state != "pending":
        return await show(visit.to("or", order.id))
    try:
        invoice = await open_invoice_for(visit.around.pool(), provider, order.id, allowance=visit.allowance)
    except (ProviderUnavailable, ProviderRefused):
        return Screen(
            visit.say("provider_away", provider=provider_name(visit, provider)),
            (
                (visit.button("again", "or", order.id, provider.name),),
                (visit.button("other_way", "pl"), visit.button("menu", "mn")),
            ),
        )
    left = invoice.order_ends_at - await visit.run("now", _now)
    texts = visit.texts
    text = texts.say(
        "pay_topup" if order.kind == "topup" else "pay_plan",
        what=_what(visit, order),
        price=texts.money(order.price),
        charged=texts.money(order.quote.amount),
        provider=provider_name(visit, provider),
        left=texts.language.left(max(left, timedelta(0))),
        until=texts.language.moment(invoice.order_ends_at),
    )
    return Screen(
        text,
        (
            (visit.link("pay", invoice.pay_url or ""),),
            (visit.button("check", "or", order.id, provider.name), visit.button("cancel_order", "oc", order.id)),
            (visit.button("menu", "mn"),),
        ),
        Waits(order.id, "payment"),
    )


async def _now(tx: Tx) -> datetime:
    found: datetime = await tx.fetchval("SELECT atlas_now()")
    return found


def _what(visit: Visit, order: Order) -> str:
    if order.kind == "topup":
        return visit.texts.money(order.price)
    return f"{visit.texts.tariff(order.tariff)}, {visit.texts.days(order.days or 0)}"


async def own_order(tx: Tx, visit: Visit, order_id: int) -> Order:
    """An order of this customer. Raises UnknownOrder for another's, as for none."""
    order = await find_order(tx, order_id)
    if order.customer_id != visit.customer.id:
        raise UnknownOrder(order_id)
    return order


@screen("or")
async def order_screen(visit: Visit) -> Screen:
    """An order as it stands: to be paid, paid, over."""
    number = visit.press.number(0)
    if number is None:
        return await show(visit.to("mn"))
    try:
        order = await visit.run("order_state", own_order, visit, number)
    except UnknownOrder:
        return await show(visit.to("mn", notice="too_old"))
    menu = (visit.button("menu", "mn"),)
    if order.state == "pending":
        provider = visit.around.providers.get(visit.press.text(1))
        if provider is not None:
            return await pay_page(visit, provider, order)
        return Screen(
            visit.say("order_open", what=_what(visit, order), until=visit.texts.language.moment(order.expires_at)),
            ((visit.button("cancel_order", "oc", order.id),), menu),
            Waits(order.id, "payment"),
        )
    if order.state != "paid":
        again = visit.button("plans", "pl") if order.kind == "subscription" else visit.button("topup", "tu")
        return Screen(visit.say("order_over", what=_what(visit, order)), ((again,), menu))
    if order.kind == "topup":
        held = await visit.run("balance", purses, visit.customer.id)
        return Screen(
            visit.say("topped_up", price=visit.texts.money(order.price), balance=visit.texts.money(held.balance)),
            ((visit.button("plans", "pl"),), menu),
        )
    facts = await visit.run("access", read_facts, visit.telegram_id)
    if facts.link and facts.state == "active":
        return Screen(
            visit.say("paid_active", what=_what(visit, order)) + "\n\n" + access_text(visit, facts),
            access_rows(visit, facts),
        )
    return Screen(
        visit.say("paid_activating", what=_what(visit, order)),
        ((visit.button("check", "or", order.id),), menu),
        Waits(order.id, "key"),
    )


@screen("oc")
async def give_up_order(visit: Visit) -> Screen:
    """Cancel an order that is not paid. A payment that still comes is credited."""
    number = visit.press.number(0)
    if number is None:
        return await show(visit.to("mn"))

    async def cancel(tx: Tx) -> None:
        order = await own_order(tx, visit, number)
        if order.state == "pending":
            await cancel_order(tx, order.id, actor=BOT.actor)

    try:
        await visit.act("cancel", cancel)
    except UnknownOrder:
        return await show(visit.to("mn", notice="too_old"))
    return await show(visit.to("or", number))


# -- promo codes ------------------------------------------------------------------------------------------------------


@screen("pr")
async def ask_promo(visit: Visit) -> Screen:
    """Ask for a promo code; the answer leads back to the plan that it was asked for."""
    await visit.run("prompt", set_prompt, visit.customer.id, Prompt("pe", ("", *visit.press.args[:2])))
    rows: list[tuple[Button, ...]] = []
    if visit.visitor.promo_code is not None:
        rows.append((visit.button("promo_drop", "px"),))
    back = ("cf", *visit.press.args[:2]) if len(visit.press.args) >= 2 else ("pl",)
    rows.append((visit.button("back", *back),))
    return Screen(visit.say("promo_ask"), tuple(rows))


@screen("pe")
async def enter_promo(visit: Visit) -> Screen:
    """Take a promo code, written or from a link, if the customer can use it."""
    code = (visit.input or visit.press.text(0)).strip()
    back = visit.press.args[1:3]
    if not code:
        return await show(visit.to("pr", *back, notice="write_text"))
    if not (3 <= len(code) <= 32 and code.isascii() and code.replace("_", "").replace("-", "").isalnum()):
        return await show(visit.to("pr", *back, notice="promo_unknown"))

    async def take(tx: Tx) -> int:
        promo = await usable_promo(tx, code, visit.customer.id)
        await keep_promo(tx, visit.customer.id, code)
        return promo.percent

    try:
        await visit.run("promo", take)
    except BusinessError:
        return await show(visit.to("pr", *back, notice="promo_unknown"))
    visit = attrs.evolve(visit, visitor=attrs.evolve(visit.visitor, promo_code=code))
    return await show(visit.to("cf" if len(back) == 2 else "pl", *back, notice="promo_taken"))


@screen("px")
async def forget_promo(visit: Visit) -> Screen:
    """Use no promo code any more."""
    await visit.run("promo_drop", drop_promo, visit.customer.id)
    visit = attrs.evolve(visit, visitor=attrs.evolve(visit.visitor, promo_code=None))
    return await show(visit.to("pl"))
