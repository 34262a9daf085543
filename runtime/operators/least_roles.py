"""The least role of each command of `atlas`: one list, read by the command line and by the control socket.

It stands here because the control socket decides for itself, whatever asks it. A command that is missing is the
owner's alone; a test holds that none is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from runtime.config.operators import Role

_VIEWER, _SUPPORT, _MONEY, _OWNER = Role.VIEWER, Role.SUPPORT, Role.MONEY, Role.OWNER

LEAST_ROLES: Final[Mapping[str, Role | None]] = {
    # of this machine: who may read the files may run them, and nothing is asked of the system or its database
    "run": None,
    "check": None,
    "completion": None,
    "config": None,
    "init": None,
    "operators add": None,
    "operators list": None,
    "operators whoami": None,
    "new actor": None,
    "node disown": None,
    "node install": None,
    "node kick": None,
    "node list": None,
    "node run": None,
    "node state": None,
    "node usage": None,
    "restore": None,
    "tunnel": None,
    # the system, without customers
    "crashes": _VIEWER,
    "db check": _VIEWER,
    "deadletters": _VIEWER,
    "events": _VIEWER,
    "failpoints": _VIEWER,
    "inspect": _VIEWER,
    "doctor": _VIEWER,
    "leases": _VIEWER,
    "log": _VIEWER,
    "price list": _VIEWER,
    "promo list": _VIEWER,
    "rates list": _VIEWER,
    "status": _VIEWER,
    "top": _VIEWER,
    "verify": _VIEWER,
    # customers, and actors that are to be started anew
    "audit": _SUPPORT,
    "cases close": _SUPPORT,
    "cases list": _SUPPORT,
    "cases show": _SUPPORT,
    "customer add": _SUPPORT,
    "customer list": _SUPPORT,
    "customer show": _SUPPORT,
    "customer story": _SUPPORT,
    "failpoints --disarm": _SUPPORT,
    "kill": _SUPPORT,
    "orders cancel": _SUPPORT,
    "orders list": _SUPPORT,
    "orders open": _SUPPORT,
    "reissue": _SUPPORT,
    "renewals list": _SUPPORT,
    "restart": _SUPPORT,
    "start": _SUPPORT,
    "subscription": _SUPPORT,
    "withdrawals list": _SUPPORT,
    "withdrawals show": _SUPPORT,
    # money and access
    "adjust": _MONEY,
    "auto-renew": _MONEY,
    "buy": _MONEY,
    "buy-from-balance": _MONEY,
    "cases credit": _MONEY,
    "compensate": _MONEY,
    "customer discount": _MONEY,
    "customer vip": _MONEY,
    "grant": _MONEY,
    "prolong": _MONEY,
    "price set": _MONEY,
    "promo add": _MONEY,
    "promo stop": _MONEY,
    "rates set": _MONEY,
    "refund": _MONEY,
    "renewals now": _MONEY,
    "report": _MONEY,
    "revoke": _MONEY,
    "topup": _MONEY,
    "trial": _MONEY,
    "withdrawals approve": _MONEY,
    "withdrawals confirm": _MONEY,
    "withdrawals reject": _MONEY,
    "withdrawals request": _MONEY,
    # the system as a whole
    "ask": _OWNER,
    "backup": _OWNER,
    "db migrate": _OWNER,
    "drain": _OWNER,
    "node own": _OWNER,
    "pause": _OWNER,
    "pool expire": _OWNER,
    "pool pause": _OWNER,
    "pool resize": _OWNER,
    "pool resume": _OWNER,
    "pool revoke": _OWNER,
    "reload": _OWNER,
    "resume": _OWNER,
    "stop": _OWNER,
    "tell": _OWNER,
    "withdrawals seal": _OWNER,
}
"""By the words after `atlas`; None: no role is asked for."""

_OF_THE_SOCKET: Final[Mapping[str, str]] = {"disarm": "failpoints --disarm"}
"""Commands of the control socket that the command line calls differently."""


def least_role(command: str) -> Role | None:
    """The least role for a command line such as `withdrawals approve`; the owner's for one that is not listed."""
    return LEAST_ROLES.get(command, Role.OWNER)


def least_role_of_call(name: str, arguments: Mapping[str, object]) -> Role:
    """The least role for a command of the control socket with these arguments; the owner's for one that is not listed."""
    words = _OF_THE_SOCKET.get(name, name)
    action = arguments.get("action")
    return least_role(f"{words} {action}" if isinstance(action, str) else words) or Role.OWNER
