"""Find the configuration file, and make a checked Config of it and the environment, or a list of all that is wrong with
them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runtime.config.config import Config
from runtime.config.config_file import RawConfig, dotted, parse_raw_config, read_raw_config
from runtime.config.environment import alias_targets, apply_environment
from runtime.config.errors import ConfigErrors
from runtime.config.key_lines import KeyPath
from runtime.config.operators import OperatorSettings, check_operators
from runtime.config.runtime_sections import (
    OWN_SECTIONS,
    OWN_TABLES,
    ChaosSettings,
    ControlSettings,
    LogSettings,
    SupervisorSettings,
    WatchdogSettings,
)
from runtime.config.section import section_of
from runtime.config.section_reader import SectionReader
from runtime.config.table import field_types, unknown_key
from runtime.errors import ConfigError
from runtime.restart_limits import Backoff
from runtime.wording import did_you_mean, nearest

if TYPE_CHECKING:
    from runtime.config.plan_reader import PlanReader
    from runtime.config.tree import DeclaredTree

CONFIG_VARIABLE: Final = "ATLAS_CONFIG"
CONFIG_FILE: Final = "supervisor.toml"


def find_config(given: Path | None, env: Mapping[str, str], directory: Path | None = None) -> Path:
    """The file to load: `given`, else $ATLAS_CONFIG, else ./supervisor.toml, else, in a checkout of the source, the one beside
    the packages.

    A file that was asked for is returned even if it does not exist (loading it says so). Raises ConfigError when none was
    asked for and none is found.
    """
    if given is not None:
        return given
    if env.get(CONFIG_VARIABLE):
        return Path(env[CONFIG_VARIABLE])
    here = (directory or Path.cwd()) / CONFIG_FILE
    shipped = Path(__file__).resolve().parents[2] / CONFIG_FILE
    for candidate in (here, shipped):
        if candidate.is_file():
            return candidate
    raise ConfigError(
        f"there is no configuration: {here} does not exist; `atlas init` writes one here, --config FILE or {CONFIG_VARIABLE} "
        "names another"
    )


def load(path: Path, env: Mapping[str, str] | None = None) -> Config:
    """Read, merge and check a configuration; imports the classes of the declared actors and needs nothing else.

    `env` defaults to the process's environment. Raises ConfigErrors (exit code 78) with every error at once.
    """
    return _load(read_raw_config(path), os.environ if env is None else env)


def load_text(text: str, env: Mapping[str, str] | None = None, *, path: Path = Path("supervisor.toml")) -> Config:
    """Like `load`, for a text at hand; `path` is what errors name and secret files are relative to. `env` is empty."""
    return _load(parse_raw_config(text, path), env or {})


def load_control(path: Path, env: Mapping[str, str] | None = None) -> Config:
    """Only what is needed to reach a running system: `[supervisor]` and `[control]`. Imports no actor.

    Errors elsewhere in the file are ignored, so that an operator can reach a system whose file is being edited.
    """
    env = os.environ if env is None else env
    source = read_raw_config(path)
    apply_environment(source, env)
    source.problems.clear()
    sections = SectionReader(source, env)
    supervisor, control = sections.section(SupervisorSettings), sections.section(ControlSettings)
    _raise(source)
    return Config(path=path, data_dir=source.data_dir, supervisor=supervisor, control=control)


def load_sections(path: Path, *classes: type, env: Mapping[str, str] | None = None) -> Config:
    """Only the operators and the sections of these settings classes, for a command that needs no actor: it imports none.

    `env` defaults to the process's environment. What is wrong with other tables of the file is not looked at, so that an operator
    can use the database of a system whose file is being edited. What could have been meant for one of these sections, or was
    set in the environment for a table that the file does not have, has the whole configuration checked as `load` does.

    Raises ConfigErrors (exit code 78) with every error at once.
    """
    env = os.environ if env is None else env
    source = read_raw_config(path)
    known = source.data.keys() | OWN_TABLES
    apply_environment(source, env)
    sections = SectionReader(source, env)
    for cls in classes:
        sections.section(cls)
    operators = _operators(source, sections)
    wanted = {mark.name for mark in map(section_of, classes) if mark is not None}
    others = source.data.keys() - wanted
    if source.problems or others - known or any(nearest(name, wanted) for name in others):
        return load(path, env)
    return Config(
        path=path,
        data_dir=source.data_dir,
        operators=operators,
        secrets=source.secrets,
        sections=sections.read,
        read_section=sections.section_or_raise,
    )


def _load(source: RawConfig, env: Mapping[str, str]) -> Config:
    # Here alone, since they import the runtime's actors: a command that looks at the running system needs none of it.
    from runtime.config.plan_reader import PlanReader
    from runtime.config.tree import check_against_supervisor

    apply_environment(source, env)
    sections = SectionReader(source, env)
    for cls in OWN_SECTIONS:
        sections.section(cls)
    operators = _operators(source, sections)
    actors = PlanReader(source, sections, env)
    actors.read_tables()
    sections.read_all(actors.claims())
    tree = actors.plans()
    if SupervisorSettings not in sections.wrong:
        check_against_supervisor(source, tree, sections.section(SupervisorSettings))
    if WatchdogSettings not in sections.wrong:
        _check_healthcheck(source, sections.section(WatchdogSettings), tree)
    _check_aliases(source, sections, actors)
    _raise(source)
    return Config(
        path=source.path,
        data_dir=source.data_dir,
        supervisor=sections.section(SupervisorSettings),
        log=sections.section(LogSettings),
        watchdog=sections.section(WatchdogSettings),
        control=sections.section(ControlSettings),
        chaos=sections.section(ChaosSettings),
        operators=operators,
        children=tree.actors,
        groups=tree.groups,
        warnings=tuple(source.warnings),
        values=source.flat(),
        secrets=source.secrets,
        sections=sections.read,
        read_section=sections.section_or_raise,
    )


def _operators(source: RawConfig, sections: SectionReader) -> Mapping[str, OperatorSettings]:
    """Who may operate this installation: every command asks, so that it is read and checked with whatever it needs."""
    sections.section(OperatorSettings)
    entries = sections.keyed("operators") or {}
    operators = {name: one for name, one in entries.items() if isinstance(one, OperatorSettings)}
    check_operators(source, operators)
    return operators


def _raise(source: RawConfig) -> None:
    if source.problems:
        raise ConfigErrors(source.problems)


def _check_healthcheck(source: RawConfig, watchdog: WatchdogSettings, tree: DeclaredTree) -> None:
    """Refuse the name of an unknown actor: a frozen health check would go unseen. Only the default may be unknown."""
    names = [plan.name for plan in tree.actors]
    if watchdog.healthcheck not in names and "healthcheck" in source.table(("watchdog",)):
        message = f'there is no actor "{watchdog.healthcheck}"{did_you_mean(watchdog.healthcheck, names)}'
        source.blame(("watchdog", "healthcheck"), message)


def _check_aliases(source: RawConfig, sections: SectionReader, actors: PlanReader) -> None:
    """An alias for a key that nothing reads would do nothing, silently, on the day when its variable is set."""
    for name, path in alias_targets(source, blame=False):
        known = _keys_at(path[:-1], sections, actors)
        if known is not None and path[-1] not in known:
            source.blame(("env_aliases", name), f"{dotted(path)}: {unknown_key(str(path[-1]), known)}")


def _keys_at(path: KeyPath, sections: SectionReader, actors: PlanReader) -> list[str] | None:
    """The keys that may stand in the table at `path`; None when that is not known (and reported elsewhere)."""
    from runtime.config.tree_tables import ActorTable, GroupTable, MailboxTable  # as above

    match path:
        case ("actor", str(name), "args"):
            return actors.argument_names(name)
        case ("actor", _):
            return list(field_types(ActorTable))
        case ("group", _):
            return list(field_types(GroupTable))
        case ("actor" | "group", _, "backoff"):
            return list(field_types(Backoff))
        case ("actor", _, "mailbox"):
            return list(field_types(MailboxTable))
        case (str(section),) | (str(section), _):
            for cls in sections.read:
                mark = section_of(cls)
                if mark is not None and mark.name == section and mark.keyed == (len(path) == 2):
                    return list(field_types(cls))
    return None
