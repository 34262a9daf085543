"""The subscription link: a customer's program gets what works now, in its own form; nobody else gets anything."""

from __future__ import annotations

import base64
from functools import partial

import httpx
import yaml

from db.access.subscriptions import mark_revoked
from db.keys.nodes import register_node
from db.tx import Tx
from tests.actors.shop.front import Front, front
from tests.actors.shop.test_operations import ME, PLAN, fund
from vpn.link import parse_link
from vpn.subscription import Format, NoAccess

HAPP = {"user-agent": "Happ/1.0"}


async def bought(here: Front) -> str:
    """A customer with a running subscription whose key is on a node; their link's path."""
    await fund(here, 20000)
    await here.ok("POST", f"{ME}/purchases", {**PLAN, "price": 14900, "idempotency_key": "a"})

    await add_node(here, "oslo", "192.0.2.1")
    path: str = (await here.ok("GET", f"{ME}/link"))["subscription_path"]
    return path


async def get(here: Front, path: str, **headers: str) -> httpx.Response:
    return await here.client.get(
        f"{here.harness.url}{path}", headers={k.replace("_", "-"): v for k, v in headers.items()}
    )


async def test_each_program_gets_its_form_and_every_answer_says_the_end(database_dsn: str) -> None:
    async with front(database_dsn) as here:
        path = await bought(here)
        links = (await here.ok("GET", f"{ME}/link"))["links"]
        assert len(links) == 1 and links[0].startswith("vless://")
        listed = await get(here, path, user_agent="v2rayNG/1.9")
        assert base64.b64decode(listed.content).decode().splitlines() == links
        end = int(await here.harness.value("SELECT floor(extract(epoch FROM expires_at))::bigint FROM subscriptions"))  # type: ignore[call-overload]
        assert listed.headers["subscription-userinfo"] == f"upload=0; download=0; total=0; expire={end}"
        assert listed.headers["profile-web-page-url"] == f"https://vpn.example{path}"
        assert base64.b64decode(listed.headers["announce"].removeprefix("base64:")).decode() == "Работы в пятницу"
        clash = yaml.safe_load((await get(here, path, user_agent="mihomo/1.19")).content)
        assert clash["proxies"][0]["server"] == "192.0.2.1"
        box = (await get(here, f"{path}/singbox")).json()
        assert any(outbound.get("server") == "192.0.2.1" for outbound in box["outbounds"])
        page = await get(here, path, user_agent="Mozilla/5.0", accept="text/html")
        assert page.headers["content-type"].startswith("text/html") and "content-disposition" not in page.headers
        assert page.headers["cache-control"] == "no-store"


async def add_node(here: Front, name: str, host: str, **facts: str) -> None:
    """One more node, which has the customer's key."""

    async def add(tx: Tx) -> None:
        public = {"tag": "vless", "host": host, "port": 443, "network": "tcp", "security": "none", **facts}
        await register_node(tx, name, public, inbounds=["vless"])
        await tx.execute(
            """
            INSERT INTO key_placements (key_id, node_id, applied, applied_generation, applied_at)
            SELECT k.id, n.id, 'present', k.generation, atlas_now() FROM vpn_keys k, vpn_nodes n WHERE n.name = $1
            ON CONFLICT (key_id, node_id) DO UPDATE SET applied = 'present', applied_generation = excluded.applied_generation
            """,
            name,
        )

    await here.harness.run(add)


