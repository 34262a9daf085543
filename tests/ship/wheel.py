"""Building the wheel without a network, and an environment that has it and what is locked, and nothing else."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.e2e.stack import REPOSITORY

_LOCKED = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s;]+)", re.MULTILINE)


def build_wheel(root: Path, source: Path = REPOSITORY) -> Path:
    """The wheel of this source; nothing is fetched for it."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(root)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (wheel,) = root.glob("*.whl")
    return wheel


def new_environment(place: Path, wheel: Path) -> Path:
    """A new virtual environment with this wheel and the packages of run.lock; returns its directory of programs.

    The packages are those that are installed here, file by file: a machine without a registry has no others.
    """
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    site = next((place / "lib").glob("python3*")) / "site-packages"
    for name, version in _LOCKED.findall((REPOSITORY / "requirements" / "run.lock").read_text()):
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # locked for other systems
        assert found.version == version, f"{name} {found.version} is installed, and {version} is locked"
        for file in found.files or ():
            if ".." not in file.parts and (source := Path(str(file.locate()))).is_file():
                _share(source, site / file)
    python = place / "bin" / "python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "install", "--no-index", "--no-deps", str(wheel)], check=True)
    subprocess.run([*pip, "check"], check=True, capture_output=True)
    return place / "bin"


def _share(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
