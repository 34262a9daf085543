"""What a customer has: the access with its link, traffic, trial, new key, automatic renewal, history."""

from __future__ import annotations

import attrs

from actors.nodes.links import subscription_state, working_links
from actors.storefront.screen import Button, Screen
from actors.storefront.screens import BOT, Visit, screen, show
from actors.telegram.html import Html, code, joined
from db.access.subscriptions import SubscriptionView, get_subscription, link_token
from db.billing.grants import grant_trial
from db.billing.ledger import purses
from db.billing.renewals import set_auto_renew
from db.errors import BusinessError
from db.keys.reissue import request_reissue
from db.keys.usage import CustomerTraffic, usage_of
from db.money import Money
from db.stories import acquired_by
from db.tx import Tx
from vpn.subscription.qr import qr_png


@attrs.frozen
class AccessFacts:
    """What a customer has now."""

    found: SubscriptionView | None
    state: str
    """As `subscription_state` says it, or `none`."""
    traffic: CustomerTraffic
    token: str = attrs.field(repr=False)
    link: str = attrs.field(repr=False)
    """The first link that works now; empty if none does."""
    balance: Money = attrs.field(factory=lambda: Money(0))


async def read_facts(tx: Tx, telegram_id: int) -> AccessFacts:
    """What the customer has now. Raises UnknownCustomer."""
    found = await get_subscription(tx, telegram_id)
    links = working_links(found)
    return AccessFacts(
        found,
        "none" if found is None else subscription_state(found),
        await usage_of(tx, telegram_id),
        await link_token(tx, telegram_id),
        links[0].render() if links else "",
    )


def page_of(visit: Visit, facts: AccessFacts) -> str:
    """The address of the customer's subscription page; empty if the shop has no public address."""
    return f"{visit.around.shop.public_url}/s/{facts.token}" if visit.around.shop.public_url else ""


def copied(visit: Visit, facts: AccessFacts) -> str:
    """What the customer puts into a program: the subscription's address, else the key itself."""
    return page_of(visit, facts) or facts.link


def access_text(visit: Visit, facts: AccessFacts) -> Html:
    """The link, and until when it works."""
    assert facts.found is not None
    texts = visit.texts
    lines: list[Html | str] = [
        texts.say("access", tariff=texts.tariff(facts.found.tariff), end=texts.language.moment(facts.found.expires_at)),
        "",
        texts.say("access_link", link=code(copied(visit, facts))),
    ]
    return joined(lines)


def access_rows(visit: Visit, facts: AccessFacts) -> tuple[tuple[Button, ...], ...]:
    """What can be done with a link that works."""
    rows: list[tuple[Button, ...]] = []
    page = page_of(visit, facts)
    if page:
        rows.append((visit.link("open_page", page),))
    rows.append((Button(visit.texts.button("copy_link"), copy=copied(visit, facts)), visit.button("qr", "qr")))
    rows.append((visit.button("instructions", "in"), visit.button("menu", "mn")))
    return tuple(rows)


@screen("ky")
async def key(visit: Visit) -> Screen:
    """The link, with what can be done with it."""
    facts = await visit.run("access", read_facts, visit.telegram_id)
    if not facts.link or facts.found is None:
        return await show(visit.to("pf"))
    return Screen(
        visit.say("key") + "\n\n" + access_text(visit, facts),
        (*access_rows(visit, facts)[:-1], (visit.button("reissue", "re"),), *access_rows(visit, facts)[-1:]),
    )


@screen("pf")
async def profile(visit: Visit) -> Screen:
    """What the customer has: end, traffic, balance, automatic renewal."""

    async def look(tx: Tx) -> AccessFacts:
        held = await purses(tx, visit.customer.id)
        return attrs.evolve(await read_facts(tx, visit.telegram_id), balance=held.balance)

    facts = await visit.run("profile", look)
    texts, found = visit.texts, facts.found
    lines: list[Html | str] = [visit.say("profile", id=str(visit.telegram_id))]
    if found is None:
        lines.append(texts.say("state_none"))
    else:
        lines.append(
            texts.say(
                f"state_{facts.state}",
                tariff=texts.tariff(found.tariff),
                end=texts.language.moment(found.expires_at),
            )
        )
        lines.append(
            texts.say("traffic", down=texts.size(facts.traffic.downloaded), up=texts.size(facts.traffic.uploaded))
        )
        lines.append(texts.say("auto_renew_on" if found.auto_renew else "auto_renew_off"))
    lines.append(texts.say("balance", balance=texts.money(facts.balance)))
    rows: list[tuple[Button, ...]] = []
    if facts.link:
        rows.append((visit.button("key", "ky"),))
    rows.append((visit.button("renew" if found is not None else "plans", "pl"), visit.button("topup", "tu")))
    if found is not None:
        rows.append((visit.button("auto_renew_stop" if found.auto_renew else "auto_renew_start", "ar"),))
    rows.append((visit.button("history", "hi"), visit.button("menu", "mn")))
    return Screen(joined(lines), tuple(rows))


