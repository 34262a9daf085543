"""The subscription link: a customer's program gets what works now, in its own form; nobody else gets anything."""

from __future__ import annotations

import base64

import httpx
import yaml

from db.keys.nodes import register_node
from db.tx import Tx
from tests.actors.shop.front import Front, front
from tests.actors.shop.test_operations import ME, PLAN, fund

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


async def test_a_node_that_a_form_has_no_words_for_is_left_out_of_that_form_alone(database_dsn: str) -> None:
    async with front(database_dsn) as here:
        path = await bought(here)
        await add_node(here, "riga", "192.0.2.2", network="xhttp")
        listed = base64.b64decode((await get(here, path, user_agent="v2rayNG/1.9")).content).decode()
        assert "192.0.2.1" in listed and "192.0.2.2" in listed
        for program in ("mihomo/1.19", "SFA/1.12"):
            answer = await get(here, path, user_agent=program)
            assert answer.status_code == 200, program
            assert "192.0.2.1" in answer.text and "192.0.2.2" not in answer.text, program

        async def close(tx: Tx) -> None:
            await tx.execute("DELETE FROM key_placements USING vpn_nodes n WHERE n.id = node_id AND n.name = 'oslo'")

        await here.harness.run(close)
        assert (await get(here, path, user_agent="mihomo/1.19")).status_code == 406
        assert (await get(here, path, user_agent="Mozilla/5.0", accept="text/html")).status_code == 200


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


async def test_an_ended_subscription_says_so_and_has_no_links(database_dsn: str) -> None:
    async with front(database_dsn) as here:
        path = await bought(here)
        await here.harness.move_clock(days=31)
        answer = await get(here, path, **HAPP)
        assert answer.status_code == 200 and base64.b64decode(answer.content) == b""
        assert "expire=0" not in answer.headers["subscription-userinfo"]
        assert (await get(here, f"{path}/html")).status_code == 200
