"""What actors and settings say themselves about what they were configured with: asked when a configuration is read, and before
the first start of an actor that was made without one.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

import attrs

from runtime.core.class_checks import check_state, forgotten_fields
from runtime.error_text import error_text
from runtime.errors import StartRefused

if TYPE_CHECKING:
    from runtime.core.actor import Actor


def wrong_with_settings(settings: object) -> list[str]:
    """Return what a settings instance says against itself by its `check_configuration()`, if it has one."""
    check = getattr(settings, "check_configuration", None)
    if check is None or not attrs.has(type(settings)):
        return []
    try:
        return [str(sentence) for sentence in check()]
    except Exception as error:  # noqa: BLE001  a check that fails has not approved
        return [f"it cannot be checked: {error_text(error)}"]


def wrong_with_actor(actor: Actor, name: str, shutdown: float) -> list[str]:
    """Return what an actor says against its own start arguments, without what is wrong with each settings class among them."""
    try:
        return [str(sentence) for sentence in actor.check_configuration(name, shutdown)]
    except Exception as error:  # noqa: BLE001  as above
        return [f"it cannot be checked: {error_text(error)}"]


def refuse_wrong_arguments(actor: Actor, name: str, shutdown: float) -> None:
    """Raise StartRefused (78) with everything that the actor and the settings among its arguments say against them.

    Raises TypeError for a class whose `@attrs.define` was forgotten, or whose state would be shared.
    """
    forgotten = forgotten_fields(type(actor))
    if forgotten is not None:
        raise TypeError(forgotten)
    check_state(type(actor))  # of a class without slots nothing was known before
    found = wrong_with_actor(actor, name, shutdown)
    for field in attrs.fields(cast("Any", type(actor))):
        if field.init:
            found += wrong_with_settings(getattr(actor, field.name))
    if found:
        raise StartRefused("; ".join(f"{name}: {sentence}" for sentence in found), exit_code=os.EX_CONFIG)
