"""From a TOML file and the environment to a checked Config, or to all that is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from runtime.backoff import Backoff
from runtime.config.config import Config
from runtime.config.environment import alias_targets, apply_environment
from runtime.config.location import KeyPath
from runtime.config.nearest import did_you_mean
from runtime.config.plan_reader import PlanReader
from runtime.config.problem import ConfigErrors
from runtime.config.section_reader import SectionReader
from runtime.config.sections import (
    OWN_SECTIONS,
    ActorTable,
    ChaosSettings,
    ControlSettings,
    GroupTable,
    LogSettings,
    MailboxTable,
    SupervisorSettings,
    WatchdogSettings,
)
from runtime.config.settings import section_of
from runtime.config.source import Source, dotted, parse_source, read_source
from runtime.config.table import field_types, unknown_key
from runtime.config.tree import DeclaredTree, check_against_supervisor


def load(path: Path, env: Mapping[str, str] | None = None) -> Config:
    """Read, merge and check a configuration; imports the classes of the declared actors and needs nothing else.

    `env` defaults to the process's environment. Raises ConfigErrors (exit code 78) with every error at once.
    """
    return _load(read_source(path), os.environ if env is None else env)


def load_text(text: str, env: Mapping[str, str] | None = None, *, path: Path = Path("supervisor.toml")) -> Config:
    """Like `load`, for a text at hand; `path` is what errors name and secret files are relative to. `env` is empty."""
    return _load(parse_source(text, path), env or {})


def load_control(path: Path, env: Mapping[str, str] | None = None) -> Config:
    """Only what is needed to reach a running system: `[supervisor]` and `[control]`. Imports no actor.

    Errors elsewhere in the file are ignored, so that an operator can reach a system whose file is being edited.
    """
    env = os.environ if env is None else env
    source = read_source(path)
    apply_environment(source, env)
    source.problems.clear()
    sections = SectionReader(source, env)
    supervisor, control = sections.section(SupervisorSettings), sections.section(ControlSettings)
    _raise(source)
    return Config(path=path, supervisor=supervisor, control=control)


def _load(source: Source, env: Mapping[str, str]) -> Config:
    apply_environment(source, env)
    sections = SectionReader(source, env)
    for cls in OWN_SECTIONS:
        sections.section(cls)
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
        supervisor=sections.section(SupervisorSettings),
        log=sections.section(LogSettings),
        watchdog=sections.section(WatchdogSettings),
        control=sections.section(ControlSettings),
        chaos=sections.section(ChaosSettings),
        children=tree.actors,
        groups=tree.groups,
        warnings=tuple(source.warnings),
        values=source.flat(),
        secrets=source.secrets,
        sections=sections.read,
        read_section=sections.section_or_raise,
    )


def _raise(source: Source) -> None:
    if source.problems:
        raise ConfigErrors(source.problems)


def _check_healthcheck(source: Source, watchdog: WatchdogSettings, tree: DeclaredTree) -> None:
    """A name that nobody has would leave a frozen health check unseen; only the default may be nobody's."""
    names = [plan.name for plan in tree.actors]
    if watchdog.healthcheck not in names and "healthcheck" in source.table(("watchdog",)):
        message = f'there is no actor "{watchdog.healthcheck}"{did_you_mean(watchdog.healthcheck, names)}'
        source.blame(("watchdog", "healthcheck"), message)


def _check_aliases(source: Source, sections: SectionReader, actors: PlanReader) -> None:
    """An alias for a key that nothing reads would do nothing, silently, on the day when its variable is set."""
    for name, path in alias_targets(source, blame=False):
        known = _keys_at(path[:-1], sections, actors)
        if known is not None and path[-1] not in known:
            source.blame(("env_aliases", name), f"{dotted(path)}: {unknown_key(str(path[-1]), known)}")


def _keys_at(path: KeyPath, sections: SectionReader, actors: PlanReader) -> list[str] | None:
    """The keys that may stand in the table at `path`; None when that is not known (and reported elsewhere)."""
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
