"""From bound metrics to what is computed: the states of the logs and those of the scopes.

Phase 1 passes over the logs once and computes the distinct states that any metric needs of a
log, at the finest key. Phase 2 applies the conditions on peers and adds them up for each
scope. So the cost of a definition that differs only in its scope or in a condition on peers
(such as detectPoint) is a column of the small result.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from framewalk.engine.oal.bound import (
    ApdexPredicate,
    BoundCondition,
    Metric,
    Selection,
    State,
    StatePart,
    Value,
)
from framewalk.engine.oal.catalogue import SCOPES, Level
from framewalk.engine.oal.expressions import condition_level
from framewalk.engine.schemas import DEFAULT_APDEX_THRESHOLD_MS, OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from framewalk.engine.oal.catalogue import Scope

__all__ = [
    "DEFAULT_APDEX_THRESHOLD_MS",
    "PATTERNS",
    "EndpointPatterns",
    "Plan",
    "ScopePlan",
    "Share",
    "log_columns",
    "make_plan",
    "peer_columns",
]


# The names of what folds the segments of paths, in the order in which they are tried.
PATTERNS: Final = ("number", "uuid", "hex")


@dataclass(frozen=True, slots=True)
class Share:
    """One operation's share in a state of a scope: which state of the logs it is.

    Only the peers that meet `conditions` count.
    """

    log_state: StatePart
    conditions: frozenset[BoundCondition]
    state: State


@dataclass(frozen=True, slots=True)
class ScopePlan:
    """What phase 2 computes for one scope, and the metrics that are made of it."""

    scope: Scope
    metrics: tuple[Metric, ...]
    states: tuple[State, ...]
    shares: tuple[Share, ...]

    @property
    def scalar_states(self) -> tuple[State, ...]:
        """The states that are one number for an entity and minute."""
        return tuple(state for state in self.states if not state.keyed)

    @property
    def keyed_states(self) -> tuple[State, ...]:
        """The states that are split by a bucket or a label."""
        return tuple(state for state in self.states if state.keyed)


@dataclass(frozen=True, slots=True)
class EndpointPatterns:
    """Which patterns fold the paths of a service (PATTERNS), in their order.

    `per_service` has those of services by their names, `default` those of all others.
    """

    default: tuple[str, ...] = ()
    per_service: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True, repr=False)
class Plan:
    """All that is computed for a set of definitions.

    `log_states` maps each operation to its distinct states. Apdex thresholds are in ms:
    `apdex_thresholds_ms` by the service's name, `apdex_default_ms` for all others. Without
    `endpoint_patterns` endpoints have their paths as they are.
    """

    scopes: tuple[ScopePlan, ...]
    log_states: Mapping[str, tuple[StatePart, ...]]
    apdex_thresholds_ms: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    apdex_default_ms: int = DEFAULT_APDEX_THRESHOLD_MS
    endpoint_patterns: EndpointPatterns | None = None

    def __repr__(self) -> str:
        states = sum(map(len, self.log_states.values()))
        return f"Plan({len(self.metrics)} metrics from {states} states of logs)"

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics of all scopes."""
        return tuple(metric for scope in self.scopes for metric in scope.metrics)

    def and_metrics(self, metrics: Iterable[Metric]) -> Plan:
        """Return a plan that has some more."""
        added = list(metrics)
        if not added:
            return self
        others = (self.apdex_thresholds_ms, self.apdex_default_ms, self.endpoint_patterns)
        return make_plan([*self.metrics, *added], *others)


def make_plan(
    metrics: Iterable[Metric],
    apdex_thresholds_ms: Mapping[str, int] | None = None,
    apdex_default_ms: int = DEFAULT_APDEX_THRESHOLD_MS,
    endpoint_patterns: EndpointPatterns | None = None,
) -> Plan:
    """Group metrics by what they need of a log. All scopes are planned, with or without metrics."""
    by_scope: dict[str, list[Metric]] = {name: [] for name in SCOPES}
    for metric in metrics:
        by_scope[metric.scope.name].append(metric)
    scopes = tuple(_plan_scope(SCOPES[name], own) for name, own in by_scope.items())
    return Plan(
        scopes,
        MappingProxyType({operation: _log_states(scopes, operation) for operation in OPERATIONS}),
        MappingProxyType(dict(apdex_thresholds_ms or {})),
        apdex_default_ms,
        endpoint_patterns,
    )


def _plan_scope(scope: Scope, metrics: list[Metric]) -> ScopePlan:
    states = {state.name: state for metric in metrics for state in metric.states}
    shares = tuple(_share(part, state) for state in states.values() for part in state.parts)
    return ScopePlan(scope, tuple(metrics), tuple(states.values()), shares)


def _share(part: StatePart, state: State) -> Share:
    on_peers = frozenset(
        condition
        for condition in part.selection.conditions
        if condition_level(condition) is Level.PEER
    )
    on_logs = Selection(part.selection.operation, part.selection.conditions - on_peers)
    return Share(replace(part, selection=on_logs), on_peers, state)


def _log_states(scopes: Iterable[ScopePlan], operation: str) -> tuple[StatePart, ...]:
    wanted = {
        str(share.log_state): share.log_state
        for scope in scopes
        for share in scope.shares
        if share.log_state.selection.operation == operation
    }
    return tuple(wanted.values())


def peer_columns(log_states: Iterable[StatePart]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the peer columns that states of logs read, and those whose Apdex thresholds."""
    states = tuple(log_states)
    thresholds = frozenset(
        condition.service.name
        for state in states
        for condition in state.selection.conditions
        if isinstance(condition, ApdexPredicate)
    )
    return _columns_read(states, Level.PEER), thresholds


def log_columns(plan: Plan) -> frozenset[str]:
    """Return the names of all log columns that any state reads."""
    states = [state for states in plan.log_states.values() for state in states]
    return _columns_read(states, Level.LOG)


def _columns_read(states: Iterable[StatePart], level: Level) -> frozenset[str]:
    values: set[Value | str | None] = set()
    for state in states:
        values.add(state.value)
        values.add(state.key.value if state.key is not None else None)
        values.update(condition.value for condition in state.selection.conditions)
    return frozenset(
        value.column.name
        for value in values
        if isinstance(value, Value) and value.column.level is level
    )
