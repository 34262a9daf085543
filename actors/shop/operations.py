"""What each operation of the interface does, in the transaction that is already open for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import attrs

from actors.nodes.links import subscription_state, working_links
from actors.payments.provider import Provider
from db.access.subscriptions import get_subscription, link_token, reset_link_token
from db.billing.balance_purchases import finalize_balance_purchase
from db.billing.grants import grant_trial
from db.billing.ledger import purses
from db.billing.orders import Order, cancel_order, find_order, find_order_by_key, open_order, open_topup
from db.billing.pricing import price_list, quote_plan
from db.billing.promos import usable_promo
from db.billing.referrals import referral_standing, withdrawable
from db.billing.renewals import set_auto_renew
from db.billing.withdrawals import request_withdrawal
from db.customers import Customer, add_customer, find_customer
from db.errors import BusinessError, PriceChanged, UnknownOrder
from db.keys.reissue import request_reissue
from db.money import Money
from db.settings import LimitSettings, TrialSettings
from db.tx import Tx
from db.work.limits import Allowance
from db.work.sealing import Seal, SealError
from runtime.operators import Identity, front_end

ShopAnswer = dict[str, Any]
KEY_PREFIX: Final = "shop"
"""Keys of orders that front ends open are apart from those of operators."""


def _no_seal() -> Seal:
    raise SealError("no key file is known to this gateway")


@attrs.frozen
class ShopRequest:
    """A request that is authentic and well formed."""

    key_id: str
    parameters: Mapping[str, int]
    body: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    providers: Mapping[str, Provider] = attrs.field(factory=dict, repr=False)
    """Those that are on."""
    seal: Callable[[], Seal] = attrs.field(default=_no_seal, repr=False)
    """The key of payout destinations."""

    limits: LimitSettings = attrs.field(factory=LimitSettings)
    trials: TrialSettings = attrs.field(factory=TrialSettings)

    @property
    def allowance(self) -> Allowance:
        """The limits that a front end is held to."""
        return Allowance(self.limits, self.actor)

    @property
    def telegram_id(self) -> int:
        """Whom it is about."""
        return self.parameters["telegram_id"]

    @property
    def who(self) -> Identity:
        """Who asks: the front end, for the customer."""
        return front_end(self.key_id)

    @property
    def actor(self) -> str:
        """What audit entries call who asks; the entry's customer is whom it is for."""
        return self.who.actor

    def provider(self, name: str) -> Provider:
        """A provider that is on. Raises BusinessError, naming those that are."""
        try:
            return self.providers[name]
        except KeyError:
            on = ", ".join(sorted(self.providers)) or "none"
            raise BusinessError(f"no payment provider {name!r} is on; on are {on}") from None


async def list_plans(tx: Tx, _: ShopRequest) -> ShopAnswer:
    """The price list."""
    return {
        "plans": [{"tariff": plan.tariff, "days": plan.days, **_money(plan.price)} for plan in await price_list(tx)]
    }


async def get_customer(tx: Tx, call: ShopRequest) -> ShopAnswer:
    """The customer, with the balance."""
    return await _customer(tx, await find_customer(tx, call.telegram_id))


async def note_contact(tx: Tx, call: ShopRequest) -> ShopAnswer:
    """Add the customer, or make them reachable again."""
    customer = await add_customer(
        tx,
        call.telegram_id,
        language=call.body.get("language", "ru"),
        referrer_telegram_id=call.body.get("referrer"),
    )
    return await _customer(tx, customer)


async def quote_price(tx: Tx, call: ShopRequest) -> ShopAnswer:
    """What a plan costs this customer now."""
    found = await quote_plan(
        tx, call.telegram_id, call.body["tariff"], call.body["days"], promo_code=call.body.get("promo")
    )
    discount = found.discount
    return {
        "tariff": call.body["tariff"],
        "days": call.body["days"],
        "list_amount": found.list_price.amount,
        **_money(found.price),
        "discount_percent": 0 if discount is None else discount.percent,
        "discount_source": None if discount is None else discount.source,
        "promo_used": _promo_used(found.promo_code_id, found.unused_promo_id),
    }


