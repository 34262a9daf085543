"""A shop front end of the tests' own: it signs as the description says, with code of its own."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import httpx
from jsonschema.validators import Draft202012Validator

from actors.shop.description import load_description
from actors.shop.settings import ShopSettings
from runtime.config import Secret
from runtime.http import new_client
from tests.actors.payments.payment_fixtures import Harness, harness

SECRET = "the-front-end-and-the-gateway-know-it"
OTHER_SECRET = "the-next-one-while-keys-are-rotated-0"
KEYS = f"front {SECRET}\nnext {OTHER_SECRET}\n"
_numbers = itertools.count(10**15)


@attrs.define(eq=False)
class Front:
    """A front end, and the harness whose gateway it calls."""

    harness: Harness
    client: httpx.AsyncClient
    last: httpx.Request | None = None

    async def call(
        self, method: str, path: str, body: object = None, *, key: str = "front", secret: str = SECRET, raw: bytes = b""
    ) -> httpx.Response:
        """One signed request."""
        content = raw or (b"" if body is None else json.dumps(body).encode())
        target = f"/shop/v1{path}"
        headers = sign(method, target, content, key=key, secret=secret)
        request = self.client.build_request(method, f"{self.harness.url}{target}", content=content, headers=headers)
        self.last = request
        return await self._checked(request)

    async def ok(self, method: str, path: str, body: object = None) -> Any:
        """One signed request that must succeed."""
        answer = await self.call(method, path, body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def again(self) -> httpx.Response:
        """The last request, byte for byte, as somebody on the way could repeat it."""
        assert self.last is not None
        return await self._checked(self.last)

    async def _checked(self, request: httpx.Request) -> httpx.Response:
        """Send it; the answer must be one that the served description has for it."""
        answer = await self.client.send(request)
        assert_described(request.method, request.url.path.removeprefix("/shop/v1"), answer)
        return answer


def assert_described(method: str, path: str, answer: httpx.Response) -> None:
    """Hold an answer against the description; one to what it does not have must be a problem."""
    document = load_description().document
    responses: dict[str, Any] = {}
    for template, item in document["paths"].items():
        if re.fullmatch(re.sub(r"\{[a-z_]+\}", "[^/]+", template), path):
            responses = item.get(method.lower(), {}).get("responses", {})
    if not responses:
        assert answer.status_code in (404, 405), answer.text
        responses = {str(answer.status_code): {"$ref": "#/components/responses/Unknown"}}
    media = answer.headers["content-type"]
    schema = resolved(document, responses[str(answer.status_code)])["content"][media]["schema"]
    Draft202012Validator({**schema, "components": document["components"]}).validate(answer.json())
    if media == "application/problem+json":
        assert answer.json()["status"] == answer.status_code


def resolved(document: Mapping[str, Any], node: Any) -> Any:
    """What a node, or the place that it refers to, says."""
    while "$ref" in node:
        target: Any = document
        for step in node["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        node = target
    return node


def sign(method: str, target: str, content: bytes, *, key: str = "front", secret: str = SECRET) -> dict[str, str]:
    """The headers of a signed request."""
    stamp, nonce = str(int(time.time())), f"nonce-{next(_numbers)}"
    message = f"{stamp}\n{nonce}\n{method}\n{target}\n".encode() + content
    return {
        "X-Atlas-Key": key,
        "X-Atlas-Timestamp": stamp,
        "X-Atlas-Nonce": nonce,
        "X-Atlas-Signature": hmac.new(secret.encode(), message, hashlib.sha256).hexdigest(),
        "Content-Type": "application/json",
    }


@asynccontextmanager
async def front(dsn: str) -> AsyncIterator[Front]:
    """A front end beside a running gateway; at the end every money invariant must hold."""
    shop = ShopSettings(keys=Secret(KEYS), public_url="https://vpn.example", announce="Работы в пятницу")
    async with harness(dsn, shop=shop) as here, new_client() as client:
        yield Front(here, client)
