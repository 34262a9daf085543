"""`atlas doctor`: what is wrong, and how to mend it."""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Final

import attrs
import click
import httpx
import trio

from actors.commands.database import in_transaction
from actors.desk.admin import AdminSettings
from actors.gateway.gateway import GatewaySettings
from actors.notices.settings import TelegramNoticeSettings
from actors.payments.registry import ADAPTERS, close_providers, open_providers
from actors.payments.settings import PaymentSettings
from actors.payments.telegram_api import TelegramApi
from actors.pool.settings import PoolSettings
from db.schema.migrate import check_schema
from db.tx import Tx
from runtime import AtlasError
from runtime.cli import (
    Finding,
    Seconds,
    Style,
    Styled,
    control_options,
    emit,
    json_option,
    of_configuration,
    of_machine,
    of_python,
    of_system,
    table,
)
from runtime.config import Config, Secret
from runtime.error_text import error_text
from runtime.exit_codes import ATTENTION
from runtime.http import Timeouts, new_client
from vpn.node.settings import NodeSettings

_MOST_SKEW: Final = 2.0
"""Seconds by which our clock and the database's may differ."""
_SPARE: Final = 5
"""Connections of the server that are for others: its superuser, `psql`, these commands."""
_STYLES: Final[dict[str, Style]] = {"wrong": "wrong", "look": "late", "off": "quiet", "well": "good"}


@click.command()
@click.option(
    "--within", type=Seconds(0.1, 60.0), default=5.0, show_default=True, help="Seconds that each may take to answer."
)
@click.option("--all", "whole", is_flag=True, help="Show also what is well.")
@control_options
@json_option
@click.pass_context
def doctor(ctx: click.Context, within: float, whole: bool, as_json: bool) -> None:
    """Look at everything that ATLAS needs, and say what is wrong and how to mend it.

    Python and packages, configuration, disk, limits, clock, the running system, its ports, the database, nodes, payment
    providers and Telegram. It changes nothing. Exit codes: 0 nothing is wrong, 1 something is.
    """
    found = list(of_python())
    told, config = of_configuration(ctx)
    found += told
    if config is not None:
        found += of_machine(config)
        system, runs = of_system(ctx)
        found += system
        if not runs:
            found += _ports(config)
        found += _database(ctx, config)
        found += trio.run(_elsewhere, config, within)
    wrong = sum(one.verdict == "wrong" for one in found)
    data = {"ok": not wrong, "wrong": wrong, "findings": [attrs.asdict(one) for one in found]}
    emit(data, as_json, lambda: _render(found, whole))
    if wrong:
        if not as_json:
            click.echo(f"{wrong} {'thing is' if wrong == 1 else 'things are'} wrong", err=True)
        ctx.exit(ATTENTION)


def _render(found: list[Finding], whole: bool) -> str:
    shown = [one for one in found if whole or one.verdict in ("wrong", "look")]
    counts = ", ".join(f"{sum(one.verdict == verdict for one in found)} {verdict}" for verdict in _STYLES)
    rows = [
        (
            one.about,
            Styled(one.verdict, _STYLES[one.verdict]),
            f"{one.what}; to mend it: {one.mend}" if one.mend else one.what,
        )
        for one in sorted(shown, key=lambda one: list(_STYLES).index(one.verdict))
    ]
    rest = "" if whole else "; `atlas doctor --all` shows all"
    shown_table = table(("about", "is", "what"), rows, notes=True)
    return f"{shown_table}\n\n{counts}{rest}" if rows else f"nothing is wrong: {counts}{rest}"


def _ports(config: Config) -> Iterator[Finding]:
    """Whether what is to listen can: nothing of ours runs."""
    for name, place in (("admin", config.section(AdminSettings)), ("gateway", config.section(GatewaySettings))):
        where = f"{place.host} port {place.port}"
        try:
            family = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family[0], socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(family[4])
        except OSError as error:
            mend = f"set {name}.host to an address of this machine"
            if error.errno == errno.EADDRINUSE:
                mend = f"end what listens there (`ss -ltnp`), or set {name}.port"
            yield Finding(f"{name} port", "wrong", f"cannot listen on {where}: {error.strerror}", mend)
        else:
            yield Finding(f"{name} port", "well", f"{where} is free")


