"""What can be known about a tree before it runs: start order, longest shutdown, time to give up. Pure."""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Sequence

import attrs

from runtime.child import AutoShutdown, ChildSpec, GiveUp, Strategy
from runtime.restart_limits import Backoff, longest_delay, nominal_delay
from runtime.supervision.errors import SpecError
from runtime.wording import nearest


def start_order(specs: Sequence[ChildSpec]) -> tuple[ChildSpec, ...]:
    """The order of declaration, changed only where a child needs one that is declared after it.

    Raises SpecError for a name given twice, for a need that is no child here (with the nearest name) and for children that
    need each other (with the path).
    """
    by_name = {spec.name: spec for spec in specs}
    if len(by_name) < len(specs):
        twice = sorted({spec.name for spec in specs if sum(other.name == spec.name for other in specs) > 1})
        raise SpecError(f"several children are named {', '.join(twice)}; names are unique within a supervisor")
    for spec in specs:
        check_needs(spec, by_name)
    declared = {name: number for number, name in enumerate(by_name)}
    missing = {spec.name: len(set(spec.needs)) for spec in specs}
    needed_by: dict[str, list[ChildSpec]] = {}
    for spec in specs:
        for need in set(spec.needs):
            needed_by.setdefault(need, []).append(spec)
    ready = [declared[name] for name, count in missing.items() if not count]  # in order, so it is a heap
    placed: dict[str, ChildSpec] = {}
    while ready:
        spec = specs[heapq.heappop(ready)]
        placed[spec.name] = spec
        for other in needed_by.get(spec.name, ()):
            missing[other.name] -= 1
            if not missing[other.name]:
                heapq.heappush(ready, declared[other.name])
    if len(placed) < len(specs):
        waiting = {name: spec for name, spec in by_name.items() if name not in placed}
        raise SpecError(f"children need each other in a circle: {' -> '.join(_circle(waiting))}; none could start")
    return tuple(placed.values())


def check_needs(spec: ChildSpec, names: Collection[str]) -> None:
    """Raises SpecError if `spec` needs a name that is not among `names`."""
    for need in spec.needs:
        if need not in names:
            meant = nearest(need, names)
            hint = f"; did you mean {meant!r}?" if meant else ""
            raise SpecError(f"{spec.name} needs {need!r}, which is not a child of the same supervisor{hint}")


def _circle(waiting: dict[str, ChildSpec]) -> list[str]:
    path = [next(iter(waiting))]
    while True:
        following = next(name for name in waiting[path[-1]].needs if name in waiting)
        if following in path:
            return [*path[path.index(following) :], following]
        path.append(following)


def check_combination(spec: ChildSpec, strategy: Strategy, auto_shutdown: AutoShutdown) -> None:
    """Raises SpecError if `spec` contradicts its supervisor."""
    if spec.significant and auto_shutdown is AutoShutdown.NEVER:
        raise SpecError(
            f"{spec.name} is significant, but its supervisor never shuts down by itself; "
            'set auto_shutdown = "any_significant" or "all_significant", or significant = false'
        )
    if spec.give_up is GiveUp.PARK and strategy is not Strategy.ONE_FOR_ONE:
        raise SpecError(
            f'{spec.name} has give_up = "park" under strategy {strategy.value}: its siblings cannot do without it; '
            'use "escalate" or "never", or strategy = "one_for_one"'
        )


@attrs.frozen
class SpecTree:
    """A child and, if it is a supervisor, its children in start order."""

    spec: ChildSpec
    children: tuple[SpecTree, ...] = ()
    parallel: bool = False
    """The children are stopped all at once (a supervisor of a template)."""


def worst_case_shutdown(plan: SpecTree) -> float:
    """Most seconds that stopping takes, kill_grace included, if every child uses up its time. May be math.inf."""
    patience = plan.spec.shutdown
    if plan.spec.kind == "supervisor" or plan.children:
        below = [worst_case_shutdown(child) for child in plan.children]
        inside = max(below, default=0.0) if plan.parallel else sum(below)
        if inside <= patience:
            return inside
    return patience + worst_case_kill(plan)


def worst_case_kill(plan: SpecTree) -> float:
    """Most seconds from a kill until the last child below has ended or is reported as unstopped."""
    return max([plan.spec.kill_grace, *(worst_case_kill(child) for child in plan.children)])


def time_to_give_up(
    intensity: int, period: float, backoff: Backoff, *, attempt_takes: float = 0.0, longest: bool = False
) -> float:
    """Seconds from the first crash until the attempts are used up, for a child that fails each time.

    `attempt_takes` is how long an attempt lives before it fails, e.g. the start_timeout of a start that hangs; `longest`
    lets chance lengthen every delay. math.inf if the attempts never fall into one period: delays do not shrink, so the
    first `intensity` of them are the closest that attempts ever come.
    """
    one = longest_delay if longest else nominal_delay
    total = sum(one(backoff, restart) + attempt_takes for restart in range(1, intensity + 1))
    return total if total <= period else math.inf


def check_limit(spec: ChildSpec, intensity: int, period: float) -> None:
    """Raises SpecError if the backoff makes the restart limit unreachable, so that `give_up` could never happen."""
    if spec.give_up is GiveUp.NEVER or time_to_give_up(intensity, period, spec.backoff, longest=True) < math.inf:
        return
    needed = sum(longest_delay(spec.backoff, restart) for restart in range(1, intensity + 1))
    raise SpecError(
        f"{spec.name} would be restarted for ever: with its backoff, {intensity} restarts take up to {needed:.1f} s, "
        f"longer than the period of {period:g} s in which they are counted, so give_up = "
        f'"{spec.give_up.value}" could never happen; set period above {needed:.0f} s, lower intensity, shorten the '
        'backoff, or say give_up = "never"'
    )
