"""The pools on the control socket: `leases` looks, `pool` changes. Importing this module adds both.

They read and change a pool's state directly, without a message, so that they work while its mailbox is wedged.
"""

from __future__ import annotations

import random
from typing import Literal

import attrs
import trio

from actors.pool.client import known_gate
from actors.pool.report import pool_report, pool_state
from actors.pool.state import PoolState
from runtime import Registry
from runtime.control import UNAVAILABLE, USAGE, ControlCall, ControlError, control_command
from runtime.wording import did_you_mean


@attrs.frozen
class LeasesArguments:
    """The arguments of `leases`: the name of one pool, or None for all."""

    pool: str | None = None


@attrs.frozen
class PoolArguments:
    """The arguments of `pool`: what to do with which pool."""

    pool: str
    action: Literal["resize", "pause", "resume", "expire", "revoke"]
    size: int = attrs.field(default=1, validator=attrs.validators.in_(range(1, 1001)))
    """For `resize`: connections to keep, 1 to 1000."""
    spread: float = attrs.field(default=0.0, validator=attrs.validators.ge(0))
    """For `expire`: seconds over which the connections are replaced."""
    owner: str = ""
    """For `revoke`: the actor whose leases are taken away."""
    everybody: bool = False
    """For `revoke`: the leases of all actors."""


@control_command("leases", LeasesArguments, changes=False)
async def leases(call: ControlCall, arguments: LeasesArguments) -> object:
    """Every pool: who holds connections, who waits for one, and how long waits have been."""
    return {"pools": pool_reports(call.system.registry, arguments.pool)}


def pool_reports(registry: Registry, name: str | None = None) -> list[dict[str, object]]:
    """What is known of every pool, or of one. Raises ControlError (usage) for a name that is no pool's."""
    pools = _pools(registry)
    chosen = pools if name is None else {name: _find(pools, name)}
    return [
        {"pool": one, "state": "not running"} if state is None else pool_report(state)
        for one, state in sorted(chosen.items())
    ]


def pool_states(registry: Registry) -> list[dict[str, object]]:
    """The state of every pool and its counts, without those who hold and wait: cheap enough to be asked all the time."""
    return [
        {"pool": name, "state": "not running"} if state is None else pool_state(state)
        for name, state in sorted(_pools(registry).items())
    ]


@control_command("pool", PoolArguments)
async def pool(call: ControlCall, arguments: PoolArguments) -> object:
    """Resize, pause, resume or expire a pool, or take leases away, until the pool's next restart."""
    name = arguments.pool
    state = _find(_pools(call.system.registry), name)
    if state is None:
        raise ControlError(f"{name} does not run at this moment; `atlas status` says why", UNAVAILABLE)
    taken = 0
    match arguments.action:
        case "resize":
            state.resize(arguments.size)
        case "pause":
            state.pause()
        case "resume":
            state.resume()
        case "expire":
            now = trio.current_time()
            state.expire_all(lambda: now + random.uniform(0, arguments.spread))  # noqa: S311  spreads load, guards nothing
        case "revoke":
            taken = _revoke(call.system.registry, state, arguments)
    return {
        "pool": name,
        "action": arguments.action,
        "size": state.size,
        "paused": state.paused,
        "leased": len(state.leases),
        "waiting": len(state.queue),
        "revoked": taken,
    }


def _revoke(registry: Registry, state: PoolState, arguments: PoolArguments) -> int:
    """Take leases away and return how many."""
    name, everybody = arguments.owner, arguments.everybody
    if bool(name) is everybody:
        raise ControlError("say whose leases to take away: the name of one actor, or everybody's, with --all", USAGE)
    known = {address.name for address in registry} | {lease.owner.name for lease in state.leases.values()}
    if name and name not in known:
        raise ControlError(f'there is no actor "{name[:60]}"{did_you_mean(name[:60], known)}', USAGE)
    before = len(state.leases)
    state.reclaim(lambda owner: everybody or owner.name == name, "an operator took it away")
    return before - len(state.leases)


def _pools(registry: Registry) -> dict[str, PoolState | None]:
    """Return the state of every pool of the system by name; None where the pool does not run at the moment."""
    found: dict[str, PoolState | None] = {}
    for address in registry:
        gate = known_gate(address.ref)
        if gate is not None and gate.has_run:
            found[address.name] = gate.state
    return found


def _find(pools: dict[str, PoolState | None], name: str) -> PoolState | None:
    if name not in pools:
        raise ControlError(f'there is no pool "{name[:60]}"{did_you_mean(name[:60], pools)}', USAGE)
    return pools[name]
