"""Draws docs/tree.svg, the picture of the tree in the README: `python docs/make_tree_picture.py`.

Every actor of supervisor.toml has its place here, or there is no picture.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

WIDTH, HEIGHT = 960, 560
INK, SOFT, LINE, PAPER = "#1f2933", "#52606d", "#9aa5b1", "#ffffff"
KINDS = {
    "root": "#243b53",
    "pool": "#0f609b",
    "node": "#0b7285",
    "worker": "#2b8a3e",
    "edge": "#7c5e10",
    "child": "#5f3dc4",
}
COLUMN, GAP, TOP, ROW = 176, 12, 150, 44
GROUPS = [
    (
        "the database",
        "pool",
        [
            ("postgres", "embedded server"),
            ("pool.main", "leases for workers"),
            ("pool.gateway", "leases for HTTP"),
            ("instance", "one process, or a standby"),
        ],
    ),
    (
        "nodes",
        "node",
        [
            ("agent", "embedded node, one each"),
            ("node", "calls and breaker, one each"),
            ("reconcile", "nodes have what is wanted"),
            ("canary", "real packets pass"),
        ],
    ),
    (
        "keys",
        "worker",
        [
            ("activation", "what was paid goes live"),
            ("fast_expiry", "what ended is cut"),
            ("usage", "what customers move"),
        ],
    ),
    (
        "money and time",
        "worker",
        [
            ("payment_watcher", "late payments count"),
            ("auto_renewal", "from the balance, once"),
            ("reminders", "before an end"),
            ("housekeeping", "does the money add up?"),
        ],
    ),
    (
        "the outside",
        "edge",
        [
            ("gateway", "payments, shop, links"),
            ("telegram_updates", "payments by polling"),
            ("storefront", "the shop in Telegram"),
            ("notifications", "messages to customers"),
            ("healthcheck", "probes all of it"),
            ("admin", "probes and metrics"),
        ],
    ),
]


def box(x: int, y: int, width: int, title: str, note: str, kind: str, height: int = 52) -> str:
    """A named part of the picture."""
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="{PAPER}" '
        f'stroke="{KINDS[kind]}" stroke-width="1.6"/>'
        f'<text x="{x + width / 2}" y="{y + height / 2 - 4}" class="title" fill="{KINDS[kind]}">{title}</text>'
        f'<text x="{x + width / 2}" y="{y + height / 2 + 13}" class="note">{note}</text>'
    )


def line(x1: int, y1: int, x2: int, y2: int, *, dashed: bool = False) -> str:
    """A connection: solid for supervision, dashed for traffic."""
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    return (
        f'<path d="M{x1} {y1} L{x2} {y2}" stroke="{LINE}" stroke-width="1.6"{dash} fill="none" marker-end="url(#tip)"/>'
    )


def label(x: int, y: int, text: str, anchor: str = "middle") -> str:
    """A remark beside a line."""
    return f'<text x="{x}" y="{y}" class="note" style="text-anchor:{anchor}">{text}</text>'


def picture() -> str:
    """The whole drawing."""
    parts = [
        box(16, 20, 236, "atlas (operator)", "status · kill · buy · revoke · leases …", "edge"),
        box(366, 20, 228, "supervisor", "one trio nursery, one process", "root"),
        box(708, 20, 236, "watchdog thread", "event_loop · worker · healthcheck", "edge"),
        line(252, 46, 362, 46, dashed=True),
        line(708, 46, 598, 46, dashed=True),
        label(307, 38, "unix socket"),
    ]
    for number, (name, kind, actors) in enumerate(GROUPS):
        x = 16 + number * (COLUMN + GAP)
        parts += [line(480, 72, x + COLUMN // 2, TOP - 28), label(x + COLUMN // 2, TOP - 12, name)]
        for row, (title, note) in enumerate(actors):
            parts.append(box(x, TOP + row * (ROW + 8), COLUMN, title, note, kind, ROW))
    below = TOP + 5 * (ROW + 8) + 40
    parts += [
        box(16, below, COLUMN, "PostgreSQL", "truth, queue, ledger", "child"),
        box(204, below, COLUMN, "node agent → Xray", "keys on disk, VLESS", "child"),
        box(392, below, COLUMN + 188, "customers", "VLESS clients made from the printed link", "edge"),
        box(768, below, COLUMN, "providers, Telegram", "HTTP both ways", "edge"),
        line(104, below - 84, 104, below - 4, dashed=True),
        label(112, below - 40, "transactions", "start"),
        line(292, below - 84, 292, below - 4, dashed=True),
        label(300, below - 40, "HTTP", "start"),
        line(856, below - 32, 856, below - 4, dashed=True),
        line(392, below + 26, 384, below + 26, dashed=True),
        label(392, TOP + 3 * (ROW + 8) + 22, "three phases: claim rows,", "start"),
        label(392, TOP + 3 * (ROW + 8) + 40, "ask nodes with no lease held,", "start"),
        label(392, TOP + 3 * (ROW + 8) + 58, "confirm. Killed at any point,", "start"),
        label(392, TOP + 3 * (ROW + 8) + 76, "a purchase ends exactly once.", "start"),
    ]
    style = (
        ".title{font:600 14px system-ui,sans-serif;text-anchor:middle}"
        f".note{{font:12px system-ui,sans-serif;text-anchor:middle;fill:{SOFT}}}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'aria-label="The supervision tree of ATLAS">'
        f"<style>{style}</style>"
        f'<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0 0 L8 4 L0 8 z" fill="{LINE}"/></marker></defs>'
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="14" fill="#f7f9fb"/>' + "".join(parts) + "</svg>\n"
    )


def main() -> None:
    """Write the picture. Raises ValueError if it does not show the tree of supervisor.toml."""
    here = Path(__file__).parent
    declared = set(tomllib.loads((here.parent / "supervisor.toml").read_text(encoding="utf-8"))["actor"])
    drawn = {name for _, _, actors in GROUPS for name, _ in actors}
    if drawn != declared:
        raise ValueError(f"the picture and supervisor.toml differ in {', '.join(sorted(drawn ^ declared))}")
    (here / "tree.svg").write_text(picture(), encoding="utf-8")


if __name__ == "__main__":
    main()
