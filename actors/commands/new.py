"""`atlas new actor NAME`: a package of one's own, outside of this repository, that runs as it is."""

from __future__ import annotations

import keyword
import re
import sys
from pathlib import Path

import click

from runtime.cli import emit, json_option

_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")

ACTOR = '''"""Looks at web pages now and then, and keeps what it saw in a table of its own."""

from __future__ import annotations

import attrs
import httpx

from actors.pool import Pool, pool_of
from db import LeaseError, Tx
from runtime import Actor, Backoff, Control, Request, SpawnOptions, get_logger, handler
from runtime.http import new_client, reason_of

log = get_logger("NAME")
QUICKLY = SpawnOptions(backoff=Backoff(initial=0.1, maximum=1.0))  # how soon a child that crashed comes back


@attrs.frozen
class Watch(Request[str]):
    """Look at this page from now on. Answered with the name of the actor that does."""

    page: str
    url: str


@attrs.frozen
class CountLooks(Request[int]):
    """How often pages were looked at, in all."""


@attrs.frozen
class Look(Control):
    """It is time."""


async def note_look(tx: Tx, page: str, status: int | None) -> None:
    await tx.execute("INSERT INTO NAME.looks (page, status) VALUES ($1, $2)", page, status)


async def count_looks(tx: Tx) -> int:
    return int(await tx.fetchval("SELECT count(*) FROM NAME.looks"))


@attrs.define(eq=False)
class CLASS(Actor):
    """Role: has one child for each page. Owns: the table NAME.looks. On crash: pages are to be named anew."""

    every: float = 60.0
    pool: str = "pool.main"

    @handler
    async def watch(self, message: Watch) -> str:
        page = Page(message.page, message.url, self.every, self.pool)
        return (await self.context.spawn(page, name=message.page, options=QUICKLY)).name

    @handler
    async def count(self, _: CountLooks) -> int:
        return await pool_of(self.context, self.pool).run("NAME.count", count_looks)


@attrs.define(eq=False)
class Page(Actor):
    """Role: looks at one page. On crash: the next incarnation looks at once."""

    page: str
    url: str
    every: float
    pool: str
    last: str = attrs.field(init=False, default="not yet")

    async def on_start(self) -> None:
        self.context.every(self.every, Look(), first=0.0)

    @handler
    async def look(self, _: Look) -> None:
        status: int | None = None
        try:
            async with new_client() as client:  # no connection of the database is held meanwhile
                status = (await client.get(self.url)).status_code
            self.last = str(status)
        except httpx.HTTPError as error:  # a page that cannot be had is no crash of ours
            self.last = reason_of(error)
        pool: Pool = pool_of(self.context, self.pool)
        try:
            await pool.run("NAME.note", note_look, self.page, status)
        except LeaseError as error:
            log.warning("a look is not noted", why=str(error))

    def inspect(self) -> dict[str, object]:
        return {"url": self.url, "last": self.last}
'''

TABLE = """-- Applied once, after the tables of ATLAS, in the schema NAME. A released file is never edited: add 0002_….sql.
CREATE TABLE looks (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at     timestamptz NOT NULL DEFAULT now(),
    page   text NOT NULL,
    status integer
);
"""

TREE = """[supervisor]
name = "NAME"

[control]
socket = "atlas.sock"

[database]
packages = ["NAME"]      # its folder `migrations` is applied at the start
# dsn_file = "…": a server of your own; without one, an embedded PostgreSQL runs below

[embedded]
data_dir = ".atlas"

[actor.postgres]
actor = "actors.pool.embedded_postgres:EmbeddedPostgres"
start_timeout = 60.0
shutdown = 8.0

[actor."pool.main"]
actor = "actors.pool.pool:PoolActor"
needs = ["postgres"]

[actor.NAME]
actor = "NAME.actor:CLASS"
needs = ["pool.main"]
give_up = "park"         # what it gets wrong is no reason to stop the others
args = { every = 60.0 }
"""

