"""Actors and settings classes that the configuration tests declare."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import attrs

from runtime.config import Secret, settings
from runtime.core.actor import Actor


class Color(enum.Enum):
    RED = 1
    DARK_GREEN = 2


@attrs.frozen
class Window:
    begin: int
    end: int = attrs.field(default=24, validator=attrs.validators.le(24))


@settings("shop")
@attrs.frozen
class ShopSettings:
    size: int = attrs.field(default=10, validator=attrs.validators.ge(1))
    wait: float = attrs.field(default=1.5, validator=attrs.validators.gt(0))
    open: bool = True
    mode: Literal["fast", "safe"] = "safe"
    color: Color = Color.RED
    tags: tuple[str, ...] = ()
    window: Window | None = None
    data: Path | None = None
    password: Secret = attrs.field(factory=Secret)


@settings("nodes")
@attrs.frozen
class AllNodesSettings:
    required: Literal["any", "all"] | int = "any"


@settings("nodes", keyed=True, common=AllNodesSettings)
@attrs.frozen
class NodeSettings:
    url: str
    token: Secret = attrs.field(factory=Secret)
    weight: int = 1


@attrs.define(eq=False)
class Shop(Actor):
    shop: ShopSettings
    interval: float = attrs.field(default=60.0, validator=attrs.validators.ge(1))
    sizes: list[int] = attrs.field(factory=list)


@attrs.define(eq=False)
class Node(Actor):
    key: str
    node: NodeSettings
    nodes: AllNodesSettings = attrs.field(factory=AllNodesSettings)


@attrs.define(eq=False)
class AllNodes(Actor):
    nodes: Mapping[str, NodeSettings]


@attrs.define(eq=False)
class Plain(Actor):
    needed: int = 0


@attrs.define(eq=False)
class Login(Actor):
    user: str
    token: Secret


@attrs.define(eq=False)
class Picky(Actor):
    low: int = 0
    high: int = 0

    def __attrs_post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) is above high ({self.high})")


class NoActor:
    pass
