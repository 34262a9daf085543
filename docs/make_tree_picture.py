"""Draws docs/tree.svg, the picture of the tree in the README: `python docs/make_tree_picture.py`."""

from __future__ import annotations

from pathlib import Path

WIDTH, HEIGHT = 960, 470
INK, SOFT, LINE, PAPER = "#1f2933", "#52606d", "#9aa5b1", "#ffffff"
KINDS = {
    "root": "#243b53",
    "pool": "#0f609b",
    "node": "#0b7285",
    "worker": "#2b8a3e",
    "edge": "#7c5e10",
    "child": "#5f3dc4",
}


def box(x: int, y: int, width: int, title: str, note: str, kind: str) -> str:
    """A named part of the picture."""
    height = 52
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="9" fill="{PAPER}" stroke="{KINDS[kind]}" stroke-width="2"/>'
        f'<text x="{x + width / 2}" y="{y + 22}" class="title" fill="{KINDS[kind]}">{title}</text>'
        f'<text x="{x + width / 2}" y="{y + 40}" class="note">{note}</text>'
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
    actors = [
        (20, "postgres", "embedded server", "pool"),
        (140, "pool.main", "leases", "pool"),
        (260, "agent.local", "embedded node", "node"),
        (380, "node.local", "calls, breaker", "node"),
        (500, "activation", "keys go live", "worker"),
        (620, "fast_expiry", "keys are cut", "worker"),
        (740, "healthcheck", "probes", "worker"),
        (860, "admin", "probes, metrics", "edge"),
    ]
    parts = [box(370, 20, 220, "supervisor", "one trio nursery, one process", "root")]
    parts += [box(700, 20, 240, "watchdog thread", "event_loop · worker · healthcheck", "edge")]
    parts += [line(700, 46, 594, 46, dashed=True)]
    parts += [
        box(20, 20, 240, "atlas (operator)", "status · kill · buy · revoke …", "edge"),
        line(260, 46, 366, 46, dashed=True),
    ]
    parts += [label(313, 38, "unix socket")]
    for x, title, note, kind in actors:
        parts += [line(480, 72, x + 40, 136), box(x - 16, 140, 112, title, note, kind)]
    parts += [
        box(40, 290, 220, "PostgreSQL", "truth, queue, ledger", "child"),
        box(300, 290, 200, "node agent", "keeps the keys on disk", "child"),
        box(300, 390, 200, "Xray", "VLESS", "child"),
        box(700, 390, 240, "customer", "a VLESS client made from the link", "edge"),
        line(44, 192, 100, 286),
        line(180, 192, 160, 286, dashed=True),
        line(300, 192, 360, 286),
        line(420, 192, 410, 286, dashed=True),
        line(400, 342, 400, 386),
        line(700, 416, 504, 416, dashed=True),
        label(602, 408, "packets"),
        label(176, 240, "leases", "start"),
        label(426, 240, "HTTP", "start"),
        label(560, 252, "activation and fast_expiry, in three phases:", "start"),
        label(560, 272, "claim rows → ask the node, no lease held → confirm", "start"),
        label(560, 292, "killed at any point, a purchase ends exactly once", "start"),
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


if __name__ == "__main__":
    Path(__file__).with_name("tree.svg").write_text(picture())
