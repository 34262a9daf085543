"""A shop's front end: it signs each request as the interface's description says, with code of its own."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from typing import Any, Final

import attrs
import httpx

from demo.errors import DemoFailed

PREFIX: Final = "/shop/v1"


class Declined(DemoFailed):
    """The shop answered with a problem."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status


@attrs.frozen
class FrontEnd:
    """A front end with its key at a gateway."""

    http: httpx.AsyncClient
    url: str
    name: str
    secret: str = attrs.field(repr=False)

    async def ask(self, method: str, path: str, body: dict[str, object] | None = None) -> dict[str, Any]:
        """One operation. Raises Declined for any answer but 2xx, and httpx.HTTPError without an answer."""
        target = PREFIX + path
        content = b"" if body is None else json.dumps(body).encode()
        stamp, nonce = str(int(time.time())), secrets.token_urlsafe(24)
        signed = f"{stamp}\n{nonce}\n{method}\n{target}\n".encode() + content
        headers = {
            "x-atlas-key": self.name,
            "x-atlas-timestamp": stamp,
            "x-atlas-nonce": nonce,
            "x-atlas-signature": hmac.new(self.secret.encode(), signed, hashlib.sha256).hexdigest(),
        }
        if body is not None:
            headers["content-type"] = "application/json"
        response = await self.http.request(method, self.url + target, content=content, headers=headers)
        if not response.is_success:
            raise Declined(response.status_code, response.text[:300])
        found = response.json()
        assert isinstance(found, dict)
        return found

    async def customer(
        self, telegram_id: int, method: str, path: str = "", body: dict[str, object] | None = None
    ) -> Any:
        """One operation about a customer."""
        return await self.ask(method, f"/customers/{telegram_id}{path}", body)