def _database(ctx: click.Context, config: Config) -> Iterator[Finding]:
    async def look(tx: Tx) -> tuple[str, int, datetime]:
        await check_schema(tx)
        row = await tx.fetchrow(
            "SELECT current_setting('server_version') AS version, current_setting('max_connections')::int AS most, "
            "clock_timestamp() AS now"
        )
        assert row is not None, "a row without a table is one row"
        return row["version"], row["most"], row["now"]

    try:
        version, most, now = in_transaction(ctx, "doctor", look)
    except AtlasError as error:
        yield Finding("database", "wrong", str(error), "see database.dsn, and the server's log")
        return
    yield Finding("database", "well", f"PostgreSQL {version}, with the schema of this program")
    apart = abs((datetime.now(UTC) - now).total_seconds())
    if apart > _MOST_SKEW:
        what = f"the database's clock and ours are {apart:.1f} s apart"
        yield Finding("database clock", "wrong", what, "keep both right by NTP: access ends by the database's clock")
    else:
        yield Finding("database clock", "well", f"{apart:.1f} s from ours at most")
    wanted = _connections(config) + _SPARE
    if wanted > most:
        what = f"the pools take {wanted - _SPARE} connections, and the server has {most} for all"
        yield Finding("connections", "wrong", what, "raise max_connections of the server, or lower pool.size")
    else:
        yield Finding("connections", "well", f"{wanted - _SPARE} for the pools, {most} on the server")


def _connections(config: Config) -> int:
    size = config.section(PoolSettings).size
    pools = [plan for plan in config.children if "size" in {field.name for field in attrs.fields(plan.actor)}]
    given = [plan.arguments.get("size") for plan in pools]
    return sum(one if isinstance(one, int) else size for one in given)


async def _elsewhere(config: Config, within: float) -> list[Finding]:
    """Nodes, providers and Telegram, all at the same time."""
    found: list[Finding] = []
    looks: list[tuple[str, str, Callable[[], Awaitable[str]]]] = []
    for name, node in config.keyed(NodeSettings).items():
        if node.url:
            setting = f"see nodes.{name}.url and its token; on its host: `atlas node state`"
            looks.append((f"node {name}", setting, _of_node(name, node)))
        else:
            found.append(Finding(f"node {name}", "off", "embedded: it runs as long as atlas does"))
    payments = config.section(PaymentSettings)
    try:
        providers = open_providers(payments)
    except AtlasError as error:
        return [*found, Finding("payments", "wrong", str(error), "complete the table of this provider, or take it out")]
    for adapter in ADAPTERS:
        settings = getattr(payments, adapter.name)
        if adapter.name not in providers:
            found.append(Finding(f"provider {adapter.name}", "off", "it has no credentials"))
        elif adapter.name == "telegram":
            mend = "see payments.telegram.token_file and url"
            looks.append(("provider telegram", mend, _of_bot(settings.url, settings.token)))
        else:
            mend = f"see payments.{adapter.name}.url, and whether this machine may connect there"
            looks.append((f"provider {adapter.name}", mend, _of_host(settings.url)))
    await close_providers(providers)
    notices = config.section(TelegramNoticeSettings)
    if notices.token:
        looks.append(("telegram", "see telegram.token_file and telegram.url", _of_bot(notices.url, notices.token)))
        if not notices.operator_chat_id:
            what = "operator_chat_id is not set: cases wait in the outbox"
            found.append(Finding("telegram", "look", what, "set telegram.operator_chat_id"))
    else:
        what = "no bot: notices wait in the outbox"
        found.append(Finding("telegram", "look", what, "set telegram.token_file, as BotFather gives it"))

    async def ask(about: str, mend: str, look: Callable[[], Awaitable[str]]) -> None:
        try:
            with trio.fail_after(within):
                found.append(Finding(about, "well", await look()))
        except trio.TooSlowError:
            found.append(Finding(about, "wrong", f"no answer within {within:g} s", mend))
        except (AtlasError, httpx.HTTPError, OSError) as error:
            found.append(Finding(about, "wrong", error_text(error), mend))

    async with trio.open_nursery() as nursery:
        for look in looks:
            nursery.start_soon(ask, *look)
    return found


def _of_node(name: str, node: NodeSettings) -> Callable[[], Awaitable[str]]:
    async def look() -> str:
        async with node.client(name) as client:
            state = await client.state()
            return f"agent {state.agent_version}, {state.count} keys"

    return look


def _of_bot(url: str, token: Secret) -> Callable[[], Awaitable[str]]:
    async def look() -> str:
        api = TelegramApi.of(url, token)
        async with aclosing(api.client):
            await api.demand("getMe", {})
        return "it knows the bot"

    return look


def _of_host(url: str) -> Callable[[], Awaitable[str]]:
    async def look() -> str:
        client = new_client(url, timeouts=Timeouts(connect=60.0, read=60.0, write=60.0))
        async with aclosing(client):
            answer = await client.get("/")
        return f"{httpx.URL(url).host} answers ({answer.status_code})"

    return look
