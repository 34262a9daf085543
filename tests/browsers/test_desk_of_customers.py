"""The desk's pages of pools, customers and cases in a real browser, on a database."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime, timedelta
from typing import TypeVar
from unittest import mock

import pytest
import trio

from db.billing.payment_facts import FinalizePurchase
from db.billing.purchases import finalize_purchase
from db.driver.session import open_session
from db.money import Money
from db.tx import Tx
from tests.actors.commands.conftest import earn
from tests.browsers.browser import PATIENCE, Chromium, Running, Viewer, chromium, needs_chromium, running, viewer
from tests.postgres_cluster import Cluster

pytestmark = needs_chromium
T = TypeVar("T")
_CONFIG = """
[supervisor]
name = "shop"
[actor."pool.main"]
actor = "actors.pool.pool:PoolActor"
[actor.instance]
actor = "actors.leadership.instance:Instance"
needs = ["pool.main"]
[actor.admin]
actor = "actors.desk.admin:Admin"
needs = ["instance"]
[group.nodes]
[group.work]
[actor."node.riga"]
actor = "tests.browsers.desk_actors:Rogue"
group = "nodes"
args = { crashes = true, words = "riga.example:8700 refused the connection" }
[actor."node.oslo"]
actor = "tests.browsers.desk_actors:Idle"
group = "nodes"
[actor.activation]
actor = "tests.browsers.desk_actors:Stuck"
group = "work"
shutdown = 0.2
[actor.reminders]
actor = "tests.browsers.desk_actors:Idle"
group = "work"
paused = true
[actor.notifications]
actor = "tests.browsers.desk_actors:Idle"
group = "work"
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def shop(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A shop in which customer 42 paid once, once too little, and wants what the friend 43 brought paid out."""
    name = cluster.create_database(cluster.template())
    env = {
        "ATLAS__DATABASE__DSN": cluster.dsn(name),
        "ATLAS__DATABASE__PURPOSE": "test",
        "ATLAS__PAYMENTS__YOOKASSA__SHOP_ID": "100500",
        "ATLAS__PAYMENTS__YOOKASSA__SECRET_KEY": "a-secret-of-these-tests",
        "ATLAS__PAYMENTS__YOOKASSA__RETURN_URL": "https://shop.example/back",
        "ATLAS__WITHDRAWALS__KEY_FILE": str(tmp_path_factory.mktemp("key") / "payout.key"),
    }
    try:
        with running(_CONFIG, env) as shop:
            shop.atlas("customer", "add", "42")
            plan = ("--customer", "42", "--tariff", "basic", "--days", "30", "--provider", "manual")
            shop.atlas("buy", *plan, "--charge", "first-charge", "--amount", "14900")
            shop.atlas("buy", *plan, "--charge", "<b>odd</b>", "--amount", "100")
            with mock.patch.dict(os.environ, shop.env):
                earn(shop.atlas, 60_000)
            shop.atlas("withdrawals", "request", "42", "50000", "--to", "a card that ends in 4242", "--key", "first")
            yield shop
        assert cluster.broken_invariants(name) == ""
    finally:
        cluster.drop_database(name)


def trail(shop: Running) -> str:
    """What the audit trail has of actions at the desk that do not write to the database themselves."""

    async def read(tx: Tx) -> str:
        text: str = await tx.fetchval(
            "SELECT coalesce(string_agg((details->>'why') || ': ' || (details->>'outcome'), '; '), '') FROM audit "
            "WHERE action = 'desk.action' AND actor = 'operator:anna' AND role = 'owner'"
        )
        return text

    async def run() -> str:
        async with open_session(shop.env["ATLAS__DATABASE__DSN"], "test") as session:
            return await session.run("read", read)

    return trio.run(run)


def in_shop(shop: Running, function: Callable[[Tx], Awaitable[T]]) -> T:
    """Run a business function in the shop's database."""

    async def run() -> T:
        async with open_session(shop.env["ATLAS__DATABASE__DSN"], "test") as session:
            return await session.run("test", function)

    return trio.run(run)


def change(shop: Running, statement: str) -> list[int]:
    """Run a statement in the shop's database; returns the column `id` of what it gives."""

    async def execute(tx: Tx) -> list[int]:
        return [row["id"] for row in await tx.fetch(statement)]

    return in_shop(shop, execute)


def fill(somebody: Viewer, **values: str) -> None:
    for name, value in values.items():
        somebody.page.fill(f"dialog [name={name}]", value)
    somebody.page.click("dialog button")


def test_a_customer_is_found_by_id_charge_order_and_key_and_has_one_page(browser: Chromium, shop: Running) -> None:
    with viewer(browser, shop, "support") as sue:
        for asked in ("42", "first-charge", "1"):
            sue.go(f"/customers?q={asked}")
            browser.expect(sue.page.locator("main li")).to_contain_text("42")
        sue.go("/customers/42")
        key = sue.page.inner_text("section:has(#h-2) td >> nth=0").removesuffix("…")
        sue.go(f"/customers?q={key}")
        browser.expect(sue.page.locator("main li")).to_contain_text("42 key")
        sue.go("/customers?q=nobody-s")
        browser.expect(sue.page.locator("main")).to_contain_text("no one was found")
        sue.go("/customers/42")
        text = sue.page.inner_text("main")
        for told in ("basic, runs", "first-charge", "<b>odd</b>", "149.00", "finalize_purchase", "payment_credit"):
            assert told in text
        assert sue.page.locator("main b").count() == 0, "markup stays text"
        assert sue.page.locator("main a[data-ask]").all_inner_texts() == ["Give another key"], "the rest is for money"
        sue.go("/customers/77")
        browser.expect(sue.page.locator("main")).to_contain_text("77")
        assert [said for said in sue.complaints if "404" not in said] == []
    with viewer(browser, shop, "viewer") as vera:
        vera.go("/customers/42")
        assert "first-charge" not in vera.page.content() and "support" in vera.page.inner_text("main")
        assert "Customers" not in vera.page.inner_text("nav")


def test_access_is_given_once_however_often_the_form_is_sent_and_says_who_and_why(
    browser: Chromium, shop: Running
) -> None:
    with viewer(browser, shop, "money") as mona:
        mona.go("/customers/42")
        mona.page.click("text=Give access")
        mona.page.wait_for_selector("dialog[open]")
        form = mona.page.evaluate("() => Object.fromEntries(new FormData(document.querySelector('dialog form')))")
        fill(mona, tariff="basic", days="3", why="the outage of Monday")
        browser.expect(mona.page.locator(".said")).to_contain_text("42: basic until")
        again = {**form, "tariff": "basic", "days": "3", "why": "the outage of Monday"}
        mona.page.request.post(f"{shop.url}/act/grant", form=again, headers={"origin": shop.url})
        mona.go("/customers/42")
        audit = mona.page.inner_text("section:has(#h-8)")
        assert audit.count("the outage of Monday") == 1 and "operator:mona" in audit
        assert mona.page.inner_text("section:has(#h-1)").count("operator:mona") == 1, "one interval of his"
        mona.page.click("text=Give access")
        fill(mona, tariff="basic", days="nine", why="a slip")
        browser.expect(mona.page.locator("[role=alert]")).to_contain_text("days is a whole number from 1 to 3650")


def test_a_key_is_given_anew_by_support_and_a_charge_is_refunded_by_money_alone(
    browser: Chromium, shop: Running
) -> None:
    with viewer(browser, shop, "support") as sue:
        sue.go("/customers/42")
        sue.page.click("text=Give another key")
        fill(sue, why="it leaked")
        browser.expect(sue.page.locator(".said")).to_contain_text("another key is on its way")
        form = {"provider": "manual", "charge": "first-charge", "amount": "all", "key": "a-key-of-mine", "why": "no"}
        refused = sue.page.request.post(f"{shop.url}/act/refund", form=form, headers={"origin": shop.url})
        assert refused.status == 403
    with viewer(browser, shop, "money") as mona:
        mona.go("/customers/42")
        mona.page.click("tr:has-text('first-charge') a")
        fill(mona, why="asked for it")
        browser.expect(mona.page.locator(".said")).to_contain_text("149.00 RUB")
        mona.page.click("tr:has-text('first-charge') a")
        fill(mona, why="asked again")
        browser.expect(mona.page.locator("[role=alert]")).to_be_visible()


def test_access_is_prolonged_by_days_that_follow_what_there_is_and_once_a_form(
    browser: Chromium, shop: Running
) -> None:
    shop.atlas("customer", "add", "60")
    plan = ("--customer", "60", "--tariff", "plus", "--days", "30", "--provider", "manual")
    shop.atlas("buy", *plan, "--charge", "of-sixty", "--amount", "29900")
    before = ends_of(shop, "60")
    with viewer(browser, shop, "support") as sue:
        sue.go("/customers/60")
        assert sue.page.locator("main a[data-ask]").all_inner_texts() == ["Give another key"]
        form = {"customer": "60", "days": "5", "key": "a-key-of-mine", "why": "no"}
        assert sue.page.request.post(f"{shop.url}/act/prolong", form=form, headers={"origin": shop.url}).status == 403
    with viewer(browser, shop, "money") as mona:
        mona.go("/customers/60")
        mona.page.click("text=Prolong")
        browser.expect(mona.page.locator("dialog")).to_contain_text("plus, until")
        fill(mona, days="5", why="the storm")
        browser.expect(mona.page.locator(".said")).to_contain_text("60: plus until")
        assert ends_of(shop, "60") - before == timedelta(days=5)
        mona.go("/customers/60")
        assert "the storm" in mona.page.inner_text("section:has(#h-8)")
        mona.go("/customers/43")
        shop.atlas("customer", "add", "61")
        mona.go("/ask/prolong?customer=61")
        browser.expect(mona.page.locator("[role=alert]")).to_contain_text("no access that runs")


def ends_of(shop: Running, customer: str) -> datetime:
    return datetime.fromisoformat(json.loads(shop.atlas("subscription", customer, "--json"))["expires_at"])


def test_money_is_given_back_at_the_provider_by_the_watcher_and_booked_by_its_answer(
    browser: Chromium, shop: Running
) -> None:
    shop.atlas("customer", "add", "62")
    plan = ("--customer", "62", "--tariff", "basic", "--days", "30", "--provider", "yookassa")
    shop.atlas("buy", *plan, "--charge", "of-kassa", "--amount", "14900")
    with viewer(browser, shop, "money") as mona:
        mona.go("/customers/62")
        mona.page.click("tr:has-text('of-kassa') a:text-is('Give back at the provider')")
        fill(mona, amount="49.00", why="a part of it")
        browser.expect(mona.page.locator(".said")).to_contain_text("49.00 RUB, the payment watcher asks the provider")
        waiting = "SELECT amount AS id FROM provider_refunds WHERE state = 'asking' AND refund_id IS NULL"
        assert change(shop, waiting) == [4900], "asked for, and not booked before the provider has answered"
        mona.go("/ask/refund-at-provider?provider=manual&charge=first-charge")
        browser.expect(mona.page.locator("[role=alert]")).to_contain_text("on are yookassa")
    with viewer(browser, shop, "support") as sue:
        sue.go("/work")
        browser.expect(sue.page.locator("main")).to_contain_text("provider refunds")
        form = {"provider": "yookassa", "charge": "of-kassa", "amount": "1.00", "key": "a-key-of-mine", "why": "no"}
        refused = sue.page.request.post(f"{shop.url}/act/refund-at-provider", form=form, headers={"origin": shop.url})
        assert refused.status == 403


def test_the_money_of_a_case_is_credited_and_a_case_without_any_is_closed(browser: Chromium, shop: Running) -> None:
    stranger = FinalizePurchase("shop", "a-stranger-s", Money(5_000), None, 999_999)
    holds = in_shop(shop, lambda tx: finalize_purchase(tx, stranger)).case_id
    [asks] = change(shop, "INSERT INTO cases (kind, subject) VALUES ('support', 'a question') RETURNING id")
    shop.atlas("customer", "add", "63")
    with viewer(browser, shop, "support") as sue:
        sue.go("/cases")
        assert sue.page.locator("text=Credit a customer").count() == 0
        sue.page.click(f"a[aria-label='Close the case: {asks}']")
        fill(sue, why="answered by letter")
        browser.expect(sue.page.locator(".said")).to_contain_text(f"case {asks}: closed")
        sue.go("/cases?state=closed")
        assert "operator:sue: answered by letter" in sue.page.inner_text("main")
        form = {"number": str(holds), "customer": "63", "why": "no"}
        assert (
            sue.page.request.post(f"{shop.url}/act/credit-case", form=form, headers={"origin": shop.url}).status == 403
        )
    with viewer(browser, shop, "money") as mona:
        mona.go("/cases")
        mona.page.click(f"a[aria-label='Credit a customer: {holds}']")
        browser.expect(mona.page.locator("dialog")).to_contain_text("50.00 RUB")
        fill(mona, customer="63", why="it is his, the bank says")
        browser.expect(mona.page.locator(".said")).to_contain_text(f"case {holds}: credited to 63")
        assert json.loads(shop.atlas("customer", "show", "63", "--json"))["paid"] == 5_000
        form = {"number": str(asks), "customer": "63", "why": "a slip"}
        refused = mona.page.request.post(f"{shop.url}/act/credit-case", form=form, headers={"origin": shop.url})
        assert refused.status == 409


def test_a_pool_is_paused_resized_and_resumed_from_its_page(browser: Chromium, shop: Running) -> None:
    with viewer(browser, shop) as anna:
        anna.go("/pools")
        browser.expect(anna.page.locator("#live")).to_have_text("live")
        anna.page.click("text=Resize")
        fill(anna, size="7", why="more room")
        browser.expect(anna.page.locator("#pools")).to_contain_text("of 7")
        anna.page.click("text=Pause the pool")
        fill(anna, why="a move")
        browser.expect(anna.page.locator("#pools h2")).to_contain_text("paused")
        anna.page.click("text=Resume the pool")
        fill(anna, why="moved")
        browser.expect(anna.page.locator("#pools h2")).not_to_contain_text("paused")
        anna.page.click("text=Resize")
        fill(anna, size="0", why="a slip")
        browser.expect(anna.page.locator("[role=alert]")).to_contain_text("size")
    wanted = ["more room: done", "a move: done", "moved: done", "a slip: refused"]
    deadline = time.monotonic() + PATIENCE
    while [text for text in wanted if text not in trail(shop)]:
        assert time.monotonic() < deadline, trail(shop)


def test_a_withdrawal_shows_where_its_money_came_from_and_is_paid_by_money_alone(
    browser: Chromium, shop: Running
) -> None:
    with viewer(browser, shop, "support") as sue:
        sue.go("/withdrawals")
        assert sue.page.locator("main a[data-ask]").count() == 0
    with viewer(browser, shop, "money") as mona:
        mona.go("/withdrawals")
        text = mona.page.inner_text("main")
        assert "500.00 RUB → …4242" in text and "referral_reward" in text and "600.00 RUB" in text
        mona.page.click("text=Record as paid out")
        fill(mona, reference="bank 77", why="checked by telephone")
        browser.expect(mona.page.locator(".said")).to_contain_text("recorded as paid out")
        browser.expect(mona.page.locator("main")).to_contain_text("no withdrawal waits")
    assert '"paid"' in shop.atlas("withdrawals", "list", "--state", "all", "--json")


def test_a_row_that_fails_is_tried_again_or_given_up_from_the_page_of_work(browser: Chromium, shop: Running) -> None:
    first, second = change(
        shop,
        "UPDATE outbox SET attempts = 3, last_error = '<b>no bot</b>', next_attempt_at = atlas_now() + interval '1 hour' "
        "WHERE id IN (SELECT id FROM outbox WHERE state = 'pending' ORDER BY id LIMIT 2) RETURNING id",
    )
    with viewer(browser, shop, "support") as sue:
        sue.go("/work")
        row = sue.page.locator("tr", has_text="<b>no bot</b>")
        browser.expect(row).to_have_count(2)
        assert sue.page.locator("main b").count() == 0
        sue.page.click(f"a[aria-label='Try again: notifications {first}']")
        fill(sue, why="the bot is there again")
        browser.expect(sue.page.locator(".said")).to_contain_text(f"notifications {first}: is tried again now")
        assert change(shop, f"SELECT id FROM outbox WHERE id = {first} AND next_attempt_at <= atlas_now()") == [first]
        sue.page.click(f"a[aria-label='Give up: notifications {second}']")
        fill(sue, why="it says nothing any more")
        browser.expect(sue.page.locator(".said")).to_contain_text(f"notifications {second}: given up")
        assert change(shop, f"SELECT id FROM outbox WHERE id = {second} AND state = 'undeliverable'") == [second]
        wrong = {"queue": "notifications", "number": str(second), "why": "once more"}
        answer = sue.page.request.post(f"{shop.url}/act/retry", form=wrong, headers={"origin": shop.url})
        assert answer.status == 409 and "does not wait any more" in answer.text()
        wrong |= {"queue": "activation", "number": "1"}
        answer = sue.page.request.post(f"{shop.url}/act/give-up", form=wrong, headers={"origin": shop.url})
        assert answer.status == 409 and "is not given up" in answer.text()
        told = change(
            shop,
            "SELECT count(*)::bigint AS id FROM audit WHERE actor = 'operator:sue' AND (action IN ('work.retry', 'work.give_up') "
            "OR (action = 'desk.why' AND details->>'why' IN ('the bot is there again', 'it says nothing any more')))",
        )
        assert told == [4], "each is in the trail with who and why"
    with viewer(browser, shop, "viewer") as vera:
        assert vera.page.request.get(f"{shop.url}/work").status == 403


def test_the_page_of_money_and_its_file_say_what_the_command_line_says(browser: Chromium, shop: Running) -> None:
    said = json.loads(shop.atlas("report", "--json"))
    with viewer(browser, shop, "money") as mona:
        mona.go("/money")
        text = mona.page.inner_text("main")
        total = f"{said['all']['revenue'] / 100:.2f} RUB"
        assert total in text and "basic 30" in text and "manual" in text and "invited" in text
        assert f"{said['held']['purses'] / 100:.2f} RUB" in text
        assert len(mona.page.content()) < 60_000
        for by in ("day", "plan", "provider", "source", "promo"):
            answer = mona.page.request.get(f"{shop.url}/money/{by}.csv?days=30")
            assert answer.status == 200 and "attachment" in answer.headers["content-disposition"]
            rows = list(csv.DictReader(io.StringIO(answer.text())))
            wanted = [(row[by], row["sold"], row["new"], row["lapsed"]) for row in said["by"][by]]
            assert [
                (row[by], round(float(row["sold"]) * 100), int(row["new"]), int(row["lapsed"])) for row in rows
            ] == wanted
        mona.page.click("main a:text-is('7')")
        browser.expect(mona.page.locator(".lead")).to_contain_text("7 days")
        mona.page.fill("#from", "2020-01-01")
        mona.page.fill("#to", "2020-01-03")
        mona.page.click("text=Show")
        browser.expect(mona.page.locator(".lead")).to_contain_text("2020-01-01 – 2020-01-03, 3 days")
        mona.go("/money?from=2026-02-31")
        browser.expect(mona.page.locator("[role=alert]")).to_contain_text("from is a day such as")
        mona.page.request.get(f"{shop.url}/money/evil.csv")
    with viewer(browser, shop, "support") as sue:
        assert sue.page.request.get(f"{shop.url}/money/day.csv").status == 403


def test_the_page_of_nodes_tells_which_is_ready_and_what_is_wanted_there(browser: Chromium, shop: Running) -> None:
    with viewer(browser, shop, "viewer") as vera:
        vera.go("/nodes")
        browser.expect(vera.page.locator("#nodes h2")).to_have_count(2)
        browser.expect(vera.page.locator("#nodes")).to_contain_text("no packets are sent")
        browser.expect(vera.page.locator("#live")).to_have_text("live")
        assert vera.complaints == []


@pytest.mark.parametrize("phone", [False, True])
def test_axe_finds_nothing_on_these_pages_in_either_language(browser: Chromium, shop: Running, phone: bool) -> None:
    with viewer(browser, shop, language="ru" if phone else "en", dark=phone, phone=phone) as anna:
        for path in (
            ("/customers/42",) if phone else ("/pools", "/customers/42", "/nodes", "/withdrawals", "/money", "/work")
        ):
            anna.go(path)
            assert anna.axe() == [], path
        for path in ("/", "/pools", "/customers/42", "/cases", "/nodes", "/withdrawals", "/money", "/work"):
            anna.go(path)
            assert anna.page.evaluate("document.documentElement.scrollWidth") <= (390 if phone else 1280), path
        assert anna.complaints == []


def test_the_pictures_of_the_documentation_are_taken_of_a_shop_in_trouble(browser: Chromium, shop: Running) -> None:
    with viewer(browser, shop, "support") as sue:
        sue.go("/")
        browser.expect(sue.page.locator(".need", has_text="activation")).to_contain_text("stuck")
        browser.expect(sue.page.locator("#live")).to_have_text("live")
        sue.take_picture("desk")
        sue.go("/actors/node.riga")
        browser.expect(sue.page.locator("#actor-crash")).to_contain_text("ConnectionError")
        sue.take_picture("desk-actor")
    with viewer(browser, shop, "money", dark=True) as mona:
        mona.go("/customers/42")
        mona.take_picture("desk-customer")
    with viewer(browser, shop, "money") as mona:
        mona.go("/money")
        mona.take_picture("desk-money")
    with viewer(browser, shop, "support", dark=True) as sue:
        sue.go("/work")
        sue.take_picture("desk-work")