async def place_order(tx: Tx, call: ShopRequest) -> ShopAnswer:
    """Open an order for a plan or a top-up, to be paid in the asset of a provider."""
    body = call.body
    key = f"{KEY_PREFIX}:{body['idempotency_key']}"
    contact = body.get("receipt_contact", "")
    customer = await find_customer(tx, call.telegram_id)
    # What was quoted first stays: a repeated request is not priced anew.
    provider = None
    if "provider" in body and await find_order_by_key(tx, customer.id, key) is None:
        provider = call.provider(body["provider"])
    if "amount" in body:
        amount = Money(body["amount"])
        quote = None if provider is None else await provider.quote_now(tx, amount)
        return _order(
            await open_topup(
                tx,
                call.telegram_id,
                amount,
                idempotency_key=key,
                quote=quote,
                receipt_contact=contact,
                allowance=call.allowance,
            )
        )
    plan, promo = (body["tariff"], body["days"]), body.get("promo")
    quote = None
    if provider is not None:
        quote = await provider.quote_now(tx, (await quote_plan(tx, call.telegram_id, *plan, promo_code=promo)).price)
    return _order(
        await open_order(
            tx,
            call.telegram_id,
            *plan,
            idempotency_key=key,
            promo_code=promo,
            quote=quote,
            receipt_contact=contact,
            allowance=call.allowance,
        )
    )


async def get_order(tx: Tx, call: ShopRequest) -> ShopAnswer:
    """An order of this customer."""
    return _order(await _own_order(tx, call))


async def check_order(tx: Tx, call: ShopRequest) -> ShopAnswer:
    """An order of this customer that is about to be paid at the price that the customer saw."""
    order = await _own_order(tx, call)
    seen = Money(call.body["price"])
    if order.price != seen:
        raise PriceChanged(f"order {order.id}", seen, order.price)
    return _order(order)


async def give_up_order(tx: Tx, call: ShopRequest) -> ShopAnswer:
    """Cancel an order of this customer that is not paid; one that has ended already stays as it is."""
    found = await get_order(tx, call)
    await cancel_order(tx, found["order_id"], actor=call.actor)
    return await get_order(tx, call)


async def buy_plan_from_balance(tx: Tx, call: ShopRequest) -> ShopAnswer:
    """Buy a plan from the balance."""
    body = call.body
    bought = await finalize_balance_purchase(
        tx,
        call.telegram_id,
        body["tariff"],
        body["days"],
        seen_price=Money(body["price"]),
        idempotency_key=body["idempotency_key"],
        promo_code=body.get("promo"),
        actor=call.actor,
    )
    return {
        "order_id": bought.order_id,
        **_money(bought.price),
        "expires_at": utc_time(bought.expires_at),
        "replayed": bought.replayed,
    }


async def find_subscription(tx: Tx, call: ShopRequest) -> ShopAnswer:
    """What the customer has now."""
    found = await get_subscription(tx, call.telegram_id)
    if found is None:
        return {"state": "none", "tariff": None, "expires_at": None, "auto_renew": None, "source": None}
    return {
        "state": subscription_state(found),
        "tariff": found.tariff,
        "expires_at": utc_time(found.expires_at),
        "auto_renew": found.auto_renew,
        "source": found.source,
    }


async def find_link(tx: Tx, call: ShopRequest) -> ShopAnswer:
    """The subscription link and what it leads to now."""
    return await _link(tx, call, await link_token(tx, call.telegram_id))


async def reset_link(tx: Tx, call: ShopRequest) -> ShopAnswer:
    """Another subscription link; the old one is void."""
    return await _link(tx, call, await reset_link_token(tx, call.telegram_id, actor=call.actor))


async def reissue_key(tx: Tx, call: ShopRequest) -> ShopAnswer:
    """Replace the key."""
    key = await request_reissue(
        tx, call.telegram_id, actor=call.actor, idempotency_key=call.body["idempotency_key"], allowance=call.allowance
    )
    return {"key": key}


async def switch_auto_renew(tx: Tx, call: ShopRequest) -> ShopAnswer:
    """Renew from the balance, or not."""
    await set_auto_renew(tx, call.telegram_id, call.body["enabled"], actor=call.actor)
    return {"enabled": call.body["enabled"]}


