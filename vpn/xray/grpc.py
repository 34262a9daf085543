"""gRPC calls to Xray over its Unix socket, by httpx and HTTP/2."""

from __future__ import annotations

import struct
from typing import Final
from urllib.parse import unquote

import attrs
import httpx
import trio

from vpn.errors import XrayCallFailed
from vpn.http import Timeouts, new_client

UNIMPLEMENTED: Final = 12
_FRAME: Final = struct.Struct(">?I")
_HEADERS: Final = {"content-type": "application/grpc", "te": "trailers"}


@attrs.define(eq=False)
class GrpcChannel:
    """A connection to one gRPC server on a Unix socket. Use one per life of Xray, and `aclose` it after.

    A call is over within `within` seconds (default 5) or raises XrayCallFailed.
    """

    path: str
    within: float = 5.0
    _client: httpx.AsyncClient = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._client = new_client(
            "http://xray",
            headers=_HEADERS,
            uds=self.path,
            http2_only=True,
            timeouts=Timeouts(self.within, self.within, self.within, self.within),
            max_connections=1,
        )

    async def call(self, method: str, message: bytes) -> bytes:
        """Call `/package.Service/Method` and return the answer's message.

        Raises XrayCallFailed with the server's own words and status, or with code -1 if no whole answer came: an
        absent status together with an incomplete message is a failure, never an empty answer.
        """
        name = method.rpartition("/")[2]
        body = _FRAME.pack(False, len(message)) + message
        try:
            with trio.fail_after(self.within):
                response = await self._client.post(method, content=body)
        except (httpx.HTTPError, trio.TooSlowError) as error:
            raise XrayCallFailed(f"{name}: no answer from Xray ({type(error).__name__})") from error
        status = response.headers.get("grpc-status")
        if status not in (None, "0"):
            text = unquote(response.headers.get("grpc-message", ""))
            raise XrayCallFailed(f"{name}: {text or 'no reason given'}", _status(status))
        data = response.content
        if response.status_code != 200 or len(data) < _FRAME.size:
            raise XrayCallFailed(
                f"{name}: an incomplete answer from Xray (HTTP {response.status_code}, {len(data)} bytes)"
            )
        compressed, size = _FRAME.unpack_from(data)
        if compressed or len(data) != _FRAME.size + size:
            raise XrayCallFailed(f"{name}: an answer from Xray that cannot be read ({len(data)} bytes)")
        return data[_FRAME.size :]

    async def aclose(self) -> None:
        """Close the connection."""
        await self._client.aclose()


def _status(text: str) -> int:
    return int(text) if text.isdecimal() else 2
