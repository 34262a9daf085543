"""The menu and what informs: language, rules, help, instructions, state of the service."""

from __future__ import annotations

from typing import Final

import attrs

from actors.storefront.access import page_of, read_facts
from actors.storefront.language import choose
from actors.storefront.screen import Button, Screen
from actors.storefront.screens import Visit, screen, show
from db.access.subscriptions import get_subscription
from db.customers import set_language
from db.work.front_ends import accept_rules

PLATFORMS: Final = ("android", "ios", "windows", "macos", "linux", "tv")


@screen("mn")
async def menu(visit: Visit) -> Screen:
    """The first screen: what the customer has, and the ways on."""
    found = await visit.run("subscription", get_subscription, visit.telegram_id)
    texts = visit.texts
    rows: list[tuple[Button, ...]] = []
    if found is not None and found.is_running:
        end = texts.language.moment(found.expires_at)
        text = visit.say("menu_active", title=visit.around.shop.title, tariff=texts.tariff(found.tariff), end=end)
        rows += [(visit.button("key", "ky"),), (visit.button("renew", "pl"), visit.button("profile", "pf"))]
    else:
        text = visit.say("menu", title=visit.around.shop.title)
        rows.append((visit.button("plans", "pl"),))
        if found is None and visit.around.settings.trial:
            rows.append((visit.button("trial", "tr"),))
        rows.append((visit.button("profile", "pf"), visit.button("topup", "tu")))
    rows += [
        (visit.button("referral", "rf"), visit.button("instructions", "in")),
        (visit.button("support", "su"), visit.button("status", "st")),
        (visit.button("language", "la"),),
    ]
    return Screen(text, tuple(rows))


@screen("ol", before_rules=True)
async def too_old(visit: Visit) -> Screen:
    """A button that means nothing any more says so, and leads to the menu."""
    return Screen(visit.say("too_old"), ((visit.button("menu", "mn"),),))


@screen("la", before_rules=True)
async def languages(visit: Visit) -> Screen:
    """The languages that there are, each by its own name."""
    buttons = [
        visit.button("named", "ls", code, name=("• " if code == visit.texts.code else "") + texts.name)
        for code, texts in visit.around.languages.items()
    ]
    rows = [tuple(buttons[at : at + 2]) for at in range(0, len(buttons), 2)]
    return Screen(visit.say("language"), (*rows, (visit.button("menu", "mn"),)))


@screen("ls", before_rules=True)
async def speak(visit: Visit) -> Screen:
    """Speak another language from now on."""
    chosen = choose(visit.around.languages, visit.press.text(0))
    await visit.act("language", set_language, visit.telegram_id, chosen.code)
    return await show(attrs.evolve(visit, texts=chosen).to("mn"))


@screen("ru", before_rules=True)
async def rules(visit: Visit) -> Screen:
    """The rules, and whether the customer accepts them."""
    settings = visit.around.settings
    if not settings.rules_url:
        return Screen(visit.say("no_rules"), ((visit.button("menu", "mn"),),))
    read = (visit.link("rules_read", settings.rules_url),)
    if visit.visitor.accepted_rules == settings.rules_version:
        return Screen(visit.say("rules_accepted"), (read, (visit.button("menu", "mn"),)))
    accept = (visit.button("rules_accept", "ra"),)
    return Screen(visit.say("rules"), (read, accept, (visit.button("language", "la"), visit.button("support", "su"))))


@screen("ra", before_rules=True)
async def accept(visit: Visit) -> Screen:
    """Accept the rules as they are now."""
    await visit.act("rules", accept_rules, visit.customer.id, visit.around.settings.rules_version)
    return await show(visit.to("mn"))


@screen("su", before_rules=True)
async def support(visit: Visit) -> Screen:
    """Where to get help, with the number that help asks for."""
    address = visit.around.settings.support_url or visit.around.shop.support_url
    rows: list[tuple[Button, ...]] = []
    if address:
        rows.append((visit.link("support_write", address),))
    rows.append((visit.button("instructions", "in"), visit.button("status", "st")))
    rows.append((visit.button("rules", "ru"), visit.button("menu", "mn")))
    return Screen(visit.say("support" if address else "support_nowhere", id=str(visit.telegram_id)), tuple(rows))


@screen("st", before_rules=True)
async def status(visit: Visit) -> Screen:
    """Whether the servers work, as this process knows it at the moment."""
    well, of = visit.around.servers()
    kind = "status_unknown" if not of else "status_well" if well == of else "status_part" if well else "status_down"
    rows = ((visit.button("refresh", "st"), visit.button("support", "su")), (visit.button("menu", "mn"),))
    announce = visit.around.shop.announce
    text = visit.say(kind, well=str(well), of=str(of))
    return Screen(text + "\n\n" + announce if announce else text, rows)


@screen("in", before_rules=True)
async def instructions(visit: Visit) -> Screen:
    """For which device."""
    buttons = [visit.button(f"on_{platform}", "ip", platform) for platform in PLATFORMS]
    rows = [tuple(buttons[at : at + 2]) for at in range(0, len(buttons), 2)]
    return Screen(visit.say("instructions"), (*rows, (visit.button("menu", "mn"),)))


@screen("ip", before_rules=True)
async def instruction(visit: Visit) -> Screen:
    """How to connect a device: which program, and what to do with the link."""
    platform = visit.press.text(0)
    if platform not in PLATFORMS:
        return await show(visit.to("in"))
    facts = await visit.run("access", read_facts, visit.telegram_id)
    rows: list[tuple[Button, ...]] = []
    if facts.link and page_of(visit, facts):
        rows.append((visit.link("open_page", page_of(visit, facts)),))
    rows.append((visit.button("key", "ky"),) if facts.link else (visit.button("plans", "pl"),))
    rows.append((visit.button("back", "in"), visit.button("support", "su")))
    return Screen(visit.say(f"how_{platform}"), tuple(rows))
