"""A loaded configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import attrs

from runtime.config.operators import OperatorSettings
from runtime.config.runtime_sections import (
    ChaosSettings,
    ControlSettings,
    LogSettings,
    SupervisorSettings,
    WatchdogSettings,
)
from runtime.config.secret import Secret, with_new_secrets

if TYPE_CHECKING:
    from runtime.config.groups import GroupPlan
    from runtime.config.tree import ChildPlan

T = TypeVar("T")


def _no_sections(cls: type) -> object:
    return cls()


@attrs.frozen
class Config:
    """Everything the file and the environment said, checked. `Config()` is an empty one with all defaults."""

    path: Path | None = None
    data_dir: Path = Path(".atlas")
    """Where this installation keeps its files: what the configuration calls `data_dir`, else `.atlas`; absolute, if it was read
    from a file."""
    supervisor: SupervisorSettings = attrs.field(factory=SupervisorSettings)
    log: LogSettings = attrs.field(factory=LogSettings)
    watchdog: WatchdogSettings = attrs.field(factory=WatchdogSettings)
    control: ControlSettings = attrs.field(factory=ControlSettings)
    chaos: ChaosSettings = attrs.field(factory=ChaosSettings)
    operators: Mapping[str, OperatorSettings] = attrs.field(factory=dict)
    """By name; empty: none are declared, and whoever may reach the system is its owner."""
    children: tuple[ChildPlan, ...] = ()
    """In start order."""
    groups: tuple[GroupPlan, ...] = ()
    """In start order."""
    warnings: tuple[str, ...] = ()
    """Lines for people about what is legal but unwise."""
    values: Mapping[str, object] = attrs.field(factory=dict, repr=False)
    """Every key as written (dotted path -> raw value), to tell what a reload changed. May hold secrets: never shown."""
    secrets: Mapping[str, Secret] = attrs.field(factory=dict, repr=False)
    """Every secret that was found, by the dotted path of its key, to tell which of them a reload found changed."""
    _sections: dict[type, object] = attrs.field(factory=dict, alias="sections", repr=False)
    _read_section: Callable[[type], object] = attrs.field(default=_no_sections, alias="read_section", repr=False)

    def below(self, group: str | None) -> list[ChildPlan | GroupPlan]:
        """The actors and groups right below a group, or below the root, in start order."""
        from runtime.config.groups import ancestors  # keeps commands fast that need no actor

        groups = {plan.name: plan for plan in self.groups}
        found: dict[str, ChildPlan | GroupPlan] = {}
        for plan in self.children:
            around = ancestors(plan.group, groups)
            if group is None or group in around:
                inside = around[: around.index(group)] if group is not None else around
                child = groups[inside[-1]] if inside else plan
                found[child.name] = child
        # an empty one has no place of its own
        return [*found.values(), *(plan for plan in self.groups if plan.parent == group and plan.name not in found)]

    def take_secrets(self, fresh: Config) -> Config:
        """This one with the secrets of another one wherever both have one; everything else stays."""
        sections = {cls: with_new_secrets(value, fresh._sections.get(cls)) for cls, value in self._sections.items()}
        return attrs.evolve(self, secrets=fresh.secrets, sections=sections)

    def section(self, cls: type[T]) -> T:
        """The settings of this class; the defaults when its table is missing.

        Raises ConfigErrors when the table is wrong and no declared actor has read it yet. For a keyed class use `keyed`.
        """
        if cls not in self._sections:
            self._sections[cls] = self._read_section(cls)
        return cast("T", self._sections[cls])

    def keyed(self, cls: type[T]) -> Mapping[str, T]:
        """The entries of a section whose class is declared with `@settings(…, keyed=True)`, in the order of the file."""
        return cast("Mapping[str, T]", self.section(cast("type[Any]", cls)))