@screen("qr")
async def qr(visit: Visit) -> Screen:
    """The link as a picture: a message of its own, which its button closes."""
    facts = await visit.run("access", read_facts, visit.telegram_id)
    if not facts.link:
        return await show(visit.to("pf"))
    return Screen(visit.say("qr"), ((visit.button("close", "cl"),),), picture=qr_png(copied(visit, facts)))


@screen("cl", before_rules=True)
async def close(_: Visit) -> Screen:
    """Take a message away."""
    return Screen(Html(), closes=True)


# -- a new key --------------------------------------------------------------------------------------------------------


@screen("re", refused="reissue_refused")
async def reissue(visit: Visit) -> Screen:
    """Ask whether the key is really to be replaced."""
    return Screen(
        visit.say("reissue"),
        ((visit.button("reissue_do", "rx", acts=True),), (visit.button("back", "ky"),)),
    )


@screen("rx", refused="reissue_refused")
async def do_reissue(visit: Visit) -> Screen:
    """Replace the key; the old one works until the new one does."""
    if not visit.key:
        return await show(visit.to("re"))

    async def ask(tx: Tx) -> str:
        return await request_reissue(
            tx, visit.telegram_id, actor=BOT.actor, idempotency_key=visit.key, allowance=visit.allowance
        )

    await visit.act("reissue", ask)
    return Screen(visit.say("reissue_done"), ((visit.button("key", "ky"),), (visit.button("menu", "mn"),)))


# -- the trial --------------------------------------------------------------------------------------------------------


@screen("tr")
async def trial(visit: Visit) -> Screen:
    """What the trial is, with the button that starts it."""
    if not visit.around.settings.trial:
        return await show(visit.to("mn", notice="trial_refused"))
    return Screen(visit.say("trial"), ((visit.button("trial_start", "tx", acts=True),), (visit.button("menu", "mn"),)))


@screen("tx", refused="trial_refused")
async def start_trial(visit: Visit) -> Screen:
    """Start the trial, once ever. Pressed again while it runs, it shows the access."""
    if not visit.key or not visit.around.settings.trial:
        return await show(visit.to("tr"))

    async def start(tx: Tx) -> BusinessError | None:
        found = await get_subscription(tx, visit.telegram_id)
        if found is not None and found.is_running:
            return None
        try:
            await grant_trial(
                tx, visit.telegram_id, actor=BOT.actor, rules=visit.around.trials, allowance=visit.allowance
            )
        except BusinessError as error:
            return error  # returned, so that the attempt is kept and counts
        return None

    refused = await visit.act("trial", start)
    if refused is not None:
        raise refused
    facts = await visit.run("access", read_facts, visit.telegram_id)
    if facts.link:
        return Screen(visit.say("trial_started") + "\n\n" + access_text(visit, facts), access_rows(visit, facts))
    return Screen(visit.say("trial_starting"), ((visit.button("key", "ky"),), (visit.button("menu", "mn"),)))


# -- automatic renewal ------------------------------------------------------------------------------------------------


@screen("ar")
async def auto_renew(visit: Visit) -> Screen:
    """What automatic renewal does, and the switch."""
    found = await visit.run("subscription", get_subscription, visit.telegram_id)
    if found is None:
        return await show(visit.to("pl"))
    label = "auto_renew_stop" if found.auto_renew else "auto_renew_start"
    return Screen(
        visit.say("auto_renew_is_on" if found.auto_renew else "auto_renew_is_off"),
        ((visit.button(label, "as", int(not found.auto_renew)),), (visit.button("back", "pf"),)),
    )


@screen("as", refused="auto_renew_refused")
async def switch_auto_renew(visit: Visit) -> Screen:
    """Switch it to what the button said: pressed twice, it stays so."""
    wanted = visit.press.number(0)
    if wanted not in (0, 1):
        return await show(visit.to("ar"))

    async def switch(tx: Tx) -> None:
        await set_auto_renew(tx, visit.telegram_id, bool(wanted), actor=BOT.actor)

    await visit.act("auto_renew", switch)
    return await show(visit.to("pf"))


# -- history ----------------------------------------------------------------------------------------------------------


@screen("hi")
async def history(visit: Visit) -> Screen:
    """The last things that the customer paid for or was given."""
    texts = visit.texts
    lines: list[Html | str] = []
    for each in await visit.run("history", acquired_by, visit.customer.id):
        day = texts.language.moment(each.at)
        if each.what == "topup":
            assert each.price is not None
            lines.append(texts.say("history_topup", at=day, price=texts.money(each.price)))
            continue
        values = (
            {"at": day, "tariff": texts.tariff(each.tariff), "span": texts.language.left(each.span)}
            if each.span
            else {}
        )
        if each.price is not None and each.span is not None:
            lines.append(texts.say("history_plan", **values, price=texts.money(each.price)))
        elif each.span is not None:
            lines.append(texts.say(f"history_{each.what}", **values))
    text = visit.say("history") + "\n\n" + joined(lines) if lines else visit.say("history_empty")
    return Screen(text, ((visit.button("back", "pf"), visit.button("menu", "mn")),))
