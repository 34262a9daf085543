"""The command `atlas tunnel`: a local proxy through a VLESS link, or one page fetched through it."""

from __future__ import annotations

import json
import signal
import sys
from functools import partial

import click
import trio

from runtime import unwrap_group
from runtime.cli import Seconds
from vpn.errors import TunnelError
from vpn.link import VlessLink, parse_link
from vpn.xray.tunnel import open_tunnel


@click.command()
@click.argument("link")
@click.option("--socks", type=click.IntRange(0, 65535), default=0, help="Port of the local proxy; 0 chooses one.")
@click.option("--fetch", "url", help="Fetch this page through the tunnel, print it, and end.")
@click.option("--mux", type=click.IntRange(0, 1024), default=0, help="Carry this many streams in one connection.")
@click.option("--within", type=Seconds(0.1, 3600), default=15.0, show_default=True, help="Seconds for --fetch.")
def tunnel(link: str, socks: int, url: str | None, mux: int, within: float) -> None:
    """Open a tunnel from a VLESS LINK alone ("-": read it from standard input, where no process list shows it).

    Offers SOCKS5 and HTTP on 127.0.0.1 until Ctrl-C. With --fetch, prints the page and exits with 0, or with 69 and the
    reason.
    """
    text = sys.stdin.readline() if link == "-" else link
    trio.run(partial(_tunnel, parse_link(text), socks, url, mux, within))


async def _tunnel(link: VlessLink, socks: int, url: str | None, mux: int, within: float) -> None:
    try:
        async with open_tunnel(link, port=socks, mux=mux) as opened:
            if url is None:
                await _offer(opened.port)
                return
            page = await opened.fetch(url, within=within)
    except BaseExceptionGroup as group:
        raise unwrap_group(group) from None
    if page.status >= 400:
        raise TunnelError(f"the tunnel works, but the page answered with HTTP {page.status}")
    sys.stdout.buffer.write(page.body)
    sys.stdout.flush()


async def _offer(port: int) -> None:
    # listening for signals first: the reader of the line may ask for the end at once
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        click.echo(json.dumps({"socks": f"127.0.0.1:{port}", "http": f"http://127.0.0.1:{port}"}))
        sys.stdout.flush()
        async for _ in signals:
            return
