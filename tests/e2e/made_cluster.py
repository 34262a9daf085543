"""An embedded database that was made and migrated once for all installations of a test run that do not test how it is made."""

from __future__ import annotations

import shutil
import signal
import tempfile
from pathlib import Path

import trio

from db.driver.session import open_session
from db.embedded import EmbeddedSettings, embedded_dsn, layout_of, prepare
from db.schema.migrate import migrate

_made: dict[str, Path] = {}
"""By purpose: the root of an installation that has been stopped in order."""


async def copy_cluster(data_dir: Path, purpose: str) -> None:
    """Put a database with the current schema, created for this purpose, into an installation that was never started."""
    layout = layout_of(EmbeddedSettings(data_dir=data_dir))
    layout.home.mkdir(parents=True)
    if purpose not in _made:
        _made[purpose] = await _make(purpose)
    made = layout_of(_settings(_made[purpose]))
    await trio.run_process(["cp", "--archive", str(made.data), str(layout.data)])


def remove_clusters() -> None:
    """Remove what was made; for the end of the run."""
    while _made:
        shutil.rmtree(_made.popitem()[1], ignore_errors=True)


async def _make(purpose: str) -> Path:
    root = Path(tempfile.mkdtemp(prefix="atlas-e2e-"))
    root.chmod(0o755)
    settings = _settings(root)
    cluster = await prepare(settings)
    server = cluster.start()
    assert server.stderr is not None
    try:
        await cluster.until_ready(server)
        async with open_session(embedded_dsn(settings), "atlas/test", within=60.0) as session:
            await migrate(session.statements, purpose=purpose)
    finally:
        with trio.CancelScope(shield=True):
            await server.stop(signal.SIGINT, grace=60)
            await server.close()
    return root


def _settings(root: Path) -> EmbeddedSettings:
    return EmbeddedSettings(data_dir=root / "data")