async def test_a_node_that_a_program_cannot_use_is_left_out_for_it_alone_and_it_is_told(database_dsn: str) -> None:
    async with front(database_dsn) as here:
        path = await bought(here)
        await add_node(here, "riga", "192.0.2.2", network="xhttp")
        await add_node(here, "bonn", "192.0.2.3", security="reality", sni="a.example", public_key="A" * 43)
        for program, nodes in {"v2rayNG/1.9": "123", "Shadowrocket/2070 CFNetwork/1490": "12"}.items():
            text = decoded(await get(here, path, user_agent=program))
            assert [number for number in "123" if f"192.0.2.{number}" in text] == list(nodes), program
        for program, nodes in {"mihomo/1.19": "13", "SFA/1.12": "1"}.items():
            text = (await get(here, path, user_agent=program)).text
            assert [number for number in "123" if f"192.0.2.{number}" in text] == list(nodes), program
        # whoever asks for a form by its name gets what the form can say
        asked = decoded(await get(here, f"{path}/base64", user_agent="Shadowrocket/2070"))
        assert "192.0.2.3" in asked

        async def close(tx: Tx, *names: str) -> None:
            await tx.execute(
                "DELETE FROM key_placements USING vpn_nodes n WHERE n.id = node_id AND n.name = any($1)", names
            )

        await here.harness.run(close, "oslo", "riga")
        said = NoAccess.OTHER_APP.text("ru")
        assert (await get(here, path, user_agent="SFA/1.12")).json()["route"]["final"] == said
        assert (
            parse_link(decoded(await get(here, path, user_agent="NekoBox/Android/1.3.4 (Prefer ClashMeta)"))).name
            == said
        )
        assert "192.0.2.3" in (await get(here, path, user_agent="mihomo/1.19")).text
        await add_node(here, "riga", "192.0.2.2", network="xhttp")
        await here.harness.run(close, "bonn")
        [group] = yaml.safe_load((await get(here, path, user_agent="mihomo/1.19")).content)["proxy-groups"]
        assert group == {"name": said, "type": "select", "proxies": ["REJECT"]}
        assert (await get(here, path, user_agent="Mozilla/5.0", accept="text/html")).status_code == 200


def decoded(answer: httpx.Response) -> str:
    """The links of a Base64 list."""
    return base64.b64decode(answer.content, validate=True).decode()


async def test_a_wrong_token_and_a_wrong_form_get_the_same_nothing(database_dsn: str) -> None:
    async with front(database_dsn) as here:
        path = await bought(here)
        for wrong in ("/s/x", f"/s/{'A' * 32}", path[:-1], path + "x", "/s/" + "é" * 8, "/s/" + "a" * 500):
            answer = await get(here, wrong, **HAPP)
            assert (answer.status_code, answer.text) == (404, "there is no such subscription\n"), wrong
        assert (await get(here, f"{path}/flash")).status_code == 404


async def test_a_reset_link_is_void_and_the_new_one_works(database_dsn: str) -> None:
    async with front(database_dsn) as here:
        old = await bought(here)
        new = (await here.ok("DELETE", f"{ME}/link"))["subscription_path"]
        assert (await get(here, old)).status_code == 404
        assert (await get(here, new)).status_code == 200


async def test_without_a_right_to_access_every_form_leads_nowhere_and_says_why(database_dsn: str) -> None:
    async with front(database_dsn) as here:
        await fund(here, 20000)
        path = (await here.ok("GET", f"{ME}/link"))["subscription_path"]
        await expect_dead_end(here, path, NoAccess.NO_SUBSCRIPTION)
        await here.ok("POST", f"{ME}/purchases", {**PLAN, "price": 14900, "idempotency_key": "a"})
        await expect_dead_end(here, path, NoAccess.ACTIVATING)
        await add_node(here, "oslo", "192.0.2.1")
        assert "192.0.2.1" in decoded(await get(here, path, **HAPP))
        await here.harness.move_clock(days=31)
        await expect_dead_end(here, path, NoAccess.EXPIRED)
        assert "expire=0" not in (await get(here, path, **HAPP)).headers["subscription-userinfo"]
        await here.harness.run(partial(mark_revoked, telegram_id=1001, actor="test"))
        await expect_dead_end(here, path, NoAccess.REVOKED)


async def expect_dead_end(here: Front, path: str, why: NoAccess) -> None:
    """Every form leads nowhere and says why in its name, and the announcement says it too."""
    said = why.text("ru")
    for form in Format:
        answer = await get(here, f"{path}/{form.value}")
        assert answer.status_code == 200, form
        assert decoded_header(answer.headers["announce"]) == said, form
        assert answer.headers["profile-update-interval"] == "1", "the soonest that programs know"
        assert "192.0.2.1" not in answer.text, form
    link = parse_link(decoded(await get(here, path, **HAPP)))
    assert (link.host, link.port, link.name) == ("127.0.0.1", 1, said)
    [group] = yaml.safe_load((await get(here, f"{path}/clash")).content)["proxy-groups"]
    assert (group["name"], group["proxies"]) == (said, ["REJECT"])
    assert (await get(here, f"{path}/singbox")).json()["route"]["final"] == said
    assert [config["remarks"] for config in (await get(here, f"{path}/xray")).json()] == [said]
    assert said in (await get(here, f"{path}/html")).text


def decoded_header(value: str) -> str:
    """The text of a header in Base64."""
    return base64.b64decode(value.removeprefix("base64:")).decode()
