from __future__ import annotations

import pytest

import runtime

NAMES = """
POSTPONE Activity Actor ActorCrashed ActorDead ActorRestarting ActorTask AskError AskTimeout AtlasError AutoShutdown Child
ChildSpec ConfigError Context Control DeadLetter DeadLetters Deferred Delivery Down DynamicSupervisor Event EventBus Exit
ExitReason Failpoints Fatal GiveUp Ignore Inspect Killed LeaseHeldAcrossCall LeaseMarker MailboxFull MailboxStatistics Message
Monitor Overflow Postponed Ref Registry Request Restart Resume Services StartRefused Stop StopCause StopReason Strategy
Supervisor Suspend Timer TooManyPostponed Unhandled UnknownActor WakeUp WouldDeadlock current_lease handler refuse_if_leased
"""


def test_the_public_names_change_only_on_purpose() -> None:
    assert sorted(runtime.__all__) == sorted(NAMES.split())


def test_nothing_is_public_by_accident() -> None:
    assert dir(runtime) == sorted(runtime.__all__)
    offered: dict[str, object] = {}
    exec("from runtime import *", offered)  # noqa: S102 - there is no other way to ask what a star gives
    assert offered.keys() - {"__builtins__"} == set(runtime.__all__)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Acter'"):
        runtime.Acter  # noqa: B018


def test_every_public_class_and_function_says_what_it_promises() -> None:
    silent = [name for name in runtime.__all__ if callable(each := getattr(runtime, name)) and not each.__doc__]
    assert silent == []