async def start_trial(tx: Tx, call: ShopRequest) -> ShopAnswer | BusinessError:
    """The trial, once. A refusal is returned, so that the attempt is kept and counts."""
    try:
        entitlement = await grant_trial(
            tx, call.telegram_id, actor=call.actor, rules=call.trials, allowance=call.allowance
        )
    except BusinessError as error:
        return error  # nothing is written before a refusal but the attempt
    return {"tariff": entitlement.tariff, "expires_at": utc_time(entitlement.new_end)}


async def check_promo_code(tx: Tx, call: ShopRequest) -> ShopAnswer:
    """Whether this customer can use a code now."""
    customer = await find_customer(tx, call.telegram_id)
    found = await usable_promo(tx, call.body["promo"], customer.id)
    return {"promo": call.body["promo"].lower(), "percent": found.percent}


async def find_referral(tx: Tx, call: ShopRequest) -> ShopAnswer:
    """Friends, percent, earnings."""
    standing = await referral_standing(tx, (await find_customer(tx, call.telegram_id)).id)
    return {
        "paying_friends": standing.friends,
        "percent": standing.percent,
        "earned": standing.earned.amount,
        "currency": standing.earned.currency,
    }


async def withdraw(tx: Tx, call: ShopRequest) -> ShopAnswer:
    """Reserve money of the balance to be paid out."""
    body = call.body
    found = await request_withdrawal(
        tx,
        call.telegram_id,
        Money(body["amount"]),
        destination=body["destination"],
        idempotency_key=body["idempotency_key"],
        actor=call.actor,
        seal=call.seal(),
    )
    return {"withdrawal_id": found.id, **_money(found.amount), "state": found.state}


OPERATIONS: Final[Mapping[str, Callable[[Tx, ShopRequest], Awaitable[ShopAnswer | BusinessError]]]] = {
    "list_plans": list_plans,
    "find_customer": get_customer,
    "note_contact": note_contact,
    "quote": quote_price,
    "open_order": place_order,
    "find_order": get_order,
    "cancel_order": give_up_order,
    "open_invoice": check_order,
    "buy_from_balance": buy_plan_from_balance,
    "find_subscription": find_subscription,
    "find_link": find_link,
    "reset_link": reset_link,
    "reissue": reissue_key,
    "set_auto_renew": switch_auto_renew,
    "start_trial": start_trial,
    "check_promo": check_promo_code,
    "find_referral": find_referral,
    "request_withdrawal": withdraw,
}
"""By the `operationId` of the description."""


async def _own_order(tx: Tx, call: ShopRequest) -> Order:
    order = await find_order(tx, call.parameters["order_id"])
    if order.customer_id != (await find_customer(tx, call.telegram_id)).id:
        raise UnknownOrder(order.id)
    return order


async def _customer(tx: Tx, customer: Customer) -> ShopAnswer:
    held = await purses(tx, customer.id)
    return {
        "telegram_id": customer.telegram_id,
        "language": customer.language,
        "balance": held.balance.amount,
        "paid": held.paid.amount,
        "credit": held.credit.amount,
        "earned": held.earned.amount,
        "debt": held.debt.amount,
        "withdrawable": (await withdrawable(tx, customer.id)).amount.amount,
        "currency": held.balance.currency,
        "is_reachable": customer.is_reachable,
    }


async def _link(tx: Tx, call: ShopRequest, token: str) -> ShopAnswer:
    found = await get_subscription(tx, call.telegram_id)
    return {"subscription_path": f"/s/{token}", "links": [link.render() for link in working_links(found)]}


def _order(order: Order) -> ShopAnswer:
    return {
        "order_id": order.id,
        "kind": order.kind,
        "tariff": order.tariff,
        "days": order.days,
        "list_amount": order.list_price.amount,
        **_money(order.price),
        "quoted_amount": order.quote.amount.amount,
        "quoted_asset": order.quote.amount.currency,
        "promo_used": _promo_used(order.promo_code_id, order.unused_promo_id),
        "state": order.state,
        "expires_at": utc_time(order.expires_at),
    }


def _promo_used(used: int | None, unused: int | None) -> bool | None:
    return None if used is None and unused is None else used is not None


def _money(money: Money) -> ShopAnswer:
    return {"amount": money.amount, "currency": money.currency}


def utc_time(at: datetime) -> str:
    """A moment as the interface writes it."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