TEST = '''"""The actor as it runs: with a real database below it, and a real page."""

from __future__ import annotations

from pathlib import Path

import trio

from NAME.actor import CountLooks, Look, Watch
from runtime.testing import running_tree

PAGE = b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\nconnection: close\\r\\n\\r\\nhi"


async def serve(stream: trio.SocketStream) -> None:
    await stream.receive_some(65536)
    await stream.send_all(PAGE)
    await stream.aclose()


async def test_a_page_is_looked_at_and_the_look_is_kept() -> None:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        port = listeners[0].socket.getsockname()[1]
        async with running_tree(Path(__file__).parent.parent / "supervisor.toml") as tree:
            actor = tree.ref("NAME")
            before = await actor.ask(CountLooks(), within=30)
            assert await actor.ask(Watch("home", f"http://127.0.0.1:{port}/"), within=5) == "NAME.home"
            tree.ref("NAME.home").tell(Look())
            while await actor.ask(CountLooks(), within=30) < before + 2:
                await trio.lowlevel.checkpoint()
            assert tree.ref("NAME.home").address.inspect()["actor"] == {
                "url": f"http://127.0.0.1:{port}/", "last": "200"
            }
        nursery.cancel_scope.cancel()
'''

PROJECT = """[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "NAME"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["atlas"]

[tool.hatch.build.targets.wheel]
packages = ["NAME"]

[tool.pytest.ini_options]
trio_mode = true
pythonpath = ["."]
"""

README = """# NAME

An actor of its own beside ATLAS: `NAME/actor.py`, a table of its own in `NAME/migrations/`, and a test.

    export PYTHONPATH=.      # or: pip install -e .
    atlas check
    atlas run                # in a second terminal go on:
    atlas ask NAME Watch '{"page": "home", "url": "https://example.org/"}'
    atlas ask NAME CountLooks
    atlas status             # NAME.home stands below NAME
    atlas inspect NAME.home
    atlas kill NAME.home     # it comes back
    atlas ask NAME Watch '{"page": "bad", "url": "http://127.0.0.1:port/"}'
    atlas crashes NAME.bad   # a defect of this actor: file and line

    pytest

In an installation that runs already, add the tables `[actor.NAME]` and `packages = ["NAME"]` of `supervisor.toml` to its own.
What an actor may use are the names that `runtime`, `runtime.http`, `runtime.testing`, `db` and `actors.pool` export.
"""

FILES = {
    "NAME/__init__.py": '"""An actor of its own beside ATLAS."""\n',
    "NAME/actor.py": ACTOR,
    "NAME/migrations/0001_begin.sql": TABLE,
    "tests/test_NAME.py": TEST,
    "supervisor.toml": TREE,
    "pyproject.toml": PROJECT,
    "README.md": README,
}
"""By their places in the new folder; NAME and CLASS stand for the names."""


@click.group()
def new() -> None:
    """Begin something of your own."""


@new.command("actor")
@click.argument("name")
@json_option
@click.pass_context
def actor(ctx: click.Context, name: str, *, as_json: bool) -> None:
    """Make a folder NAME with a package: an actor, a table of its own, a test, and how to run them.

    Existing files are not touched: the folder must not exist.
    """
    if not _NAME.fullmatch(name) or keyword.iskeyword(name) or name in sys.stdlib_module_names or name in _TAKEN:
        raise click.UsageError(
            f"{name!r} cannot name the package and its schema: lower-case letters, digits and _, and no name that Python, "
            "PostgreSQL or ATLAS has",
            ctx,
        )
    folder = Path(name)
    if folder.exists():
        raise click.UsageError(f"{folder} exists already; nothing was written", ctx)
    made = {path: _filled(text, name) for path, text in FILES.items()}
    for path, text in made.items():
        file = folder / _filled(path, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    written = [str(folder / _filled(path, name)) for path in made]
    emit({"files": written}, as_json, lambda: "\n".join([*written, f"next: cd {name}, and see README.md"]))


def _filled(text: str, name: str) -> str:
    return text.replace("NAME", name).replace("CLASS", "".join(part.capitalize() for part in name.split("_")))


_TAKEN = frozenset(
    {"actors", "db", "runtime", "vpn", "demo", "simulators", "public", "information_schema", "atlas_packages"}
)
